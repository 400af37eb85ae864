"""Made-up URLs: whatever is made of them, nothing but allowed addresses is connected to."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lyceum_magic.server.settings import Profile
from tests.tools.samples import examples
from tests.unit.server.outbox.hostile_urls import OWN_PORT
from tests.unit.server.outbox.made_up_urls import urls

from .small_internet import SmallInternet
from .test_targets import PROFILES, send


@pytest.mark.parametrize("profile", PROFILES)
@given(data=st.data())
@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_made_up_reaches_a_denied_address(
    internet: SmallInternet, profile: Profile, data: st.DataObject
):
    url = data.draw(urls)
    outcome = asyncio.run(send(url, profile))
    for text, port in internet.attempts():
        address = ipaddress.ip_address(text)
        if address.is_loopback:
            assert (profile, port == OWN_PORT) == ("local", False), outcome
        else:
            assert is_public_to_python(address), outcome


def is_public_to_python(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """The verdict of the standard library, which knows less than the sender's own tables."""
    inside = (
        (address.ipv4_mapped, address.sixtofour, address.teredo)
        if isinstance(address, ipaddress.IPv6Address)
        else ()
    )
    return address.is_global and not (address.is_multicast or address.is_reserved or any(inside))
