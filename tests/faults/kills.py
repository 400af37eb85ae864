"""The campaign: a server is killed again and again while its runs end and its receivers fail."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import httpx

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.states import FINAL

from .driving import Server, server_on
from .points import POINTS, START_UP_POINTS
from .receiver import Arrival, Receiver

STATES = ("completed", "failed", "system_failure", "aborted", "cancelled")
#: What receivers answer to a third of all attempts.
FAULTY = {"503": 0.1, "429": 0.05, "302": 0.05, "half": 0.05, "reset": 0.05, "timeout": 0.02}

#: How many attempts an endpoint has under way at a time.
SLOTS = 4

#: How many endpoints the URLs of a run go to, in turns.
ENDPOINTS = 32
BY_TIME = "at a random time"
#: All that can kill a server; None: a moment.
CAUSES: Sequence[str | None] = (None, None, None, None, *POINTS, *START_UP_POINTS)
#: Up to how many times a point is passed before it kills; once, where there is no number.
_NTH = {
    **dict.fromkeys(("before the finish", "after the finish"), 3),
    "inside the finish": 40,  # statements
    **dict.fromkeys(("before sending", "after sending"), 60),
    **dict.fromkeys(("before the group write", "after the group write"), 15),
    "inside the group write": 60,  # statements
    **dict.fromkeys(("before reading due rows", "after reading due rows"), 15),
}
#: How long a server may live that is killed at a random time; it takes a second to start.
_LIFE_S = 3.0
#: How long everything may take to arrive once the last kill is over.
_DRAIN_S = 900.0


@dataclass(frozen=True)
class Plan:
    """The size of a campaign.

    Attributes:
        runs: how many are started in all, evenly over the servers; the URLs of one go to
            different paths of `ENDPOINTS` endpoints.
        faults: the share of attempts that fail, by kind.
        causes: what kills the servers, each as often as the others.
        patience_s: how long after its server listens a fail point may take to be reached, before
            the server is killed by time instead.
    """

    seed: int
    runs: int
    urls_of_a_run: int
    kills: int
    faults: Mapping[str, float] = field(default_factory=lambda: FAULTY)
    causes: Sequence[str | None] = field(default_factory=lambda: CAUSES)
    patience_s: float = 4.0

    @property
    def deliveries(self) -> int:
        return self.runs * self.urls_of_a_run


@dataclass(frozen=True)
class Result:
    """The result of a campaign.

    Attributes:
        deliveries: what was promised: URLs of runs whose start was confirmed.
        lost: those without an accepted attempt.
        left: deliveries that the server does not call delivered at the end.
        twice: attempts that were accepted though an earlier one of theirs had been.
        unexplained: those of them that no kill lies between, or more of them than an endpoint has
            slots for one kill.
        unequal: deliveries whose attempts differ in id or body, or share their id with another.
        too_early: attempts whose run was not over by GET, or not in the state that was sent.
        asked: deliveries for which GET answered while an attempt waited.
    """

    plan: Plan
    kills: Counter[str]
    attempts: Counter[str]
    deliveries: int
    lost: int
    left: int
    twice: int
    unexplained: int
    unequal: int
    too_early: int
    asked: int
    unsigned: int
    redirects_followed: int
    took_s: float


async def campaign(plan: Plan) -> Result:
    """Run a campaign in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="lyceum-faults-") as name:
        # Without receivers that hang, an attempt has time: one that is given up comes twice.
        attempt_s = "10" if "timeout" in plan.faults else "120"
        async with server_on(Path(name) / "state", "--attempt-s", attempt_s) as server:
            receiver = Receiver(plan.seed, plan.faults, state_of=server.state_of)
            async with receiver.listening(ENDPOINTS):
                return await _Campaign(plan, server, receiver).run()


class _Campaign:
    def __init__(self, plan: Plan, server: Server, receiver: Receiver) -> None:
        self._plan = plan
        self._server = server
        self._receiver = receiver
        self._dice = random.Random(plan.seed)
        self._expected: dict[str, str] = {}  # URL -> id of the run whose start was confirmed
        self._started = 0
        self._kills: Counter[str] = Counter()
        self._causes: list[str | None] = []  # those that are to come, the last one first

    async def run(self) -> Result:
        begun = time.monotonic()
        await self._server.start()
        self._receiver.secret = await self._server.signing_secret()
        if self._plan.kills:
            self._server.signal(signal.SIGTERM)
            await self._server.ended()
            for number in range(1, self._plan.kills + 1):
                await self._round(number * self._plan.runs // (self._plan.kills + 1))
            await self._server.start()
            assert await self._server.signing_secret() == self._receiver.secret
        while len(self._expected) < self._plan.deliveries:
            await self._start_runs(self._started + 1)
        await self._receiver.wait_for_all(list(self._expected), _DRAIN_S)
        return await self._result(time.monotonic() - begun)

    async def _round(self, until: int) -> None:
        """Start a server, start runs until there are `until`, and have the server killed."""
        if not self._causes:
            self._causes = self._dice.sample(self._plan.causes, len(self._plan.causes))
        point = self._causes.pop()
        nth = self._dice.randint(1, _NTH.get(point, 1)) if point else 0
        await self._server.spawn(*(("--die", point, "--nth", str(nth)) if point else ()))
        listening = asyncio.create_task(self._server.listens())
        starting = asyncio.create_task(self._start_runs_once(listening, until))
        cause = await self._die(point, listening)
        await starting
        self._kills[cause] += 1
        self._receiver.server += 1

    async def _die(self, point: str | None, listening: asyncio.Task[bool]) -> str:
        """Return what killed the server, once it is dead."""
        if point is not None:
            await asyncio.wait([listening])
        limit_s = self._plan.patience_s if point else self._dice.uniform(0, _LIFE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                assert await self._server.ended() == -signal.SIGKILL, self._server.log.read_text()
                return str(point)
        self._server.signal(signal.SIGKILL)
        await self._server.ended()
        return BY_TIME

    async def _start_runs_once(self, listening: asyncio.Task[bool], until: int) -> None:
        if await listening:
            await self._start_runs(until)

    async def _start_runs(self, until: int) -> None:
        """Start runs until there are `until`; give up if the server dies."""
        while self._started < until:
            number, state = self._started, self._dice.choice(STATES)
            self._started += 1
            origins = itertools.cycle(self._receiver.origins)
            urls = [f"{next(origins)}/{number}/{n}" for n in range(self._plan.urls_of_a_run)]
            try:
                run_id = await self._server.run(urls, state)
            except httpx.TransportError:
                return  # nothing was promised; what comes all the same is checked too
            self._expected.update(dict.fromkeys(urls, run_id))

    async def _result(self, took_s: float) -> Result:
        receiver = self._receiver
        left = await self._left()
        twice = [pair for url in receiver.by_url for pair in pairwise(receiver.accepted(url))]
        asked = [arrival for arrival in receiver.arrivals if arrival.state is not None]
        return Result(
            plan=self._plan,
            kills=self._kills,
            attempts=Counter(arrival.answer for arrival in receiver.arrivals),
            deliveries=len(self._expected),
            lost=sum(not receiver.accepted(url) for url in self._expected),
            left=left,
            twice=len(twice),
            unexplained=_unexplained(twice),
            unequal=_unequal(receiver.by_url, self._expected),
            too_early=sum(a.state not in FINAL or a.state != a.said for a in asked),
            asked=len({arrival.url for arrival in asked}),
            unsigned=sum(not arrival.is_signed for arrival in receiver.arrivals),
            redirects_followed=receiver.redirects_followed,
            took_s=took_s,
        )

    async def _left(self) -> int:
        """Count what is undelivered: the last result may reach the disk after the last arrival."""
        for _ in range(100):
            health = await self._server.get(paths.DELIVERY_HEALTH)
            if (left := health["pending"] + health["dead"]) == 0:
                break
            await asyncio.sleep(0.05)
        return int(left)


def _unexplained(twice: Sequence[tuple[Arrival, Arrival]]) -> int:
    """Second acceptances that no kill explains: an attempt is under way in one slot."""
    without_kill = sum(first.server == second.server for first, second in twice)
    of_a_kill = Counter(
        (first.server, first.url.split("/")[2])
        for first, second in twice
        if first.server != second.server
    )
    return without_kill + sum(max(0, number - SLOTS) for number in of_a_kill.values())


def _unequal(by_url: Mapping[str, Sequence[Arrival]], expected: Mapping[str, str]) -> int:
    """URLs whose attempts differ in id, body or run, or whose id another URL has as well."""
    kinds = {url: {(a.callback_id, a.run_id, a.body_digest) for a in by_url[url]} for url in by_url}
    owners = Counter(callback_id for these in kinds.values() for callback_id, _, _ in these)
    return sum(
        len(these) != 1
        or any(run_id != expected.get(url, run_id) for _, run_id, _ in these)
        or any(owners[callback_id] != 1 for callback_id, _, _ in these)
        for url, these in kinds.items()
    )
