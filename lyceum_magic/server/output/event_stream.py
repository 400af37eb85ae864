"""A run's spool, and what happens to the run, as a `text/event-stream` response.

The end offset of a spool record is its event id, so a follower that comes back with
`Last-Event-ID` goes on after the last byte it has seen. Source: WHATWG HTML, 9.2 "Server-sent
events", restricted to what the official client can read: one `data:` line of ASCII JSON.
"""

from __future__ import annotations

import asyncio
import codecs
import sys
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ... import trail
from ...protocol.events import Event, Finished, Output, Progress, StreamName, encode
from ...protocol.states import State
from ..run import ServerRun
from ..service import RunService
from .spool import LOST, DamagedSpool, SpoolRecord, read_spool

#: Adjacent records of one stream travel as one event up to this size.
MAX_EVENT_BYTES = 64 * 1024
#: The bytes of a spool that are read and sent at a time.
BLOCK_BYTES = 256 * 1024
#: Silence after which a comment shows proxies and readers that the connection lives.
KEEP_ALIVE_S = 15.0
#: The time that a state must last before it is told, in seconds: output and the end say more, and a
#: short run is over before its state could be read.
SETTLE_S = 0.05

_KEEP_ALIVE = b": still here\n\n"


class EventStreamResponse(Response):
    """A response that follows a run from `offset` on.

    It ends when the run is over, the reader leaves, or `closing` is set.
    """

    media_type = "text/event-stream"

    def __init__(
        self, service: RunService, run: ServerRun, offset: int, closing: asyncio.Event
    ) -> None:
        self.status_code = 200
        self.background = None
        # A proxy that collects the stream would turn a live run into a silent one.
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self._service = service
        self._run = run
        self._offset = offset
        self._closing = closing

    def init_headers(self, headers: dict[str, str] | None = None) -> None:  # type: ignore[override]
        # The base class would announce the length of a body that is not there.
        fields = {"content-type": f"{self.media_type}; charset=utf-8", **(headers or {})}
        self.raw_headers = [(name.encode(), value.encode()) for name, value in fields.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        trail.mark("server", self._run.run_id, "follow", from_=self._offset)
        with self._service.following(self._run.run_id):
            async with anyio.create_task_group() as group:
                group.start_soon(_watch_for_disconnect, receive, group.cancel_scope)
                await self._send_events(send)
                group.cancel_scope.cancel()
        trail.mark("server", self._run.run_id, "left")

    async def _send_events(self, send: Send) -> None:
        async with aclosing(follow(self._run, self._offset, self._closing)) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if trail.is_on:
                    trail.mark("server", self._run.run_id, "sent", size=len(chunk))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _watch_for_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def follow(
    run: ServerRun, offset: int, closing: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """Yield the run's events from `offset` on, as the bytes to send.

    Ends after the one `jobFinished`, or without it when `closing` is set: the reader then comes
    back to the next server.
    """
    told: Progress | None = None
    tell_at: float | None = None
    behind = run.is_over
    is_damaged = False
    if note := run.progress.note:
        # What is so from beginning to end is said of the shortest run too.
        told = Progress(State.RUNNING, note=note) if run.is_over else run.progress
        yield frame(told)
    while not closing.is_set():
        # Both before looking: what changes after the look ends the wait below.
        change = run.changed.listen()
        is_over = run.is_over
        if not is_over and run.progress != told:
            now = time.monotonic()
            tell_at = tell_at or now + SETTLE_S
            if now >= tell_at:
                told, tell_at = run.progress, None
                yield frame(told)
        if run.spool is not None and not is_damaged:
            try:
                chunk, end = await _next_frames(run.run_id, run.spool, offset, behind=behind)
                is_damaged = is_over and not chunk and _is_longer(run.spool, offset)
            except DamagedSpool:
                chunk, end, is_damaged = b"", offset, True
            if is_damaged:
                # With the reader's own id: it has no other place to come back to.
                yield frame(Output(LOST, "stderr", time.time()), offset or None)
                offset = sys.maxsize  # nothing that is written is awaited any more
                continue
            behind = end - offset >= BLOCK_BYTES // 2
            if chunk:
                offset = end
                yield chunk
                continue
        if is_over:
            yield frame(finished_event(run))
            return
        patience_s = KEEP_ALIVE_S if tell_at is None else max(0.0, tell_at - time.monotonic())
        happened = await _something_happens(run, offset, change, closing, patience_s)
        if not happened and tell_at is None:
            yield _KEEP_ALIVE


async def _something_happens(
    run: ServerRun,
    offset: int,
    change: asyncio.Event,
    closing: asyncio.Event,
    patience_s: float,
) -> bool:
    """Return whether the run changed, its spool grew or the server closes within `patience_s`."""
    waits: list[Coroutine[Any, Any, object]] = [change.wait(), closing.wait()]
    if run.handle is not None:
        waits.append(run.handle.grown(offset))
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()  # raises what the handle raised
    return bool(done)


async def _next_frames(run_id: str, spool: Path, offset: int, *, behind: bool) -> tuple[bytes, int]:
    """Read frames; a reader that is `behind` may wait for the disk, and has much to encode."""
    if behind:
        return await asyncio.to_thread(read_frames, run_id, spool, offset)
    # What has just been written is in memory and small: a thread would cost more than the read.
    return read_frames(run_id, spool, offset)


def read_frames(run_id: str, spool: Path, offset: int) -> tuple[bytes, int]:
    """Return the frames of about `BLOCK_BYTES` from `offset` on, and the offset after them."""
    records = read_spool(spool, offset, max_bytes=BLOCK_BYTES)
    if not records:
        return b"", offset
    end = records[-1].end
    if not trail.is_on:
        return b"".join(frame(event, event_id) for event, event_id in merge(records)), end
    size, count = sum(len(record.data) for record in records), len(records)
    trail.mark("server", run_id, "read", from_=offset, to=end, records=count, bytes=size)
    events = list(merge(records))
    size = sum(event.size for event, _ in events)
    trail.mark("server", run_id, "encoded", events=len(events), bytes=size)
    return b"".join(frame(event, event_id) for event, event_id in events), end


def merge(records: Iterable[SpoolRecord]) -> Iterator[tuple[Output, int]]:
    """Yield output events for `records`, each with its id.

    Neighbours of one stream become one event.
    """
    stream: StreamName = "stdout"
    timestamp, end, size = 0.0, 0, 0
    pieces: list[bytes] = []
    for record in records:
        if pieces and (record.stream != stream or size + len(record.data) > MAX_EVENT_BYTES):
            yield Output(_decode(pieces), stream, timestamp), end
            pieces = []
        if not pieces:
            stream, timestamp, size = record.stream, record.timestamp, 0
        pieces.append(record.data)
        size += len(record.data)
        end = record.end
    if pieces:
        yield Output(_decode(pieces), stream, timestamp), end


def frame(event: Event, event_id: int | None = None) -> bytes:
    """Return one event as it travels.

    The id comes first: a reader that acts on the `data:` line has then already seen it.
    """
    text = f"data: {encode(event)}\n\n"
    return (text if event_id is None else f"id: {event_id}\n{text}").encode("ascii")


def finished_event(run: ServerRun) -> Finished:
    """Return the last event of a run that is over."""
    record = run.record
    return Finished(record.state, record.return_code, record.error, record.timed_out)


def is_record_end(spool: Path | None, offset: int) -> bool:
    """Return whether an event could have had the id `offset`; reads the spool up to there.

    Also where the spool has become shorter, or cannot be read up to there: `follow` tells of that.
    """
    if spool is not None and offset and not spool.exists():
        return True  # the program took its output away: there is nothing to hold it against
    position = 0
    while position < offset and spool is not None:
        try:
            records = read_spool(spool, position, max_bytes=1 << 20)
        except DamagedSpool:
            return True
        if not records:
            return True  # a power cut took what was there
        if records[-1].end > offset:
            return any(record.end == offset for record in records)
        position = records[-1].end
    return spool is not None or not offset


def _is_longer(spool: Path, offset: int) -> bool:
    """Return whether something lies after the last whole record."""
    try:
        return spool.stat().st_size > offset
    except OSError:
        return False


def _decode(pieces: list[bytes]) -> str:
    return codecs.decode(b"".join(pieces), "utf-8", "replace")
