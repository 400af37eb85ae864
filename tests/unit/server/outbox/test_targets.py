"""The allowed targets of callbacks, with look-ups that answer as the test says."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.protocol.addresses import Address, is_public
from lyceum_magic.server.outbox.slots import ALL_SLOTS
from lyceum_magic.server.outbox.targets import TargetRefused, Targets

from .hostile_urls import ALLOWED, HOSTILE, NAMES, OWN_PORT
from .made_up_urls import urls

pytestmark = pytest.mark.anyio

PROFILES = ("local", "shared")


@pytest.mark.parametrize("profile", PROFILES)
@given(url=urls)
def test_whatever_is_given_is_read_or_refused_with_a_sentence(profile, url: str):
    refusal = None
    try:
        read = Targets(profile, lambda: {OWN_PORT}).read(url)
    except TargetRefused as exc:
        refusal = str(exc)
    if refusal is None:
        assert read.scheme == "https" or profile == "local"
    else:
        assert refusal.endswith(".")


def test_own_ports_are_those_of_the_moment():
    ports: set[int] = set()
    targets = Targets("local", lambda: ports)
    assert targets.read("http://127.0.0.1:8000/").port == 8000
    ports.add(8000)
    with pytest.raises(TargetRefused, match="is this server itself"):
        targets.read("http://localhost:8000/")


def test_a_shared_server_sends_nothing_to_its_own_machine():
    targets = Targets("shared", lambda: ())
    for allowed in ALLOWED:
        if "shared" in allowed.profiles:
            targets.read(allowed.url)
        else:
            with pytest.raises(TargetRefused, match="is the server's own machine"):
                targets.read(allowed.url)


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_name_is_refused_for_any_one_of_its_addresses(
    profile, monkeypatch: pytest.MonkeyPatch
):
    def look_up(host: str, port: int, **_options: object) -> list[tuple]:
        return [
            (socket.AF_UNSPEC, socket.SOCK_STREAM, 6, "", (address, port))
            for address in NAMES[host][0]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    targets = Targets(profile, lambda: ())
    for hostile in HOSTILE:
        if hostile.kind == "name":
            with pytest.raises(TargetRefused, match=r"leads to .*, an address to which"):
                await targets.addresses(targets.read(hostile.url))
    both = targets.read("https://both.example/")
    assert await targets.addresses(both) == NAMES["both.example"][0]


@given(st.lists(st.ip_addresses(), min_size=1, max_size=4))
async def test_addresses_pass_together_or_not_at_all(answers: list[Address]):
    with pytest.MonkeyPatch.context() as patch:
        found = [(0, 0, 0, "", (str(each), 443)) for each in answers]
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        targets = Targets("shared", lambda: ())
        try:
            passed = await targets.addresses(targets.read("https://name.example/"))
        except TargetRefused:
            passed = []
    allowed = all(is_public(each) for each in answers)
    assert passed == (list(dict.fromkeys(map(str, answers))) if allowed else [])


async def test_a_localhost_that_leads_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("10.0.0.1", 8000))])
    targets = Targets("local", lambda: ())
    with pytest.raises(TargetRefused, match=r"leads to 10\.0\.0\.1"):
        await targets.addresses(targets.read("http://localhost:8000/"))


async def test_names_that_hang_hold_up_no_other_until_there_are_as_many_as_slots(
    monkeypatch: pytest.MonkeyPatch,
):
    goes_on, hanging = threading.Event(), threading.Semaphore(0)

    def look_up(host: str, port: int, **_options: object) -> list[tuple]:
        if host == "hung.example":
            hanging.release()
            goes_on.wait()
        return [(0, 0, 0, "", ("192.88.0.1", port))]

    def hang(number: int) -> list[asyncio.Task[list[str]]]:
        hung = targets.read("https://hung.example/")
        return [asyncio.create_task(targets.addresses(hung)) for _ in range(number)]

    async def found(url: str) -> list[str]:
        return await targets.addresses(targets.read(url))

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    targets = Targets("shared", lambda: ())
    try:
        tasks = hang(ALL_SLOTS - 1)
        async with asyncio.timeout(30):
            assert await found("https://good.example/") == ["192.88.0.1"]
        tasks += hang(1)
        for _ in tasks:
            assert await asyncio.to_thread(hanging.acquire, timeout=30)
        # Their attempts have ended, and their threads have not.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        waits = asyncio.create_task(found("https://good.example/"))
        assert await found("https://1.1.1.1/") == ["1.1.1.1"]  # needs no look-up
        assert not (await asyncio.wait([waits], timeout=0.05))[0]
    finally:
        goes_on.set()
    async with asyncio.timeout(30):
        assert await waits == ["192.88.0.1"]
