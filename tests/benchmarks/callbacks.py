"""The cost of callbacks: the real server with runs that end at once, and receivers on loopback."""

from __future__ import annotations

import asyncio
import itertools
import re
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server.outbox.planning import deliveries_of
from lyceum_magic.server.state_folder import prepare
from lyceum_magic.server.stores.base import RunRecord
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault
from tests.faults.driving import Server, server_on
from tests.tools.receiver import Receiver, Request

from .row import Row

_LIMIT_S = 120.0

#: Seconds that a slow receiver takes to answer, and a hung one, on which the sender gives up.
SLOW_S, HUNG_S = 1.0, 3600.0


class Receivers:
    """Endpoints, each of which answers after a wait of its own."""

    def __init__(self) -> None:
        self._waits_s: dict[str, float] = {}
        self._receiver = Receiver(self._answer)

    @asynccontextmanager
    async def listening(self, waits_s: Sequence[float]) -> AsyncIterator[list[str]]:
        """One endpoint for each wait; gives their origins."""
        before = len(self._receiver.origins)
        async with self._receiver.listening(len(waits_s)):
            origins = self._receiver.origins[before:]
            self._waits_s.update(zip(origins, waits_s, strict=True))
            yield origins

    @property
    def arrivals(self) -> list[tuple[str, float]]:
        """Path and monotonic seconds of each arrival."""
        return [(request.path, request.at) for request in self._receiver.received]

    async def first(self, number: int, prefix: str = "/") -> list[tuple[str, float]]:
        """The first `number` arrivals whose path begins with the prefix, once they have come."""
        found: list[tuple[str, float]] = []
        awaited = number  # fewer cannot be enough, and looking takes the receivers' time
        while len(found) < number:
            await self._receiver.got(awaited)
            arrivals = self.arrivals
            found = [arrival for arrival in arrivals if arrival[0].startswith(prefix)]
            awaited = len(arrivals) + 1
        return found[:number]

    async def _answer(self, request: Request) -> int:
        await asyncio.sleep(self._waits_s[request.origin])
        return 204


def measure() -> Iterator[Row]:
    yield from latency()
    yield from isolation()
    yield from restart()


def latency(rate: int = 50, seconds: int = 20) -> Iterator[Row]:
    waits_s = _scratch(lambda folder: _latencies(folder, [0.0] * 10, [], rate, seconds))
    p50, p99 = _percentiles_ms(waits_s)
    spread = f"{rate}/s, 10 endpoints; worst {max(waits_s) * 1e3:.1f} ms"
    yield Row("callback, committed end to arrival, p50", p50, "ms", 5, len(waits_s), spread)
    yield Row("callback, committed end to arrival, p99", p99, "ms", 25, len(waits_s), spread)


def isolation(rounds: int = 2, rate: int = 10, seconds: int = 15) -> Iterator[Row]:
    """The same callbacks to the same 100 endpoints, with and without 100 bad ones beside them."""
    good, bad = [0.0] * 100, [HUNG_S] * 50 + [SLOW_S] * 50
    alone: list[float] = []
    beside: list[float] = []
    for _ in range(rounds):
        alone += _scratch(lambda folder: _latencies(folder, good, [], rate, seconds))
        beside += _scratch(lambda folder: _latencies(folder, good, bad, rate, seconds))
    (_, without), (_, among) = _percentiles_ms(alone), _percentiles_ms(beside)
    yield Row("p99 of 100 good endpoints, 50 hung and 50 slow beside them", among / without, "x", 2,
              len(beside), f"{among:.1f} ms against {without:.1f} ms")  # fmt: skip


def restart(rows: int = 10_000) -> Iterator[Row]:
    first_s, rate, growth = _scratch(lambda folder: _restart(folder, rows))
    yield Row(f"restart with {rows} due callbacks, to the first", first_s, "s", 1, 1)
    yield Row("callbacks sent in a second, synchronous=FULL", rate, "/s", None, rows,
              "20 endpoints", at_least=300)  # fmt: skip
    yield Row(f"server's memory, peak growth by {rows} due callbacks", growth / 2**20, "MB", 50, 1)


async def _latencies(
    folder: Path, good: Sequence[float], bad: Sequence[float], rate: int, seconds: int
) -> list[float]:
    """Seconds from the commit of a run's end to the arrival, of callbacks to good endpoints.

    Each run has one good endpoint where there are ten, else eight; and as many bad ones, if any.
    """
    share = 1 if len(good) <= 10 else 8
    receivers = Receivers()
    ends = folder / "ends"
    async with (
        receivers.listening(good) as good_origins,
        receivers.listening(bad) as bad_origins,
        server_on(folder / "state", "--ends", str(ends), "--attempt-s", "15") as server,
    ):
        await server.start()
        to_good, to_bad = itertools.cycle(good_origins), itertools.cycle(bad_origins)
        begun = time.monotonic()
        runs = set()
        for number in range(rate * seconds):
            await asyncio.sleep(begun + number / rate - time.monotonic())
            urls = [f"{next(to_good)}/good/{number}" for _ in range(share)]
            urls += [f"{next(to_bad)}/bad/{number}" for _ in range(share if bad else 0)]
            runs.add(asyncio.create_task(_start(server, number, urls)))
        ids = dict([await run for run in runs])
        arrivals = await receivers.first(share * rate * seconds, "/good/")
        committed = dict(line.split() for line in ends.read_text().splitlines())
        return [at - float(committed[ids[int(path.rpartition("/")[2])]]) for path, at in arrivals]


async def _start(server: Server, number: int, urls: Sequence[str]) -> tuple[int, str]:
    return number, await server.run(urls)


async def _restart(folder: Path, rows: int) -> tuple[float, float, int]:
    """Seconds to the first arrival once the server listens, arrivals a second, bytes of growth."""
    receivers = Receivers()
    async with receivers.listening([0.0] * 20) as origins:
        async with server_on(folder / "empty") as server:
            await server.start()
            await server.run([f"{origins[0]}/first"])
            await receivers.first(1)
            before = _peak_bytes(server.pid)
        receivers.arrivals.clear()
        urls = [f"{origin}/{number}" for number in range(rows // 20) for origin in origins]
        await _fill(folder / "state", urls)
        async with server_on(folder / "state") as server:
            await server.start()
            listens_at = time.monotonic()
            await receivers.first(rows)
            growth = _peak_bytes(server.pid) - before
    moments = [at for _, at in receivers.arrivals]
    first, last = min(moments), max(moments)
    return first - listens_at, rows / (last - first), growth


async def _fill(folder: Path, urls: Sequence[str]) -> None:
    """The state folder of a server that ended before it could send anything."""
    prepare(folder)
    store = SqliteStore(folder / "runs.sqlite3", Vault(folder / "vault.key"))
    await store.open()
    now = time.time()
    request = StartPython.model_validate({"code": "completed", "execution_type": "cpu"})
    record = RunRecord("b" * 32, request, now, State.COMPLETED, return_code=0, finished_at=now)
    await store.add(record)
    await store.finish(record, deliveries_of(record, urls, now))
    await store.close()


def _peak_bytes(pid: int) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found, f"no VmHWM of process {pid}"
    return int(found[1]) * 1024


def _percentiles_ms(values_s: Sequence[float]) -> tuple[float, float]:
    cuts = quantiles(values_s, n=100)
    return cuts[49] * 1e3, cuts[98] * 1e3


def _scratch(scenario: Any) -> Any:
    with tempfile.TemporaryDirectory(prefix="lyceum-bench-") as name:
        return asyncio.run(scenario(Path(name)))
