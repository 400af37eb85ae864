"""The receiver of callbacks that tests and benchmarks listen with, on loopback.

It is not built on this package: what it reads is HTTP as it came over the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from .waiting import LIMIT_S


@dataclass(frozen=True)
class Request:
    """One attempt as it came in. Header names are in lower case, `at` is of the monotonic clock."""

    origin: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def callback_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


#: A status, or all bytes that are sent before the connection is closed.
Answer = int | bytes


class Receiver:
    """A server on one or more ports of loopback that keeps all requests and answers 204.

    Attributes:
        origins: of its ports, such as `http://127.0.0.1:40123`.
        received: the requests, in the order of their arrival.
        answer: what each request is answered. It is cancelled when the sender hangs up.
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]] | None = None) -> None:
        self.origins: list[str] = []
        self.received: list[Request] = []
        self.answer = answer
        self._arrived = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> str:
        return self.origins[0]

    async def got(self, number: int) -> list[Request]:
        """Return all requests, once there are at least `number`."""
        async with asyncio.timeout(LIMIT_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= number)
        return self.received

    @asynccontextmanager
    async def listening(self, endpoints: int = 1) -> AsyncIterator[Receiver]:
        """Listen during the block, at whose end senders that still wait are cut off."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._cut_off)
            for _ in range(endpoints):
                server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
                stack.callback(server.close)
                self.origins.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            yield self

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cut_off(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The sender may be killed in the middle of anything.
        with (
            contextlib.closing(writer),
            contextlib.suppress(asyncio.IncompleteReadError, ConnectionError),
        ):
            path, headers, body = await read_request(reader)
            origin = "http://{}:{}".format(*writer.get_extra_info("sockname")[:2])
            request = Request(origin, path, headers, body, time.monotonic())
            async with self._arrived:
                self.received.append(request)
                self._arrived.notify_all()
            answer = 204 if self.answer is None else await self._answer(reader, request)
            if isinstance(answer, int):
                head = f"HTTP/1.1 {answer} X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                answer = head.encode()
            writer.write(answer)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, request: Request) -> Answer:
        assert self.answer is not None
        answering = asyncio.ensure_future(self.answer(request))
        leaving = asyncio.create_task(reader.read())
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            return answering.result() if answering.done() else b""
        finally:
            answering.cancel()
            leaving.cancel()


async def read_request(reader: asyncio.StreamReader) -> tuple[str, Mapping[str, str], bytes]:
    """Read one request; return its target, its headers by names in lower case, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
    request, *lines = head.split("\r\n")[:-2]
    fields = [line.partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, _, value in fields}
    assert len(headers) == len(fields), f"a header came twice: {lines}"
    return request.split(" ")[1], headers, await reader.readexactly(int(headers["content-length"]))
