"""A receiver on loopback, in the test's own event loop, which answers as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def callback_id(self) -> str:
        return self.headers["webhook-id"]


#: The status to answer with, perhaps after a while.
Answer = Callable[[Request], Awaitable[int]]


@dataclass
class Receiver:
    """The requests in the order of their arrival. Without an `answer` each gets 204."""

    origin: str
    requests: list[Request] = field(default_factory=list)
    answer: Answer | None = None
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def got(self, number: int) -> list[Request]:
        """Return all requests, once this many have come."""
        async with asyncio.timeout(30), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= number)
        return self.requests

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:-2])
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        request = Request(head[0].split(" ")[1], headers, body)
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        status = 204 if self.answer is None else await self.answer(request)
        writer.write(f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Yield a receiver on a free port; requests that still wait are cut off at the end."""
    under_way: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.take(reader, writer))
        under_way.add(task)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver = Receiver(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield receiver
    finally:
        server.close()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
