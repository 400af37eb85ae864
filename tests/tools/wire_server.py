"""A loopback HTTP server that says what a test tells it to, byte for byte, and remembers who asked.

It runs in the test's own event loop. Each route has a list of replies: each is used once, the
last one for ever. A reply writes raw bytes, so that it can break off wherever a test wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lyceum_magic.config import Account, Secret
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Event, encode

#: A key that must never be seen outside of an Authorization header of its own server.
KEY = "lk_canary_key_1b7d09"
STREAM_SECRET = "canary-stream-secret-77aa"


@dataclass(frozen=True)
class Request:
    """What a client sent; header names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Reply = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class WireServer:
    """The running server. `requests` holds every whole request, in the order of arrival."""

    base_url: str = ""
    requests: list[Request] = field(default_factory=list)
    _routes: dict[tuple[str, str], list[Reply]] = field(default_factory=dict)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Give a route its replies; any other route is a 404 as FastAPI words it."""
        self._routes[method, path] = list(replies)

    def account(self, **members: Any) -> Account:
        return Account(self.base_url, Secret(KEY), "a test", **members)

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests that came for one route."""
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                replies = self._routes.get((request.method, request.path), [not_found])
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
                await reply(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, _HungUp):
            pass  # cancelled at the test's end: streams of Python 3.11 report that as a failure
        finally:
            self._writers.discard(writer)
            writer.close()

    def hang_up_on_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def wire_server() -> AsyncIterator[WireServer]:
    """A server on a free port of this machine."""
    wire = WireServer()
    listener = await asyncio.start_server(wire.handle, "127.0.0.1", 0)
    wire.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        listener.close()
        wire.hang_up_on_all()
        await listener.wait_closed()


@contextlib.contextmanager
def wire_thread() -> Iterator[WireServer]:
    """The same, on a thread of its own."""
    ready, leave = threading.Event(), asyncio.Event()
    found: list[tuple[WireServer, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        async with wire_server() as server:
            found.append((server, asyncio.get_running_loop()))
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    server, loop = found[0]
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()


# Replies.


def answer(
    body: bytes = b"", *, status: int = 200, kind: str = "application/json", **headers: str
) -> Reply:
    """A whole answer; `retry_after="1"` becomes the header `retry-after: 1`."""

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)

    return reply


def json_answer(value: object, *, status: int = 200, **headers: str) -> Reply:
    return answer(json.dumps(value).encode(), status=status, **headers)


def refusal(status: int, detail: object = "no", **headers: str) -> Reply:
    return json_answer({"detail": detail}, status=status, **headers)


not_found = refusal(404, "Not Found")
html = answer(b"<html>Sign in to the hotel's network</html>", kind="text/html; charset=utf-8")


def stream(*pieces: bytes, cut: bool = False, hold: asyncio.Event | None = None) -> Reply:
    """An event stream, each piece a chunk of its own.

    Args:
        cut: break the connection off behind the last piece instead of ending the body.
        hold: keep it open until the event is set.
    """

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for piece in pieces:
            if piece:  # an empty chunk would be the end
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
        if hold is not None:
            await hold.wait()
        if cut:
            await _hang_up(writer)
        writer.write(b"0\r\n\r\n")

    return reply


async def hang_up(request: Request, writer: asyncio.StreamWriter) -> None:
    """Takes the request and breaks the connection instead of answering."""
    await _hang_up(writer)


def resumable(events: Sequence[tuple[str, bytes]], *cuts: int) -> Reply:
    """A stream that honours Last-Event-ID, and breaks off after so many bytes, once for each cut.

    Args:
        events: the id of each event, and its bytes with the blank line.
    """
    left = list(cuts)

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        last = request.headers.get("last-event-id")
        ids = [event_id for event_id, _ in events]
        begin = ids.index(last) + 1 if last is not None else 0
        body = b"".join(data for _, data in events[begin:])
        if left:
            await stream(body[: left.pop(0)], cut=True)(request, writer)
        await stream(body)(request, writer)

    return reply


# What is said.


def frame(event: Event, event_id: str | None = None, *, line_end: str = "\n") -> bytes:
    """An event as a server writes it."""
    head = "" if event_id is None else f"id: {event_id}{line_end}"
    return f"{head}data: {encode(event)}{line_end}{line_end}".encode()


def record(run_id: str = "run", status: str = "completed", **members: object) -> dict[str, object]:
    return {"execution_id": run_id, "status": status, "return_code": 0, **members}


def started(wire: WireServer, run_id: str = "run") -> Reply:
    """The answer to a start, with a stream's address that holds a secret."""
    return json_answer(
        {
            "execution_id": run_id,
            "status": "pending",
            "streaming_url": f"{wire.base_url}{paths.stream(run_id)}/{STREAM_SECRET}",
        }
    )


class _HungUp(Exception):
    """The reply broke the connection; nothing more is to be done with it."""


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    # What has been written goes out first: the cut is where the test wants it.
    await writer.drain()
    writer.close()
    raise _HungUp


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, query, headers, body)
