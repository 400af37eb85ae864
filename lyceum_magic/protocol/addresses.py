"""Addresses in URLs -> loopback, public or neither; for both sides."""

from __future__ import annotations

import ipaddress
from functools import cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK = ("127.0.0.0/8", "::1/128")

#: All of IPv6 that is given out (RFC 4291 2.4). It leaves out what stands for an IPv4 address
#: (mapped, compatible, NAT64), unique local, site-local, link-local and multicast.
_GIVEN_OUT = ("2000::/3",)

#: Ranges that are not public all the same. Python's own tables differ between its releases, and
#: hold neither multicast nor a cloud's own services at addresses that are public elsewhere.
#: Source: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890).
_SPECIAL = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",  # shared by a provider's customers; 100.100.100.200 is Alibaba's metadata
    "127.0.0.0/8",
    "168.63.129.16/32",  # Azure's machine agent
    "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata of most clouds
    "172.16.0.0/12",
    "192.0.0.0/24",  # 192.0.0.192 is Oracle's metadata
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",  # multicast, reserved, broadcast
    "2001::/23",  # protocols: Teredo, benchmarks, ORCHID
    "2001:db8::/32",
    "2002::/16",  # 6to4
    "2620:4f:8000::/48",
    "3fff::/20",
)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address of a URL is this machine."""
    if host == "localhost":
        return True
    # Not `address.is_loopback`: releases of Python differ on ::ffff:127.0.0.1.
    address = address_of(host.strip("[]"))
    return address is not None and _lies_in(address, _LOOPBACK)


def is_public(address: Address) -> bool:
    """Return whether an address is reachable on the Internet, and the same host for everyone."""
    return (
        address.is_global
        and (address.version == 4 or _lies_in(address, _GIVEN_OUT))
        and not _lies_in(address, _SPECIAL)
    )


def address_of(host: str) -> Address | None:
    """Return the address that a text denotes; None for any other text.

    IPv4 has four decimal numbers here; an IPv6 address with a zone is none.
    """
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        return None


def _lies_in(address: Address, networks: tuple[str, ...]) -> bool:
    # A network holds no address of the other version.
    return any(address in network for network in _networks(networks))


@cache
def _networks(texts: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)
