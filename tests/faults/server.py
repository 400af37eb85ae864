"""The embedded server with a lever for each fault: `python -m tests.faults.server ... `.

It is the real server on a real folder (lock, SQLite, sender, sockets). Around its store and its
sender are seams that end this process by SIGKILL where a test asked for it; runs end at once, as
their code says; waits are short; and the clock can be set by signals.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import math
import signal
import sys
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")

DAY_S = 86_400.0
_set_ahead_s = 0.0
_machine_time = time.time


def _clock() -> float:
    return _machine_time() + _set_ahead_s


def _set_clock(number: int, frame: FrameType | None) -> None:
    global _set_ahead_s
    _set_ahead_s += DAY_S if number == signal.SIGUSR1 else -DAY_S


# Before anything of the package is imported, since it takes the clock from there.
time.time = _clock

from lyceum_magic import cli  # noqa: E402
from lyceum_magic.server import app as app_module  # noqa: E402
from lyceum_magic.server.machines import RUNNERS  # noqa: E402
from lyceum_magic.server.outbox.results import Outcome  # noqa: E402
from lyceum_magic.server.outbox.schedule import Schedule  # noqa: E402
from lyceum_magic.server.outbox.sending import CallbackSender, HttpSender  # noqa: E402
from lyceum_magic.server.outbox.targets import Targets  # noqa: E402
from lyceum_magic.server.runners.base import (  # noqa: E402
    EndReason,
    ProgressListener,
    RunEnd,
    RunOrder,
    Usage,
)
from lyceum_magic.server.settings import ServerSettings  # noqa: E402
from lyceum_magic.server.stores.base import Attempt, Delivery, RunRecord  # noqa: E402
from lyceum_magic.server.stores.sqlite import SqliteStore  # noqa: E402
from lyceum_magic.server.vault import Vault  # noqa: E402

from .points import FailPoint  # noqa: E402

#: Code -> how the run ends; anything else goes on until it is aborted or stopped.
_ENDS: dict[str, tuple[EndReason, int | None]] = {
    "completed": ("exited", 0),
    "failed": ("exited", 3),
    "system_failure": ("lost", None),
    "aborted": ("aborted", None),
    "cancelled": ("stopped", None),
}


class MortalStore(SqliteStore):
    """SQLite, with fail points around and inside its transactions.

    Args:
        ends: a file for the id of each run and when its end was on the disk, by the machine's
            monotonic clock.
    """

    def __init__(self, path: Path, vault: Vault, point: FailPoint, ends: Path | None) -> None:
        super().__init__(path, vault)
        self._point = point
        self._ends = ends
        self._transaction_of = ""

    async def open(self) -> None:
        self._point.reach("opening")
        await super().open()
        if self._point.name is not None:
            await self._file.run(lambda connection: connection.set_trace_callback(self._see))
        self._point.reach("opened")

    def _see(self, statement: str) -> None:
        """On the store's thread, before each statement."""
        if statement.startswith(("UPDATE runs", "INSERT INTO deliveries")):
            self._transaction_of = "the finish"
        elif statement.startswith(("INSERT INTO attempts", "UPDATE deliveries")):
            self._transaction_of = "the group write"
        elif not statement.startswith("COMMIT"):
            return
        self._point.reach(f"inside {self._transaction_of}")

    async def _around(self, what: str, transaction: Coroutine[Any, Any, _T]) -> _T:
        self._point.reach(f"before {what}")
        done = await transaction
        self._point.reach(f"after {what}")
        return done

    async def finish(self, record: RunRecord, deliveries: Sequence[Delivery] = ()) -> None:
        await self._around("the finish", super().finish(record, deliveries))
        if self._ends is not None:
            with self._ends.open("a") as ends:
                ends.write(f"{record.run_id} {time.monotonic()}\n")

    async def write_attempts(self, attempts: Sequence[tuple[Attempt, Delivery]]) -> Collection[str]:
        return await self._around("the group write", super().write_attempts(attempts))

    async def unfinished(self) -> Sequence[RunRecord]:
        self._point.reach("reading unfinished runs")
        return await super().unfinished()

    async def endpoints(self, due_by: float = math.inf) -> Mapping[str, float]:
        self._point.reach("reading endpoints")
        return await super().endpoints(due_by)

    async def due(
        self, endpoint: str, now: float, *, limit: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        self._point.reach("before reading due rows")
        rows = await super().due(endpoint, now, limit=limit, without=without)
        self._point.reach("after reading due rows")
        return rows


class MortalSender:
    """A sender with fail points around each attempt."""

    def __init__(self, sender: CallbackSender, point: FailPoint) -> None:
        self._sender = sender
        self._point = point

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        self._point.reach("before sending")
        outcome = await self._sender.send(url, headers, body)
        self._point.reach("after sending")
        return outcome

    async def close(self) -> None:
        await self._sender.close()


class PlayedRun:
    """A run that ends as its code says, or when it is told to."""

    def __init__(self, run_order: RunOrder) -> None:
        self.run_id = run_order.run_id
        self.spool = run_order.folder / "spool"
        self.started_at: float | None = time.time()
        self._end: asyncio.Future[tuple[EndReason, int | None]] = asyncio.Future()
        if end := _ENDS.get(getattr(run_order.request, "code", "")):
            self._end.set_result(end)

    async def ended(self) -> RunEnd:
        reason, return_code = await asyncio.shield(self._end)
        return RunEnd(reason, return_code, "", self.started_at, time.time())

    async def started(self) -> None:
        pass

    async def grown(self, offset: int) -> None:
        await self.ended()

    async def usage(self) -> Usage | None:
        return None

    async def kill(self) -> None:
        if not self._end.done():
            self._end.set_result(("aborted", None))

    async def stop(self) -> None:
        if not self._end.done():
            self._end.set_result(("stopped", None))


class PlayedRunner:
    """A runner without processes. A run that a server left goes on as if it were new."""

    async def open(self) -> None:
        pass

    async def check(self, request: object) -> None:
        pass

    async def start(self, run_order: RunOrder, on_progress: ProgressListener) -> PlayedRun:
        return PlayedRun(run_order)

    async def find(self, run_order: RunOrder) -> PlayedRun | None:
        return PlayedRun(run_order) if run_order.folder.exists() else None

    async def sweep(self, unused_since: float) -> None:
        pass

    async def close(self) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--die", metavar="POINT")
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--waits", type=float, nargs="+", default=[0.0, *[0.2] * 100])
    parser.add_argument("--ends", type=Path, metavar="FILE")
    parser.add_argument("--attempt-s", type=float, default=3.0)
    options, rest = parser.parse_known_args()
    point = FailPoint(options.die, options.nth)
    create_app = app_module.create_app

    def create(settings: ServerSettings, **kept: Any) -> Any:
        vault = Vault(settings.state_dir / "vault.key")
        return create_app(
            settings,
            store=MortalStore(settings.state_dir / "runs.sqlite3", vault, point, options.ends),
            runners=dict.fromkeys(RUNNERS, PlayedRunner()),
            sender=MortalSender(_http_sender(settings, options.attempt_s), point),
            schedule=Schedule(waits_s=tuple(options.waits), max_retry_after_s=1.0),
            **kept,
        )

    # `serve` is otherwise as it is, with its lock, its port and its file.
    app_module.create_app = functools.wraps(create_app)(create)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _set_clock)
    return cli.main(["serve", "--max-running", "10000", *rest])


def _http_sender(settings: ServerSettings, attempt_s: float) -> CallbackSender:
    targets = Targets(settings.profile, lambda: [settings.port])
    return HttpSender(targets, total_s=attempt_s)


if __name__ == "__main__":
    sys.exit(main())
