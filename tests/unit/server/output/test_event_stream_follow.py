"""A spool as a stream of events: replay, resume, merging, and the one end."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server.output.event_stream import MAX_EVENT_BYTES, follow, is_record_end, merge
from lyceum_magic.server.output.spool import LOST, SpoolRecord, encode_record
from lyceum_magic.server.output.tail import read_lines, read_tail
from lyceum_magic.server.run import ServerRun
from lyceum_magic.server.stores.base import RunRecord

from ..serving import Received, Served, parse, read_stream, serving

pytestmark = pytest.mark.anyio


def finished_run(folder: Path, *pieces: tuple[str, bytes]) -> ServerRun:
    spool = folder / "spool"
    spool.write_bytes(b"".join(encode_record(stream, 1.0, data) for stream, data in pieces))  # type: ignore[arg-type]
    request = StartPython(code="", execution_type="cpu")
    return ServerRun(
        RunRecord("a", request, 0.0, state=State.COMPLETED, return_code=0, spool=spool)
    )


async def received(run: ServerRun, offset: int = 0) -> list[Received]:
    chunks = [chunk async for chunk in follow(run, offset, asyncio.Event())]
    return parse(b"".join(chunks))


async def test_a_reader_that_resumes_at_any_record_sees_the_rest_and_nothing_twice(
    tmp_path: Path,
) -> None:
    words = [b"one\n", "zwölf ".encode(), b"\n", b"x" * 40_000, b"y" * 40_000, b"end"]
    streams = ["stdout", "stderr", "stdout", "stdout", "stdout", "stderr"]
    run = finished_run(tmp_path, *zip(streams, words, strict=True))
    whole = b"".join(words).decode()
    offsets = [0]
    for word in words:
        offsets.append(offsets[-1] + len(encode_record("stdout", 1.0, word)))
    for number, offset in enumerate(offsets):
        assert is_record_end(run.spool, offset)
        events = await received(run, offset)
        rest = whole[len(b"".join(words[:number]).decode()) :]
        assert "".join(event.text for event in events) == rest
        assert events[-1].result == {"returnCode": 0, "status": "completed"}
    for event in (await received(run))[:-1]:
        assert event.id is not None
        assert int(event.id) in offsets


async def test_offsets_inside_a_record_are_no_event_ids(tmp_path: Path) -> None:
    run = finished_run(tmp_path, ("stdout", b"hello"), ("stderr", b"there"))
    assert run.spool is not None
    size = run.spool.stat().st_size
    ends = [offset for offset in range(size + 3) if is_record_end(run.spool, offset)]
    # A power cut may have taken what came after the end.
    assert ends == [0, size // 2, size, size + 1, size + 2]
    assert not is_record_end(None, 1)


def _replace(spool: Path, make: Callable[[Path], None]) -> None:
    spool.unlink()
    make(spool)


@pytest.mark.parametrize(
    ("damage", "from_the_beginning", "from_the_end"),
    [
        # A power cut: between two records, in the middle of one, before all, zeros.
        (lambda spool: os.truncate(spool, 18), "hello", LOST),
        (lambda spool: os.truncate(spool, 20), f"hello{LOST}", LOST),
        (lambda spool: os.truncate(spool, 0), "", LOST),
        (lambda spool: os.truncate(spool, 200), f"hellothere{LOST}", LOST),
        # Something else wrote there.
        (lambda spool: spool.write_bytes(b"\xff" * 100), LOST, LOST),
        (lambda spool: spool.write_bytes(spool.read_bytes()[:18] + b"x" * 18), f"hello{LOST}", ""),
        (lambda spool: _replace(spool, Path.mkdir), LOST, LOST),
        (lambda spool: _replace(spool, os.mkfifo), LOST, LOST),
    ],
)
async def test_a_damaged_spool_is_told_of_and_the_run_ends(
    tmp_path: Path, damage: Callable[[Path], object], from_the_beginning: str, from_the_end: str
) -> None:
    run = finished_run(tmp_path, ("stdout", b"hello"), ("stderr", b"there"))
    assert run.spool is not None
    end = run.spool.stat().st_size
    damage(run.spool)
    for offset, text in ((0, from_the_beginning), (end, from_the_end)):
        assert is_record_end(run.spool, offset)
        *outputs, last = await received(run, offset)
        assert "".join(event.text for event in outputs) == text
        assert last.result == {"returnCode": 0, "status": "completed"}
    kept = from_the_beginning.removesuffix(LOST)
    assert read_tail(run.spool, max_bytes=1000).combined in (kept, kept + LOST)
    read_lines(run.spool, limit=9, since=0)


async def test_a_spool_that_is_damaged_while_the_run_goes_on_keeps_no_reader(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served:
        url = (await served.start())["streaming_url"]
        handle = await served.runner.next_run()
        handle.begin()
        handle.write(b"hello")
        reader = asyncio.create_task(read_stream(served.client, url))
        await follower_arrives(served)
        with handle.spool.open("ab") as file:
            file.write(b"\xff" * 50)
        handle.write(b"never read")
        handle.end(0)
        events = await reader
    assert "".join(event.text for event in events) == "hello" + LOST
    assert events[-1].result == {"returnCode": 0, "status": "completed"}


def test_neighbours_of_one_stream_become_one_event_up_to_a_limit() -> None:
    half = b"x" * (MAX_EVENT_BYTES // 2)
    records = [
        SpoolRecord("stdout", 1.0, half, 10),
        SpoolRecord("stdout", 2.0, half, 20),
        SpoolRecord("stdout", 3.0, b"more", 30),
        SpoolRecord("stderr", 4.0, b"e", 40),
        SpoolRecord("stdout", 5.0, b"\xe2\x82", 50),
        SpoolRecord("stdout", 6.0, b"\xac", 60),
    ]
    events = list(merge(records))
    assert [(event.stream, event.timestamp, end) for event, end in events] == [
        ("stdout", 1.0, 20),
        ("stdout", 3.0, 30),
        ("stderr", 4.0, 40),
        ("stdout", 5.0, 60),
    ]
    # A program that writes half a character may write the other half a moment later.
    assert events[-1][0].text == "€"


async def test_bytes_that_are_no_utf8_become_replacement_characters(tmp_path: Path) -> None:
    events = await received(finished_run(tmp_path, ("stdout", b"a\xff\xe2b")))
    assert events[0].text == "a\ufffd\ufffdb"


async def test_the_id_stands_before_the_data_and_all_is_ascii(tmp_path: Path) -> None:
    run = finished_run(tmp_path, ("stdout", "é\u2028\x85".encode()))
    chunks = [chunk async for chunk in follow(run, 0, asyncio.Event())]
    assert chunks[0].isascii()
    assert chunks[0].startswith(b"id: ")


async def test_a_follower_hears_of_each_step_and_of_one_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        started = await served.start()
        handle = await served.runner.next_run()
        reader = asyncio.create_task(read_stream(served.client, started["streaming_url"]))
        handle.begin()
        handle.write(b"out")
        handle.write(b"err", "stderr")
        handle.end(3)
        events = await reader
    assert "".join(event.text for event in events) == "outerr"
    results = [event.result for event in events if event.result]
    assert len(results) == 1
    assert events[-1].result == results[0]
    assert results[0]["returnCode"] == 3
    assert results[0]["status"] == "failed"
    assert all(event.id is None for event in events if "output" not in event.data)


async def test_output_arrives_while_the_run_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        url = (await served.start())["streaming_url"]
        handle = await served.runner.next_run()
        handle.begin()
        async with served.client.stream("POST", url) as reply:
            lines = reply.aiter_lines()
            for number in range(20):
                handle.write(f"line {number}\n".encode())
                while f"line {number}" not in await anext(lines):
                    pass
            handle.end(0)


async def test_two_followers_get_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        started = await served.start()
        handle = await served.runner.next_run()
        urls = [started["streaming_url"], paths.stream(started["execution_id"])]
        readers = [asyncio.create_task(read_stream(served.client, url)) for url in urls]
        handle.begin()
        for number in range(100):
            handle.write(f"{number}\n".encode())
        handle.end(0)
        texts = ["".join(event.text for event in await reader) for reader in readers]
    assert texts == ["".join(f"{number}\n" for number in range(100))] * 2


async def test_a_queued_run_says_how_many_are_ahead(tmp_path: Path) -> None:
    async with serving(tmp_path, max_running=1) as served:
        first = await served.start()
        second = await served.start()
        handle = await served.runner.next_run()
        assert handle.run_id == first["execution_id"]
        async with served.client.stream("POST", second["streaming_url"]) as reply:
            told = await anext(line async for line in reply.aiter_lines() if "progress" in line)
        handle.end(0)
        (await served.runner.next_run()).end(0)
    progress = json.loads(told.removeprefix("data: "))["progress"]
    assert progress == {"status": "pending", "detail": "1 run ahead", "note": ""}


async def test_a_reader_that_leaves_is_no_longer_counted(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        url = (await served.start())["streaming_url"]
        handle = await served.runner.next_run()
        async with served.client.stream("POST", url) as reply:
            await anext(reply.aiter_lines())
        handle.end(0)
        async with asyncio.timeout(60):
            await served.app.state.service.idle(0.0)


async def test_a_server_that_closes_ends_its_streams_without_an_end_of_the_run(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served:
        url = (await served.start())["streaming_url"]
        await served.runner.next_run()
        reader = asyncio.create_task(read_stream(served.client, url))
        await follower_arrives(served)
        served.app.state.closing.set()
        assert [event.result for event in await reader if event.result] == []


@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "7", "99999999999999999999999", "²"])
async def test_an_id_that_no_event_had_is_refused(tmp_path: Path, bad: str) -> None:
    async with serving(tmp_path) as served:
        url = (await served.start())["streaming_url"]
        handle = await served.runner.next_run()
        handle.write(b"hello")
        handle.end(0)
        reply = await served.client.post(url, headers={"Last-Event-ID": bad.encode()})  # type: ignore[dict-item]
    assert reply.status_code == 400
    assert "Last-Event-ID" in reply.json()["detail"]


async def test_a_finished_run_is_replayed_from_where_its_reader_was(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        url = (await served.start())["streaming_url"]
        handle = await served.runner.next_run()
        handle.begin()
        handle.write(b"a", "stdout")
        handle.write(b"b", "stderr")
        handle.end(0)
        events = await read_stream(served.client, url)
        output = [event for event in events if event.text]
        assert [event.text for event in output] == ["a", "b"]
        rest = await read_stream(served.client, url, **{"Last-Event-ID": str(output[0].id)})
    assert [event.text for event in rest if event.text] == ["b"]


async def follower_arrives(served: Served) -> None:
    service = served.app.state.service
    async with asyncio.timeout(60):
        while not service.followers:
            await service.activity.listen().wait()
