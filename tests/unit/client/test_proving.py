"""No key of a login goes to a program of this machine that does not know it already."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import parse_qs

import httpx
import pytest

from lyceum_magic import config
from lyceum_magic.client import proving, transport
from lyceum_magic.client.api import Client
from lyceum_magic.config import Account, Secret
from lyceum_magic.exceptions import ConfigError, ServerUnreachable
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished
from lyceum_magic.protocol.proof import digest_of, key_proof
from lyceum_magic.protocol.requests import StartPython
from tests.tools.wire_server import (
    Reply,
    Request,
    WireServer,
    answer,
    frame,
    hang_up,
    html,
    json_answer,
    record,
    refusal,
    stream,
)
from tests.unit.client.following import heard

pytestmark = pytest.mark.anyio

KEY = f"lk_canary-{'k' * 36}"
RECORD = paths.record("run")
START = StartPython(code="1", execution_type="cpu")


def login(wire: WireServer) -> Account:
    return Account(wire.base_url, Secret(KEY), "the login", needs_proof=True)


def proves(wire: WireServer, key: str = KEY, *, address: str | None = None) -> Reply:
    """The reply of a server that knows a key."""
    where = address or wire.base_url.removeprefix("http://")

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        (nonce,) = parse_qs(request.query)["nonce"]
        given = key_proof(digest_of(key), where, nonce)
        await json_answer({"status": "healthy", "key_proofs": ["x", given]})(request, writer)

    return reply


def all_heard(wire: WireServer) -> str:
    return repr(wire.requests)


async def test_a_connection_is_proved_once_and_then_used(wire: WireServer) -> None:
    wire.on("GET", paths.HEALTH, proves(wire))
    wire.on("GET", RECORD, json_answer(record()))
    async with Client(login(wire)) as client:
        await client.record("run")
        await client.record("run")
    assert [request.path for request in wire.requests] == [paths.HEALTH, RECORD, RECORD]
    (question, *_) = wire.requests
    assert parse_qs(question.query)["key"] == [KEY[:8]]
    assert "authorization" not in question.headers
    assert all(r.headers["authorization"] == f"Bearer {KEY}" for r in wire.requests[1:])


async def test_each_connection_is_proved(wire: WireServer) -> None:
    """Another program may listen at the address by the time of the next one."""
    wire.on("GET", paths.HEALTH, proves(wire), refusal(404))
    wire.on("GET", RECORD, json_answer(record()))
    async with Client(login(wire)) as client:
        await client.record("run")
        wire.hang_up_on_all()
        with pytest.raises(ConfigError):
            await client.record("run")
    assert len(wire.asked("GET", RECORD)) == 1


async def test_a_stream_is_proved_too(wire: WireServer) -> None:
    wire.on("GET", paths.HEALTH, proves(wire))
    wire.on("POST", paths.stream("run"), stream(frame(Finished(None, 0))))
    async with Client(login(wire)) as client:
        await heard(client)
    wire.on("GET", paths.HEALTH, html)
    async with Client(login(wire)) as client:
        with pytest.raises(ConfigError):
            await heard(client)
    assert len(wire.asked("POST", paths.stream("run"))) == 1


async def not_http(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n" + b" " * 300_000)


async def endless_preface(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000)


async def cut_short(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "reply",
    [
        refusal(404),
        html,
        json_answer({"status": "healthy"}),
        json_answer({"key_proofs": []}),
        json_answer({"key_proofs": None}),
        json_answer({"key_proofs": ["0" * 64, 7, None, ["x"], "\u00e9", "\ud800"]}),
        json_answer([]),
        answer(b"[" * 60_000),
        answer(b"\xff"),
        not_http,
        endless,
        endless_preface,
    ],
)
async def test_what_proves_nothing_is_sent_nothing(wire: WireServer, reply: Reply) -> None:
    wire.on("GET", paths.HEALTH, reply)
    async with Client(login(wire)) as client:
        for ask in (client.machine_types, lambda: client.start(START)):
            with pytest.raises(ConfigError, match="keys create NAME") as caught:
                await ask()
            assert "\n" not in str(caught.value)
            assert KEY not in str(caught.value)
    assert {request.path for request in wire.requests} == {paths.HEALTH}
    assert KEY[8:] not in all_heard(wire)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:{port}", "localhost:{port}"])
async def test_a_proof_for_another_address_is_none(wire: WireServer, address: str) -> None:
    """Passed on by a program in between, which has asked the server at its own address."""
    port = wire.base_url.rpartition(":")[2]
    wire.on("GET", paths.HEALTH, proves(wire, address=address.format(port=port)))
    async with Client(login(wire)) as client:
        with pytest.raises(ConfigError):
            await client.record("run")


async def test_a_proof_for_another_key_is_none(wire: WireServer) -> None:
    wire.on("GET", paths.HEALTH, proves(wire, f"{KEY}x"))
    async with Client(login(wire)) as client:
        with pytest.raises(ConfigError):
            await client.record("run")


async def test_a_proof_is_good_once(wire: WireServer) -> None:
    said: list[str] = []

    async def repeats(request: Request, writer: asyncio.StreamWriter) -> None:
        (nonce,) = parse_qs(request.query)["nonce"]
        said.append(key_proof(digest_of(KEY), wire.base_url.removeprefix("http://"), nonce))
        await json_answer({"key_proofs": said[:1]})(request, writer)

    wire.on("GET", paths.HEALTH, repeats)
    wire.on("GET", RECORD, json_answer(record()))
    async with Client(login(wire)) as client:
        await client.record("run")
    async with Client(login(wire)) as client:
        with pytest.raises(ConfigError):
            await client.record("run")


@pytest.mark.parametrize("token", ["opaque", "lk_short", "half.token"])
async def test_a_key_without_a_public_part_is_not_asked_for(wire: WireServer, token: str) -> None:
    async with Client(replace(login(wire), token=Secret(token))) as client:
        with pytest.raises(ConfigError):
            await client.machine_types()
    assert not wire.requests


@pytest.mark.parametrize("reply", [hang_up, cut_short])
async def test_a_program_that_hangs_up_is_a_server_that_is_gone(
    wire: WireServer, reply: Reply
) -> None:
    wire.on("GET", paths.HEALTH, reply)
    async with Client(login(wire)) as client:
        with pytest.raises(ServerUnreachable, match="cannot be reached"):
            await client.start(START)


async def test_a_program_that_says_nothing_is_not_waited_for(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "LIMIT_S", 0.01)
    leave = asyncio.Event()

    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        await leave.wait()

    wire.on("GET", paths.HEALTH, silent)
    async with Client(login(wire)) as client:
        with pytest.raises(ServerUnreachable, match="did not answer in time"):
            await client.start(START)
    leave.set()


# Who proves nothing.


async def test_what_the_environment_names_is_taken_at_its_word(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYCEUM_API_KEY", KEY)
    monkeypatch.setenv("LYCEUM_BASE_URL", wire.base_url)
    wire.on("GET", RECORD, json_answer(record()))
    async with Client() as client:
        await client.record("run")
    assert [request.path for request in wire.requests] == [RECORD]


async def test_a_login_is_proved_however_it_names_this_machine(wire: WireServer) -> None:
    wire.on("GET", paths.HEALTH, proves(wire))
    wire.on("GET", paths.MACHINE_TYPES, json_answer({"machine_types": []}))
    port = wire.base_url.rpartition(":")[2]
    for host in ("localhost", "127.1", "0.0.0.0"):
        config.write_login(api_key=KEY, base_url=f"http://{host}:{port}")
        async with Client() as client:
            await client.machine_types()
        wire.requests.clear()
        wire.on("GET", paths.HEALTH, html)
        async with Client() as client:
            with pytest.raises(ConfigError):
                await client.machine_types()
        assert KEY[8:] not in all_heard(wire)
        wire.on("GET", paths.HEALTH, proves(wire))


async def test_a_transport_that_tells_of_no_connection_sends_nothing() -> None:
    async def prove(stream: object) -> None:
        raise AssertionError("there is no connection")

    proved = transport._Proved(httpx.AsyncHTTPTransport(), prove)
    with pytest.raises(RuntimeError, match="not told"):
        await proved._on_event("http11.send_request_headers.started", {})
    await proved.aclose()
