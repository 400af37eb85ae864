"""A clock that jumps by a day, under a server with deliveries to make and to repeat."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from .driving import Load, server_on
from .receiver import Receiver

#: Some attempts are under way for a second, with jumps in between.
_FAULTS = {"503": 0.3, "timeout": 0.15}
_RUNS = 1
_ENDPOINTS = 4
_LIMIT_S = 60.0
#: What fails waits for longer than the server is watched for.
_ATTEMPT_S = 1.0
_WAIT_S = 1.5
_WATCHED_S = 1.0

FORWARD, BACK = signal.SIGUSR1, signal.SIGUSR2


@dataclass(frozen=True)
class Result:
    """The result of a clock that jumped.

    Attributes:
        load: processor time against time, after a jump back and while little was due.
        attempts_at_most: at one URL.
        lasted_s: from the first jump to the last arrival.
        twice: attempts that were accepted though an earlier one of theirs had been.
    """

    deliveries: int
    lost: int
    load: float
    attempts_at_most: int
    lasted_s: float
    twice: int


async def jumping_clock(folder: Path) -> Result:
    """A day forward, two back, two forward, one back over a restart; runs end between them."""
    receiver = Receiver(2, _FAULTS)
    times = ("--attempt-s", str(_ATTEMPT_S), "--waits", "0", *[str(_WAIT_S)] * 60)
    async with server_on(folder / "state", *times) as server, receiver.listening(_ENDPOINTS):
        await server.start()
        receiver.secret = await server.signing_secret()
        urls: list[str] = []

        async def some_runs() -> None:
            for _ in range(_RUNS):
                of_this = [f"{o}/{len(urls)}/{n}" for n, o in enumerate(receiver.origins)]
                urls.extend(of_this)
                await server.run(of_this)

        begun = time.monotonic()
        await some_runs()
        for jump in (FORWARD, BACK, BACK):
            server.signal(jump)
            await some_runs()
        load = Load(server.pid)
        await asyncio.sleep(_WATCHED_S)  # what is measured is a stretch of time
        share = load.share()
        # No restart may help: by the clock, what was planned is a day away.
        await receiver.wait_for_all(urls, _LIMIT_S)
        for jump in (FORWARD, FORWARD):
            server.signal(jump)
            await some_runs()
        server.signal(signal.SIGTERM)
        await server.ended()
        await server.start()  # by the machine's clock again, a day before
        await receiver.wait_for_all(urls, _LIMIT_S)
        return Result(
            deliveries=len(urls),
            lost=sum(not receiver.accepted(url) for url in urls),
            load=share,
            attempts_at_most=max(len(receiver.by_url[url]) for url in urls),
            lasted_s=time.monotonic() - begun,
            twice=sum(max(0, len(receiver.accepted(url)) - 1) for url in urls),
        )
