"""Callbacks are really sent to hostile URLs, in a network where every address answers."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from lyceum_magic.server.outbox.results import Outcome
from lyceum_magic.server.outbox.sending import HttpSender
from lyceum_magic.server.outbox.targets import Targets
from lyceum_magic.server.settings import Profile
from tests.unit.server.outbox.hostile_urls import (
    ALLOWED,
    HOSTILE,
    LOCAL_PORT,
    OWN_PORT,
    PUBLIC,
    PUBLIC_IPV4,
    PUBLIC_IPV6,
    REBINDING,
)

from .small_internet import IPV4_PORT, IPV6_PORT, UNNAMED, SmallInternet

pytestmark = pytest.mark.anyio

HEADERS = {"webhook-id": "msg_1"}
BODY = b'{"schema":1}'
PROFILES: tuple[Profile, ...] = ("local", "shared")


def sender(profile: Profile = "shared") -> HttpSender:
    return HttpSender(Targets(profile, lambda: {OWN_PORT}))


async def send(url: str, profile: Profile = "shared") -> Outcome:
    return await sender(profile).send(url, HEADERS, BODY)


@pytest.mark.parametrize("profile", PROFILES)
async def test_no_hostile_url_reaches_a_denied_address(internet: SmallInternet, profile: Profile):
    sending = sender(profile)
    strays = []
    for hostile in HOSTILE:
        if profile not in hostile.profiles:
            continue
        outcome = await sending.send(hostile.url, HEADERS, BODY)
        reached = {address for address, _ in internet.attempts()}
        if reached != hostile.reaches or not outcome.error or "\n" in outcome.error:
            strays.append((str(hostile), reached, outcome))
    assert strays == []


@pytest.mark.parametrize("profile", PROFILES)
async def test_every_allowed_url_is_delivered(internet: SmallInternet, profile: Profile):
    sending = sender(profile)
    for allowed in ALLOWED:
        if profile not in allowed.profiles:
            continue
        outcome = await sending.send(allowed.url, HEADERS, BODY)
        assert (outcome.status_code, outcome.error) == (204, ""), allowed
        reached = internet.attempts()
        assert [address for address, _ in reached] == [outcome.address], allowed
        assert outcome.address in allowed.reaches, allowed
        received = internet.received.pop()
        assert (received.address, received.body) == (outcome.address, BODY), allowed
    assert internet.received == []


async def test_what_reaches_a_denied_address_would_be_seen(internet: SmallInternet):
    tls = ssl.create_default_context()
    strays = set()
    async with httpx.AsyncClient(
        verify=tls, follow_redirects=True, trust_env=False, timeout=0.3
    ) as naive:
        for hostile in HOSTILE:
            with suppress(Exception):  # whatever it is: it comes too late
                await naive.post(hostile.url, content=BODY)
            if {address for address, _ in internet.attempts()} - hostile.reaches - PUBLIC:
                strays.add(hostile.kind)
    assert strays >= {
        "reserved address",
        "notation of IPv4",
        "IPv4 in IPv6, and zones",
        "Unicode",
        "dots and case",
        "parsers and users",
        "scheme",
        "the server itself",
        "name",
        "redirect",
    }


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("url", REBINDING, ids=str)
async def test_a_name_that_changes_its_answers_leads_nowhere_else(
    internet: SmallInternet, profile: Profile, url
):
    sending = sender(profile)
    outcomes = [await sending.send(url.url, HEADERS, BODY) for _ in range(4)]
    assert {address for address, _ in internet.attempts()} <= PUBLIC
    assert (outcomes[0].error, outcomes[3].address) == ("", None)
    assert "leads to" in outcomes[3].error
    # A second look-up within an attempt would be the one to be tricked.
    assert internet.names.asked[urlsplit(url.url).hostname, "A"] == 4


async def test_a_check_before_connecting_would_be_tricked(internet: SmallInternet):
    url = "https://rebinding.example/"
    [answer] = {each[4][0] for each in socket.getaddrinfo("rebinding.example", 443)}
    assert answer in PUBLIC
    async with httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False) as naive:
        await naive.post(url)
    assert internet.attempts() == [("127.0.0.1", 443)]


async def test_host_and_server_name_stay_those_of_the_url(internet: SmallInternet):
    await send("https://Public.Example:8443/a?b=%20c&d=ü")
    [received] = internet.received
    assert received.address == PUBLIC_IPV4
    assert received.server_name == "public.example"
    assert received.headers["host"] == "public.example:8443"
    assert received.target == "/a?b=%20c&d=%C3%BC"
    await send(f"https://[{PUBLIC_IPV6}]/")
    assert internet.received[1].headers["host"] == f"[{PUBLIC_IPV6}]"


async def test_the_next_address_of_a_name_is_tried(internet: SmallInternet):
    first = await send(f"https://both.example:{IPV4_PORT}/")
    assert (first.error, first.address) == ("", PUBLIC_IPV4)
    second = await send(f"https://both.example:{IPV6_PORT}/")
    assert (second.error, second.address) == ("", PUBLIC_IPV6)
    # Whichever address comes first, one of the two has had to try its second.
    assert len(internet.attempts()) == 3


async def test_an_unknown_authority_is_not_trusted(untrusted: Path, internet: SmallInternet):
    outcome = await send("https://public.example/secret")
    assert outcome.error.startswith("https://public.example/... has no trusted certificate: ")
    assert (outcome.address, internet.received) == (PUBLIC_IPV4, [])


async def test_a_certificate_of_another_name_is_not_trusted(internet: SmallInternet):
    outcome = await send(f"https://{UNNAMED}/secret")
    assert "Hostname mismatch" in outcome.error
    assert internet.received == []


async def test_a_name_that_there_is_not(internet: SmallInternet):
    outcome = await send("https://nobody.example/secret")
    assert outcome.error == ("https://nobody.example/... was not found: Name or service not known.")


async def test_proxies_and_netrc_are_nothing_to_it(
    internet: SmallInternet, monkeypatch: pytest.MonkeyPatch
):
    proxy = f"http://127.0.0.1:{LOCAL_PORT}"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy)
        monkeypatch.setenv(name.upper(), proxy)
    netrc = Path.home() / ".netrc"
    netrc.write_text("default login user password secret\n")
    netrc.chmod(0o600)

    assert (await send("https://public.example/", "local")).error == ""
    assert (await send("http://127.0.0.2:80/", "local")).error == ""
    assert internet.attempts() == [(PUBLIC_IPV4, 443), ("127.0.0.2", 80)]
    assert not any("authorization" in received.headers for received in internet.received)

    # Who does look at them is led astray, and gives the password away.
    async with httpx.AsyncClient(auth=httpx.NetRCAuth()) as obedient:
        await obedient.post("http://public.example/")
    assert internet.attempts() == [("127.0.0.1", LOCAL_PORT)]
    assert "authorization" in internet.received[-1].headers
