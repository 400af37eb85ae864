"""The scripted server of the unit tests says nothing that the embedded server would not say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from lyceum_magic.client.api import Client
from lyceum_magic.config import Account
from lyceum_magic.embedded import local_server
from lyceum_magic.exceptions import LyceumError
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output, decode
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from tests.tools.waiting import CLIENT_LIMIT_S
from tests.tools.wire_server import (
    WireServer,
    frame,
    json_answer,
    not_found,
    record,
    refusal,
    started,
    stream,
    wire_server,
)
from tests.unit.client.following import Heard, heard

pytestmark = pytest.mark.anyio

CODE = (
    "import sys, os\nos.write(1, 'ü\\u2028\\n'.encode())\n"
    "print('e', file=sys.stderr, flush=True)\nsys.exit(3)"
)
START = StartPython(code=CODE, execution_type="cpu", metadata={"k": "v"})
SAID = [Output("ü\u2028\n"), Output("e\n", "stderr")]
END = Finished(State.FAILED, 3, "The program ended with exit code 3.")


@pytest.fixture
def account() -> Account:
    return local_server.ensure()


@pytest.fixture
async def http(account: Account) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {account.token.reveal()}"}
    base_url = account.base_url
    async with httpx.AsyncClient(
        base_url=base_url, headers=headers, trust_env=False, timeout=CLIENT_LIMIT_S
    ) as http:
        yield http


async def said_by_fake(reply: object) -> httpx.Response:
    async with wire_server() as wire:
        wire.on("GET", "/x", reply)  # type: ignore[arg-type]
        async with httpx.AsyncClient(trust_env=False, timeout=CLIENT_LIMIT_S) as http:
            return await http.get(f"{wire.base_url}/x")


def shape(value: object) -> object:
    """The value with types in place of what differs from run to run."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


async def test_a_start_is_answered_alike(http: httpx.AsyncClient) -> None:
    real = await http.post(paths.START_PYTHON, json=START.to_wire())
    async with wire_server() as wire:
        fake = await said_by_fake(started(wire, real.json()["execution_id"]))
    assert (real.status_code, shape(real.json())) == (fake.status_code, shape(fake.json()))
    addresses = [
        re.sub(r"[0-9a-f]{64}$|[^/]+$", "SECRET", httpx.URL(reply.json()["streaming_url"]).path)
        for reply in (real, fake)
    ]
    assert addresses[0] == addresses[1]


async def test_a_record_of_the_fake_is_a_part_of_a_real_one(
    http: httpx.AsyncClient, account: Account
) -> None:
    async with Client(account) as client:
        reply = await client.start(START)
        await heard(client, reply.run_id, reply.streaming_url)
        real = await client.record(reply.run_id)
        listed = (await http.get(paths.HISTORY)).json()["executions"][0]
    fake = record("run", "failed", stdout="", stderr="", combined_output="", system_errors=["x"])
    for name, member in fake.items():
        assert shape(real[name]) == shape(member), name  # type: ignore[literal-required]
    assert listed["metadata"] == {"k": "v"}
    assert State(real["status"])


async def test_refusals_have_one_form(http: httpx.AsyncClient) -> None:
    real = [
        (await http.get("/nowhere"), await said_by_fake(not_found)),
        (await http.get(paths.record("none")), await said_by_fake(refusal(404))),
        (
            await http.get(paths.ORG, headers={"Authorization": ""}),
            await said_by_fake(refusal(401)),
        ),
        (
            await http.post(paths.START_PYTHON, json={"code": "", "timeout": 0}),
            await said_by_fake(refusal(422, [{"loc": ["body"], "msg": "no", "type": "x"}])),
        ),
    ]
    for answer, fake in real:
        assert answer.status_code == fake.status_code
        assert shape(answer.json()) == shape(fake.json())
        assert answer.headers["content-type"] == fake.headers["content-type"]
    assert real[0][0].json() == real[0][1].json()


async def test_a_stream_of_the_embedded_server_is_frame_for_frame_what_the_fake_writes(
    http: httpx.AsyncClient,
) -> None:
    reply = (await http.post(paths.START_PYTHON, json=START.to_wire())).json()
    raw = await http.post(reply["streaming_url"])
    blocks = [block + b"\n\n" for block in raw.content.split(b"\n\n") if not block.startswith(b":")]
    assert blocks.pop() == b"\n\n"
    events = []
    for block in blocks:
        found = re.fullmatch(rb"(?:id: (\d+)\n)?data: (.*)\n\n", block)
        assert found, block
        (event,) = decode(found[2].decode())
        assert frame(event, found[1].decode() if found[1] else None) == block
        events.append(event)
    assert isinstance(events[-1], Finished)
    fake = await said_by_fake(stream(b""))
    assert raw.headers["content-type"] == fake.headers["content-type"]


async def test_a_client_hears_the_same_of_both(account: Account) -> None:
    async with Client(account) as client:
        reply = await client.start(START)
        real = await heard(client, reply.run_id, reply.streaming_url)
    async with wire_server() as wire, Client(wire.account()) as client:
        wire.on("POST", paths.START_PYTHON, started(wire))
        fake = await follow_fake(client, wire)
    assert plain(real) == plain(fake)


async def follow_fake(client: Client, wire: WireServer) -> Heard:
    reply = await client.start(START)
    assert reply.streaming_url is not None
    pieces = [frame(event, str(number)) for number, event in enumerate(SAID)]
    wire.on("POST", httpx.URL(reply.streaming_url).path, stream(*pieces, frame(END)))
    return await heard(client, reply.run_id, reply.streaming_url)


def plain(heard: Heard) -> list[object]:
    """The events, without times, and without the sentence about the end, which may differ."""
    return [
        (item.text, item.stream) if isinstance(item, Output) else (item.state, item.return_code)
        for item in heard.items
        if isinstance(item, Output | Finished)
    ]


async def test_every_call_of_the_client_is_understood_by_the_embedded_server(
    account: Account,
) -> None:
    async with Client(account) as client:
        reply = await client.start(START)
        got = await heard(client, reply.run_id, reply.streaming_url)
        assert got.end.return_code == 3
        assert (await client.machine_types())["cpu"] == 0.0
        assert "cpu" in await client.available_hardware()
        assert (await client.org())["is_key_scoped"] is False
        assert (await client.ping())["status"] == "healthy"
        assert (await client.timing(reply.run_id))["duration_seconds"] >= 0
        assert (await client.legacy_status(reply.run_id))["status"] == "failed"
        assert await client.logs(reply.run_id) == ["ü\u2028", "e"]
        assert await client.active() == []
        assert [run["execution_id"] for run in await client.history()] == [reply.run_id]
        assert await client.abort(reply.run_id) == "failed"
        assert await client.stop(reply.run_id) == "failed"
        assert await client.abort("unknown") == "already over"
        with pytest.raises(LyceumError):
            await client.record("unknown")
    async with wire_server() as wire, Client(wire.account()) as client:
        wire.on("GET", paths.WORKLOADS, json_answer([]))
        assert await client.active() == []
