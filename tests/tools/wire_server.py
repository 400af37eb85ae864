"""A scripted server for the tests of this package: answers byte for byte, and streams that break.

It stands on the public doubles of `lyceum_magic.testing`, and adds the account that tests use and
the replies that only a test of the wire needs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from lyceum_magic.config import Account, Secret
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Event, encode
from lyceum_magic.testing import HungUp, Reply, Request, ScriptedServer, answer

#: A key that must never be seen outside of an Authorization header of its own server.
KEY = "lk_canary_key_1b7d09"
STREAM_SECRET = "canary-stream-secret-77aa"


class WireServer(ScriptedServer):
    """A scripted server that an account names."""

    def account(self, **members: Any) -> Account:
        return Account(self.base_url, Secret(KEY), "a test", **members)


@contextlib.asynccontextmanager
async def wire_server() -> AsyncIterator[WireServer]:
    """Serve in the test's own event loop."""
    wire = WireServer()
    async with wire.listening():
        yield wire


@contextlib.contextmanager
def wire_thread() -> Iterator[WireServer]:
    """Serve on a thread of its own."""
    wire = WireServer()
    with wire.listening_in_thread():
        yield wire


# Replies.


def json_answer(value: object, *, status: int = 200, **headers: str) -> Reply:
    return answer(value, status=status, **headers)


def refusal(status: int, detail: object = "no", **headers: str) -> Reply:
    return json_answer({"detail": detail}, status=status, **headers)


not_found = refusal(404, "Not Found")
html = answer(b"<html>Sign in to the hotel's network</html>", kind="text/html; charset=utf-8")


def stream(*pieces: bytes, cut: bool = False, hold: asyncio.Event | None = None) -> Reply:
    """An event stream, each piece a chunk of its own.

    Args:
        cut: break the connection off after the last piece instead of ending the body.
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
    """Take the request and break the connection instead of answering."""
    await _hang_up(writer)


def resumable(events: Sequence[tuple[str, bytes]], *cuts: int) -> Reply:
    """A stream that honours Last-Event-ID, and breaks off after `cuts` bytes, one cut a request.

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


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    # What has been written goes out first: the cut is where the test wants it.
    await writer.drain()
    writer.close()
    raise HungUp
