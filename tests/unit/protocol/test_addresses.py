"""Addresses are loopback, public or neither."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.protocol.addresses import address_of, is_loopback, is_public

#: The first and last address of what is denied, and their neighbours that are not.
_EDGES = {
    "1.0.0.0": True,
    "9.255.255.255": True,
    "10.0.0.0": False,
    "10.255.255.255": False,
    "11.0.0.0": True,
    "100.63.255.255": True,
    "100.64.0.0": False,
    "100.127.255.255": False,
    "100.128.0.0": True,
    "126.255.255.255": True,
    "127.0.0.0": False,
    "127.255.255.255": False,
    "128.0.0.0": True,
    "168.63.129.15": True,
    "168.63.129.16": False,
    "168.63.129.17": True,
    "169.253.255.255": True,
    "169.254.0.0": False,
    "169.254.255.255": False,
    "169.255.0.0": True,
    "172.15.255.255": True,
    "172.16.0.0": False,
    "172.31.255.255": False,
    "172.32.0.0": True,
    "192.0.0.0": False,
    "192.0.0.255": False,
    "192.0.1.0": True,
    "192.167.255.255": True,
    "192.168.0.0": False,
    "192.168.255.255": False,
    "192.169.0.0": True,
    "198.17.255.255": True,
    "198.18.0.0": False,
    "198.19.255.255": False,
    "198.20.0.0": True,
    "223.255.255.255": True,
    "224.0.0.0": False,
    "255.255.255.255": False,
    "1fff:ffff::": False,
    "2000::": True,
    "2001:1ff:ffff::": False,
    "2001:200::": True,
    "2001:db7:ffff::": True,
    "2001:db8::": False,
    "2001:db9::": True,
    "2001:ffff:ffff::": True,
    "2002::": False,
    "2002:ffff:ffff::": False,
    "2003::": True,
    "3ffe:ffff::": True,
    "3fff::": False,
    "3fff:fff:ffff::": False,
    "3fff:1000::": True,
    "4000::": False,
}


@pytest.mark.parametrize(("address", "public"), _EDGES.items())
def test_public_ends_where_the_registries_say(address: str, public: bool):
    assert is_public(ipaddress.ip_address(address)) == public


@given(st.ip_addresses())
def test_what_python_knows_as_special_is_not_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
):
    inside = (
        [address.ipv4_mapped, address.sixtofour, address.teredo, address.is_site_local]
        if isinstance(address, ipaddress.IPv6Address)
        else []
    )
    if (
        not address.is_global
        or address.is_private
        or address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or any(inside)
    ):
        assert not is_public(address)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.255.0.1", "::1", "[::1]"])
def test_this_machine(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["::ffff:127.0.0.1", "::1%lo", "0.0.0.0", "::", "localhost.", "127.1", "10.0.0.1", ""]
)
def test_what_is_not_this_machine_or_not_said_plainly(host: str):
    assert not is_loopback(host)


@pytest.mark.parametrize("text", ["fe80::1%eth0", "127.1", "010.0.0.1", "0x7f.0.0.1", "a", ""])
def test_what_is_no_address(text: str):
    assert address_of(text) is None
