"""A run's event stream -> its events, each once, through drops, restarts and missing event ids.

This is the only place that reconnects. If the server gives event ids, a dropped stream goes on
after the last one, until the run's deadline. If it gives none, the stream is opened once more, and
the text that it repeats is recognised and skipped; after that only the run's status and logs are
left.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from httpx_sse import EventSource, ServerSentEvent, SSEError

from .. import trail
from ..exceptions import (
    ApiError,
    EmbeddedServerError,
    LyceumError,
    ProtocolError,
    RunLost,
    ServerUnreachable,
)
from ..protocol.events import Event, Finished, Output, decode
from ..protocol.records import Record, finished_of
from .answers import error_of, not_lyceum
from .api import Client, is_gone
from .lean_httpx import httpx

#: Seconds of silence after which a stream is checked against the run's record.
IDLE_S = 60.0
#: Seconds of the first and of the longest pause before a dropped stream is opened again.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
#: Seconds of the first pause between two looks at the record of a run that has no stream.
FIRST_POLL_S = 1.0
#: Seconds that the stream may take to end after the event of the run's end. A connection that is
#: read to its end can serve the next request.
LAST_BYTES_S = 0.05
#: Maximum seconds of a server's `Retry-After` that are obeyed.
LONGEST_RETRY_AFTER_S = 30.0
#: Seconds for which a broken connection is retried, in addition to the run's own time limit.
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Notice:
    """Trouble with the connection, in one sentence for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """The connection works again: the last `Notice` is out of date."""


Item = Event | Notice | Recovered
#: Coroutine function that takes an item and the id of its event; None if the server gives no id.
Sink = Callable[[Item, str | None], Awaitable[None]]


class _Dropped(Exception):
    """The stream ended without a terminal event."""


class _NoStream(Exception):
    """The server has no stream for this run (any more)."""


async def follow(
    client: Client,
    run_id: str,
    streaming_url: str | None,
    sink: Sink,
    *,
    timeout_s: float,
    last_event_id: str | None = None,
    delivered: Iterable[str] = (),
) -> None:
    """Hand every event of a run to `sink`, in order and once; the last one is a `Finished`.

    Args:
        timeout_s: the run's own time limit; a broken connection is given up after this time and two
            more minutes.
        last_event_id: the id of the last event that an earlier follower of this run passed on.
        delivered: the text that an earlier follower passed on, if the server gives no ids.

    Raises:
        ServerUnreachable: the connection could not be made again in time.
        NotAuthorised, ProtocolError, ...: the server gives an answer that will not change.
    """
    follower = _Follower(client, run_id, streaming_url, sink, last_event_id, delivered)
    await follower.run(timeout_s + PATIENCE_S)


class _Follower:
    def __init__(
        self,
        client: Client,
        run_id: str,
        streaming_url: str | None,
        sink: Sink,
        last_event_id: str | None,
        delivered: Iterable[str],
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._url = streaming_url
        self._sink = sink
        self._last_event_id = last_event_id
        self._delivered = _Delivered(delivered, is_whole=last_event_id is None)
        self._reopened_blindly = False
        self._troubled = False
        self._is_open = False
        self._progressed = False
        self._was_over = False
        if last_event_id is None and self._delivered.size:
            self._reopened_blindly = True
            self._delivered.expect_replay()

    async def run(self, patience_s: float) -> None:
        pause_s, broken_since = FIRST_PAUSE_S, None
        while True:
            try:
                await self._read_stream()
                return
            except _NoStream:
                await self._finish_from_record(patience_s)
                return
            except (_Dropped, httpx.RequestError, ServerUnreachable) as exc:
                if self._progressed:
                    pause_s, broken_since = FIRST_PAUSE_S, None
                now = time.monotonic()
                broken_since = broken_since or now
                if now - broken_since > patience_s:
                    raise ServerUnreachable(
                        f"The connection to run {self._run_id} broke and could not be made again "
                        f"for {patience_s:.0f} s; `%lyceum attach {self._run_id}` tries again."
                    ) from None
                if not self._has_ids and self._delivered.size and not await self._may_reopen():
                    await self._finish_from_record(patience_s)
                    return
                if not isinstance(exc, _Dropped) or pause_s > FIRST_PAUSE_S:
                    await self._trouble("the connection is lost; waiting for the server")
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            await self._relocate()

    async def _relocate(self) -> None:
        """Find the embedded server again, or start it; if it dies while it starts, try again."""
        for pause_s in (FIRST_PAUSE_S, LONGEST_PAUSE_S / 5, LONGEST_PAUSE_S):
            try:
                await self._client.relocate()
            except EmbeddedServerError:
                await anyio.sleep(pause_s)
            else:
                return
        await self._client.relocate()

    # The stream.

    @property
    def _has_ids(self) -> bool:
        return self._last_event_id is not None

    async def _may_reopen(self) -> bool:
        """Return whether a stream without event ids may be opened again: once.

        Its text is then compared with the text that came before.
        """
        if self._reopened_blindly:
            return False
        self._reopened_blindly = True
        self._delivered.expect_replay()
        return True

    async def _read_stream(self) -> None:
        """Read one connection to its end; return after the terminal event.

        Raises:
            _Dropped, httpx.RequestError: the connection ended before the terminal event.
            _NoStream: there is no stream to open.
        """
        self._is_open = self._progressed = False
        send, receive = anyio.create_memory_object_stream[ServerSentEvent](0)
        failure: Exception | None = None

        async def read() -> None:
            nonlocal failure
            try:
                await self._receive(send)
            except Exception as exc:  # noqa: BLE001 - raised below, outside of the task group
                failure = exc
            finally:
                send.close()

        problem: Exception | None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            with receive:
                try:
                    problem = await self._consume(receive)
                    if problem is None:
                        # Read to its end, the connection can serve the next request.
                        with anyio.move_on_after(LAST_BYTES_S):
                            async for _ in receive:
                                pass
                except Exception as exc:  # noqa: BLE001 - raised below, outside of the task group
                    problem = exc
            tasks.cancel_scope.cancel()
        if problem is not None:
            raise failure or problem

    async def _receive(self, send: MemoryObjectSendStream[ServerSentEvent]) -> None:
        opening = self._client.open_stream(self._run_id, self._url, self._last_event_id)
        async with opening as response:
            if response.status_code != 200:
                await self._refused(response)
            self._is_open = True
            trail.mark("client", self._run_id, "opened", from_=self._last_event_id)
            if self._troubled:
                await self._sink(Recovered(), None)
                self._troubled = False
            try:
                async for event in EventSource(response).aiter_sse():
                    await send.send(event)
            except SSEError:
                raise not_lyceum(response) from None

    async def _refused(self, response: httpx.Response) -> None:
        await response.aread()
        error = error_of(response, source=self._client.account.source)
        if self._url is not None and response.status_code in (401, 403, 404):
            # A server may know the run and not this URL; the path by id alone is the fallback.
            self._url = None
            raise _Dropped
        if isinstance(error, ApiError) and (is_gone(error) or error.status_code in (401, 403)):
            raise _NoStream
        if isinstance(error, ApiError) and error.status_code == 400 and self._has_ids:
            raise _NoStream  # it does not know the event any more; the record knows the end
        if isinstance(error, ApiError) and (error.status_code >= 500 or error.status_code == 429):
            await anyio.sleep(min(error.retry_after_s or 0, LONGEST_RETRY_AFTER_S))
            raise _Dropped
        raise error

    async def _consume(
        self, receive: MemoryObjectReceiveStream[ServerSentEvent]
    ) -> _Dropped | _NoStream | None:
        """Take events; return None after the terminal one, else why the reading ended."""
        while True:
            event: ServerSentEvent | None = None
            with anyio.move_on_after(IDLE_S):
                try:
                    event = await receive.receive()
                except anyio.EndOfStream:
                    return _Dropped()
            if event is not None:
                self._progressed = True
                if await self._take(event):
                    return None
            elif await self._is_over():
                # Once more, from the last event on; a second silence ends it.
                again, self._was_over = self._was_over, True
                return _NoStream() if again else _Dropped()
            elif self._has_ids:
                # Opening it again costs nothing, and replaces a connection that may be dead.
                self._progressed = self._is_open
                return _Dropped()

    async def _take(self, sse: ServerSentEvent) -> bool:
        """Pass on one server-sent event; return whether it was the terminal one."""
        for event in decode(sse.data):
            if trail.is_on:
                kind, size = type(event).__name__, event.size if isinstance(event, Output) else 0
                trail.mark("client", self._run_id, "stream", event=sse.id, kind=kind, bytes=size)
            if isinstance(event, Output):
                text = self._delivered.take(event.text)
                if text:
                    event = Output(text, event.stream, event.timestamp)
                    await self._sink(event, sse.id or None)
            else:
                if isinstance(event, Finished):
                    await self._recover_tail()
                await self._sink(event, None)
                if isinstance(event, Finished):
                    return True
        if sse.id:
            self._last_event_id = sse.id
        return False

    # Without a stream.

    async def _is_over(self) -> bool:
        try:
            return finished_of(await self._client.record(self._run_id)) is not None
        except LyceumError:
            return False  # unknown: the stream ends or breaks

    async def _finish_from_record(self, patience_s: float) -> None:
        """Wait for the end by the run's record, and deliver the rest of its output from there."""
        record, end = await self._final_record(patience_s)
        await self._deliver_rest(record)
        await self._sink(end, None)

    async def _final_record(self, patience_s: float) -> tuple[Record, Finished]:
        pause_s, until = FIRST_POLL_S, time.monotonic() + patience_s
        while True:
            record = await self._read_record()
            if (end := finished_of(record)) is not None:
                return record, end
            if time.monotonic() > until:
                raise ServerUnreachable(
                    f"Run {self._run_id} has no stream, and its status is still "
                    f"{record.get('status')!r} after {patience_s:.0f} s; look at "
                    f"`%lyceum status {self._run_id}` later."
                )
            await self._trouble("there is no stream; asking for the run's status")
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    async def _read_record(self) -> Record:
        try:
            return await self._client.record(self._run_id)
        except (ApiError, ProtocolError) as exc:
            if is_gone(exc):
                raise RunLost(
                    f"The server does not know run {self._run_id} any more.",
                    run_id=self._run_id,
                    state="system_failure",
                ) from None
            status = await self._client.legacy_status(self._run_id)
            errors = status.get("errors")
            return Record(
                status=str(status.get("status")), system_errors=[str(errors)] if errors else []
            )

    async def _recover_tail(self) -> None:
        """Deliver, after a blind reconnection, the text that only the record has."""
        if self._reopened_blindly and not self._has_ids:
            try:
                await self._deliver_rest(await self._client.record(self._run_id))
            except LyceumError:
                await self._sink(Notice("some of the output may be missing"), None)

    async def _deliver_rest(self, record: Record) -> None:
        if record.get("output_truncated"):
            return
        whole = record.get("combined_output")
        if not isinstance(whole, str):
            whole = f"{record.get('stdout') or ''}{record.get('stderr') or ''}"
        if not whole and self._delivered.size == 0:
            lines = await self._client.logs(self._run_id)
            whole = "".join(f"{line}\n" for line in lines)
        rest = self._delivered.rest_of(whole)
        if rest:
            await self._sink(Output(rest), None)
        elif rest is None:
            await self._sink(Notice("some of the output may be missing"), None)

    async def _trouble(self, text: str) -> None:
        if not self._troubled:
            self._troubled = True
            await self._sink(Notice(text), None)


class _Delivered:
    """A memory of constant size for the text that was passed on, to recognise a repetition.

    It keeps the length, the head and a hash of the whole. After a blind reconnection, text that
    begins like the head is taken for a replay until it has repeated the whole length.
    """

    HEAD = 4096

    def __init__(self, before: Iterable[str] = (), *, is_whole: bool = True) -> None:
        """Begin with the text of an earlier follower.

        Args:
            before: the text that it passed on.
            is_whole: whether that is all of the text so far; if not, nothing can be compared.
        """
        self.size = 0
        self._is_whole = is_whole
        self._head = ""
        self._hash = hashlib.sha256()
        self._replayed: int | None = None
        self._replayed_head = ""
        for text in before:
            self._note(text)

    def expect_replay(self) -> None:
        self._replayed = 0
        self._replayed_head = ""

    def take(self, text: str) -> str:
        """Return the part of a piece of text that is new."""
        if self._replayed is not None:
            text = self._skip_repetition(text)
        self._note(text)
        return text

    def rest_of(self, whole: str) -> str | None:
        """Return the undelivered rest of the whole; None if its beginning was not delivered."""
        if not self._is_whole:
            return None
        begin = whole[: self.size]
        if hashlib.sha256(begin.encode("utf-8", "replace")).digest() != self._hash.digest():
            return None
        rest = whole[self.size :]
        self._note(rest)
        return rest

    def _skip_repetition(self, text: str) -> str:
        assert self._replayed is not None
        room = self.HEAD - len(self._replayed_head)
        head = self._replayed_head + text[:room]
        if not self._head.startswith(head[: len(self._head)]):
            # Not the beginning again, so it is the continuation. Only text that agreed with the
            # head by chance was held back.
            chance, self._replayed = self._replayed_head, None
            return chance + text
        self._replayed_head = head
        before = self._replayed
        self._replayed += len(text)
        if self._replayed < self.size:
            return ""
        self._replayed = None
        return text[self.size - before :]

    def _note(self, text: str) -> None:
        self.size += len(text)
        self._head += text[: self.HEAD - len(self._head)]
        self._hash.update(text.encode("utf-8", "replace"))
