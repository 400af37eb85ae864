"""A runner whose runs are played by the test, which decides their output and their ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from lyceum_magic.protocol.events import StreamName
from lyceum_magic.protocol.requests import Start
from lyceum_magic.server.bell import Bell
from lyceum_magic.server.output.spool import encode_record
from lyceum_magic.server.runners.base import EndReason, ProgressListener, RunEnd, RunOrder, Usage


class FakeHandle:
    """A run that the test plays."""

    def __init__(self, run_order: RunOrder, on_progress: ProgressListener) -> None:
        self.run_order = run_order
        self.run_id = run_order.run_id
        self.spool: Path = run_order.folder / "spool"
        self.started_at: float | None = None
        self.detail = ""
        self.on_detail: Callable[[], None] = lambda: None
        self.tell = on_progress
        self.orders: list[str] = []
        self.obeys = True
        self.uses: Usage | None = None
        self._end: RunEnd | None = None
        self._changed = Bell()

    # What the test does.

    def begin(self) -> None:
        self.started_at = time.time()
        self._changed.ring()

    def write(self, data: bytes, stream: StreamName = "stdout") -> None:
        with self.spool.open("ab") as file:
            file.write(encode_record(stream, time.time(), data))
        self._changed.ring()

    def end(
        self, return_code: int | None = 0, *, reason: EndReason = "exited", error: str = ""
    ) -> None:
        self._end = RunEnd(reason, return_code, error, self.started_at, time.time())
        self._changed.ring()

    # What the service sees.

    async def ended(self) -> RunEnd:
        while self._end is None:
            await self._changed.listen().wait()
        return self._end

    async def started(self) -> None:
        while self.started_at is None and self._end is None:
            await self._changed.listen().wait()

    async def grown(self, offset: int) -> None:
        while self._end is None and not (
            self.spool.exists() and self.spool.stat().st_size > offset
        ):
            await self._changed.listen().wait()

    async def usage(self) -> Usage | None:
        return self.uses if self.started_at is not None and self._end is None else None

    async def kill(self) -> None:
        self._obey("kill", "aborted")

    async def stop(self) -> None:
        self._obey("stop", "stopped")

    def _obey(self, order: str, reason: EndReason) -> None:
        self.orders.append(order)
        if self.obeys:
            self.end(None, reason=reason)


class FakeRunner:
    """A runner that gives the test a handle for each run that the service starts.

    The same runner in a second service plays a restarted server: it finds its runs again.
    """

    def __init__(self) -> None:
        self.handles: dict[str, FakeHandle] = {}
        self.failure: Exception | None = None
        self.refusal: Exception | None = None
        self._started: asyncio.Queue[FakeHandle] = asyncio.Queue()

    async def next_run(self) -> FakeHandle:
        """Return the next run that the service starts."""
        async with asyncio.timeout(60):
            return await self._started.get()

    async def open(self) -> None:
        pass

    async def check(self, request: Start) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def start(self, run_order: RunOrder, on_progress: ProgressListener) -> FakeHandle:
        if self.failure is not None:
            raise self.failure
        handle = self.handles[run_order.run_id] = FakeHandle(run_order, on_progress)
        self._started.put_nowait(handle)
        return handle

    async def find(self, run_order: RunOrder) -> FakeHandle | None:
        return self.handles.get(run_order.run_id)

    async def sweep(self, unused_since: float) -> None:
        pass

    async def close(self) -> None:
        pass
