"""Trivial runs a second over HTTP, with forked interpreters and with one started for each run.

Two servers take turns, so that other work on the machine slows both.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import median

import httpx

from lyceum_magic.protocol import paths
from tests.tools.served_process import CLI, ServedProcess, served

from .row import Row

_LIMIT_S = 180
#: Runs at once -> how many in all, for one measurement.
_RUNS = {1: 10, 16: 48, 64: 64, 200: 200}
_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))

#: `lyceum-magic` without a zygote.
_STARTED = """
import functools
from lyceum_magic import cli
from lyceum_magic.server import app
app.ProcessRunner = functools.partial(app.ProcessRunner, forks=False)
cli.main()
"""


def measure() -> Iterator[Row]:
    """Yield a row for each number of runs at once."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lyceum-bench-")))
        forked, started = (
            stack.enter_context(served(folder / name / "state", program=program))
            for name, program in (("forked", CLI), ("started", ("-c", _STARTED)))
        )
        for at_once, count in _RUNS.items():
            speeds: dict[ServedProcess, list[float]] = {forked: [], started: []}
            for _ in range(_ROUNDS + 1):  # the first round warms up
                for server, measured in speeds.items():
                    measured.append(asyncio.run(_runs_per_s(server, at_once, count)))
            ours, other = (median(measured[1:]) for measured in speeds.values())
            yield Row(f"runs a second, {at_once} at once, against started interpreters",
                      ours / other, "x", None, _ROUNDS, f"{ours:.1f} against {other:.1f} runs/s",
                      at_least=2.0 if at_once > 1 else None)  # fmt: skip


async def _runs_per_s(server: ServedProcess, at_once: int, count: int) -> float:
    left = iter(range(count))
    async with AsyncExitStack() as stack:
        # A client each: the pool of a shared one looks through all its connections each time.
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=server.base_url,
                    headers=dict(server.client.headers),
                    trust_env=False,
                    verify=False,  # there is nothing to verify, and the certificates take time
                    timeout=_LIMIT_S,
                )
            )
            for _ in range(at_once)
        ]
        begun = time.perf_counter()
        await asyncio.gather(*(_follow_some(client, left) for client in clients))
        return count / (time.perf_counter() - begun)


async def _follow_some(client: httpx.AsyncClient, left: Iterator[int]) -> None:
    for _ in left:
        body = {"code": "print(1)", "execution_type": "cpu"}
        reply = (await client.post(paths.START_PYTHON, json=body)).raise_for_status()
        stream = await client.post(paths.stream(reply.json()["execution_id"]))
        assert "jobFinished" in stream.text
