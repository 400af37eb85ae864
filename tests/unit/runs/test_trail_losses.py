"""A record that is lost between the spool and the cell is found with the debug trail alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic import trail
from lyceum_magic.client import debug_log
from lyceum_magic.client.api import Client
from lyceum_magic.journal.journal import Journal
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Output, StreamName
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.remote.frames import encode
from lyceum_magic.runs.backlog import Backlog
from lyceum_magic.runs.following import Following
from lyceum_magic.server.output import event_stream
from lyceum_magic.server.output.spool import SpoolWriter
from lyceum_magic.server.run import ServerRun
from lyceum_magic.server.stores.base import RunRecord
from tests.tools.wire_server import stream, wire_server
from tests.unit.runs.test_following import MARK, follower

pytestmark = pytest.mark.anyio

RUN_ID = f"{MARK}run"
#: The first three become one event.
RECORDS: list[tuple[StreamName, bytes]] = [
    ("stdout", b"one\n"), ("stdout", "zwölf\n".encode()), ("stdout", b"three\n"),
    ("stderr", b"other\n"), ("stdout", b"last\n"),
]  # fmt: skip

Plant = Callable[[pytest.MonkeyPatch], None]


def merge_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = event_stream.merge
    monkeypatch.setattr(event_stream, "merge", lambda records: merge(records[:1] + records[2:]))


def read_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read = event_stream.read_spool

    def fault(*args: Any, **named: Any) -> list[Any]:
        records = read(*args, **named)
        return records[:1] + records[2:]

    monkeypatch.setattr(event_stream, "read_spool", fault)


def take_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Following._take

    async def fault(self: Following, item: Any, event_id: str | None) -> None:
        if not isinstance(item, Output) or item.stream != "stderr":
            await take(self, item, event_id)

    monkeypatch.setattr(Following, "_take", fault)


def decode_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Following._decode

    async def fault(self: Following, event: Output, event_id: str | None) -> None:
        if event.stream != "stderr":
            await decode(self, event, event_id)

    monkeypatch.setattr(Following, "_decode", fault)


def tell_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = Following._tell

    async def fault(self: Following, news: Any, *rest: Any) -> None:
        kept = [item for item in news if not isinstance(item, Output) or item.stream != "stderr"]
        await tell(self, kept, *rest)

    monkeypatch.setattr(Following, "_tell", fault)


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The trail is on, in a process that is supervisor, server and client in one."""
    monkeypatch.setattr(trail, "is_on", True)
    monkeypatch.setattr(trail, "own_run", RUN_ID)
    monkeypatch.setattr(trail, "_descriptor", trail._descriptor)  # put back at the end
    debug_log.begin(tmp_path)
    return lambda: trail.run_lines([debug_log.path_in(tmp_path)], RUN_ID)


def spooled(path: Path, records: list[tuple[StreamName, bytes]]) -> ServerRun:
    """Return a run that has printed the records and ended."""
    writer = SpoolWriter(path)
    for name, data in records:
        writer.append(name, 1.0, data)
    writer.close()
    request = StartPython(code="", execution_type="cpu")
    return ServerRun(
        RunRecord(RUN_ID, request, 0.0, state=State.COMPLETED, return_code=0, spool=path)
    )


async def follow_to_the_end(folder: Path, records: list[tuple[StreamName, bytes]] = RECORDS) -> str:
    """Follow the run as a cell does; return the text that reached the cell's thread."""
    run = spooled(folder / "spool", records)
    chunks = [chunk async for chunk in event_stream.follow(run, 0, asyncio.Event())]
    journal = Journal(folder / "journal")
    async with wire_server() as wire, Client(wire.account()) as client:
        wire.on("POST", paths.stream(RUN_ID), stream(*chunks))
        life = follower(journal, RUN_ID)
        life.client = client
        await life._decode_log()
        backlog = Backlog()
        await life.subscribe(backlog)
        await life._follow()
        life.log.close()
    journal.close()
    return "".join(item.text for item in backlog.get(0) if isinstance(item, Output))


async def test_without_a_loss_the_sums_agree(
    tmp_path: Path, lines: Callable[[], list[str]]
) -> None:
    size = len(b"".join(data for _, data in RECORDS))
    assert len((await follow_to_the_end(tmp_path)).encode()) == size
    sums = trail.borders(lines())
    stations = ("written", "read", "encoded", "stream", "journalled", "decoded")
    assert {name: sums[name].size for name in stations} == dict.fromkeys(stations, size)
    assert sums["handed"].text == size
    assert trail.losses(lines()) == []
    assert "Every border has" in debug_log.last_lines(tmp_path, [], RUN_ID)


@pytest.mark.parametrize(
    ("plant", "loss"),
    [
        (read_without_one, "7 bytes of text did not come from `written` to `read`."),
        (merge_without_one, "7 bytes of text did not come from `read` to `encoded`."),
        (take_without_one, "6 bytes of text did not come from `stream` to `journalled`."),
        (decode_without_one, "6 bytes of text did not come from `journalled` to `decoded`."),
        (tell_without_one, "6 bytes of text did not come from `decoded, as text` to `handed`."),
    ],
)
async def test_a_lost_record_shows_at_the_border_that_lost_it(
    plant: Plant,
    loss: str,
    tmp_path: Path,
    lines: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    await follow_to_the_end(tmp_path)
    assert trail.losses(lines()) == [loss]
    said = debug_log.last_lines(tmp_path, [], RUN_ID)
    assert said.endswith(loss)
    assert "Bytes of text at each border:\n" in said


async def test_frames_are_no_loss(tmp_path: Path, lines: Callable[[], list[str]]) -> None:
    """Text of the run becomes an output that is not text, which the sums allow for."""
    (frame,) = encode(MARK, "display", "1.0", {"data": {"text/plain": "x"}}, b"", "x")
    await follow_to_the_end(tmp_path, [*RECORDS, ("stdout", frame)])
    assert trail.losses(lines()) == []
    sums = trail.borders(lines())
    assert sums["decoded"].size - sums["decoded"].text == len(frame)
