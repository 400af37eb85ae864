"""The same URLs through another library: each difference is one that is explained here."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
from ssrfguard import Policy
from ssrfguard.httpx import AsyncClient

from tests.unit.server.outbox.hostile_urls import ALLOWED, HOSTILE, REBINDING

from .small_internet import SmallInternet
from .test_targets import BODY, HEADERS, sender

pytestmark = pytest.mark.anyio

#: Why a URL is refused here -> the URLs to which ssrfguard connects. There is none the other way.
STRICTER = {
    "a cloud's agent listens at an address that the registries know as public": {
        "https://168.63.129.16/",
        "https://wireserver.example/",
    },
    "globally reachable by the registries, but answered by the nearest host, or no place at all": {
        "https://192.31.196.1/",
        "https://192.52.193.1/",
        "https://192.175.48.1/",
        "https://[2620:4f:8000::1]/",
        "https://[2001:20::1]/",
    },
    "of IPv6 only what has been given out is public": {"https://[4000::1]/"},
    "IPv4 inside IPv6 is refused whatever it holds; ssrfguard judges what is inside, and does not "
    "know all of its forms": {
        "https://[::ffff:93.184.215.14]/",
        "https://[::ffff:0:127.0.0.1]/",
        "https://[64:ff9b::93.184.215.14]/",
        "https://mapped-public.example/",
    },
    "the host is public, but parsers do not agree that it is this one": {
        "https://public.example#@10.0.0.1/",
    },
    "ports are plain numbers here, where urlsplit takes all that int() takes": {
        "https://public.example:+443/",
        "https://public.example: 443/",
        "https://public.example:4_43/",
        "https://public.example:４４３/",
        "https://public.example:00443/",
        "https://public.example:/",
    },
    "the host is public, and the URL is mended instead of refused": {
        "https://public.example./",
        "https://public.example/a b",
    },
}


async def test_every_difference_to_another_library_is_explained(internet: SmallInternet):
    policy = Policy(
        allowed_schemes=frozenset({"https"}),
        allowed_ports=frozenset(range(1, 65536)),
        max_redirects=0,
    )
    ours = sender("shared")
    tls = ssl.create_default_context()
    stricter, wider = set(), set()
    async with AsyncClient(policy=policy, verify=tls, trust_env=False, timeout=2) as other:
        for each in (*HOSTILE, *ALLOWED, *REBINDING):
            if "shared" not in each.profiles:
                continue
            internet.forget()
            await ours.send(each.url, HEADERS, BODY)
            our_attempts = internet.attempts()
            internet.forget()
            with suppress(Exception):  # a refusal or a failure: the attempts tell which
                await other.post(each.url, content=BODY)
            theirs = internet.attempts()
            if theirs and not our_attempts:
                stricter.add(each.url)
            elif our_attempts != theirs:
                wider.add(each.url)
    assert wider == set()
    assert stricter == set().union(*STRICTER.values())
