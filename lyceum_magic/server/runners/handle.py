"""The handle of a run that has a supervisor: a `RunHandle` over the run's folder.

The supervisor is a process of its own that outlives the server: `process.supervisor` for Python
programs, `engine.supervisor` for containers and stacks. Both take a run over the same way and leave
the same files (see `control`). The handle hears of the run on the supervisor's socket, and sees to
the run's end if the supervisor does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...disks import reason
from ..tasks import log_failure
from . import control
from .base import EndReason, EngineUnavailable, Refusal, RunEnd, RunOrder, Usage
from .folder import (
    SHORTAGES,
    facts_or_none,
    is_untouched,
    moment,
    read_end,
    remove_assignment,
    report,
    wrote_anything,
)
from .marks import kill_marked

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

#: The number of interpreters that may die over one run before the run is lost.
MAX_HAND_OVERS = 3

#: The pause before another attempt at what a shortage has prevented.
RETRY_S = 0.5
#: The longest that a killed supervisor may take to be gone. In seconds.
_KILLED_S = 10.0
#: The longest that a supervisor may take to be gone after it closed its socket. In seconds.
_ENDING_S = 10.0
_LOOK_S = 0.02


@dataclass(frozen=True)
class Patience:
    """The time that the server gives a supervisor before it ends the run itself. In seconds.

    A supervisor that was stopped, or hangs, would keep its run going for ever.

    Attributes:
        start_s: from the hand-over to the program's beginning.
        end_s: from the moment at which the run has to end, by its limit and its grace or by an
            order, to its end.
    """

    start_s: float
    end_s: float


PATIENCE = Patience(start_s=120.0, end_s=10.0)


_OUT_OF_REACH = "the supervisor of the run can no longer be reached"


class SupervisedHandle:
    """A `RunHandle` for a run that belongs to a supervisor.

    Args:
        on_end: called once, at the end.
        clean_up: takes away what a supervisor that died left running, given the run's folder; it
            is called on a thread.
        measure: returns what a run uses now, given its folder; it is called on a thread.
        patience: with the run's supervisor.
    """

    def __init__(
        self,
        run_order: RunOrder,
        *,
        on_end: Callable[[SupervisedHandle], None],
        clean_up: Callable[[Path], None],
        measure: Callable[[Path], Usage | None],
        patience: Patience = PATIENCE,
    ) -> None:
        self.run_id = run_order.run_id
        self.spool = run_order.folder / control.SPOOL
        self.started_at: float | None = None
        self.detail = ""
        self.on_detail: Callable[[], None] = lambda: None
        self._run_order = run_order
        self._folder = run_order.folder
        self._on_end = on_end
        self._clean_up = clean_up
        self._measure = measure
        self._patience = patience
        self._end: RunEnd | None = None
        self._connection: socket.socket | None = None
        self._launching: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._order: bytes = b""
        self._mark = ""  # tells its supervisor's processes from all others
        self._overdue: asyncio.TimerHandle | None = None
        self._killing: asyncio.Task[None] | None = None
        self._forced: EndReason | None = None  # why the server ended it by itself
        self._bury: Callable[[], None] = lambda: None
        self._hand_over_again: Callable[[], None] | None = None
        self._hand_overs_left = MAX_HAND_OVERS - 1
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._changed = asyncio.Event()  # set once and replaced: wakes all waiters

    @property
    def is_abandoned(self) -> bool:
        """True if the run ended without its supervisor's doing."""
        return self._end is not None and (self._end.reason == "lost" or self._forced is not None)

    # What the service sees.

    async def ended(self) -> RunEnd:
        await self._over.wait()
        assert self._end is not None
        return self._end

    async def started(self) -> None:
        await self._begun.wait()

    async def grown(self, offset: int) -> None:
        while self._end is None:
            changed = self._changed
            if _size(self.spool) > offset:
                return
            await changed.wait()

    async def usage(self) -> Usage | None:
        if self.started_at is None or self._end is not None:
            return None
        return await asyncio.to_thread(self._measure, self._folder)

    async def kill(self) -> None:
        self._give(control.KILL)
        self._expect_end(self._patience.end_s, "aborted")

    async def stop(self) -> None:
        self._give(control.STOP)
        self._expect_end(self._run_order.stop_grace_s + self._patience.end_s, "stopped")

    # What the runner does.

    def launch(self, steps: Coroutine[Any, Any, None]) -> None:
        """Carry out, in the background, the steps that lead to a program."""

        async def carry_out() -> None:
            try:
                await steps
            except Refusal as exc:
                if exc.output:
                    report(self._run_order, exc.output)
                self._finish(_unstarted("refused", str(exc)))
            except EngineUnavailable as exc:  # it was there when the run was accepted
                self._finish(_unstarted("lost", str(exc)))
            except OSError as exc:
                why = reason(exc, self._folder)
                self._finish(_unstarted("lost", f"the run could not be started: {why}"))
            except Exception:  # the top of a task: the run has to end
                logger.exception("run %s failed while it was prepared", self.run_id)
                sentence = "the server failed while it prepared the run; its log says why"
                self._finish(_unstarted("lost", sentence))

        def on_done(task: asyncio.Task[None]) -> None:
            steps.close()
            if task.cancelled() and self._order:
                word = "aborted" if self._order == control.KILL else "stopped"
                self._finish(_unstarted(word, f"the run was {word} before it began"))

        self._launching = self._in_background(carry_out())
        # Not inside the task: an order may come before it has taken its first step.
        self._launching.add_done_callback(on_done)

    def follow(
        self,
        connection: socket.socket,
        mark: str,
        bury: Callable[[], None] = lambda: None,
        hand_over_again: Callable[[], None] | None = None,
    ) -> None:
        """Listen to the run's supervisor until it ends.

        Args:
            mark: the value of `control.SUPERVISOR_ID` in all its processes.
            bury: called at its end, if the supervisor is our child.
            hand_over_again: called if it died before it had begun anything.
        """
        self._connection = connection
        self._mark = mark
        self._bury = bury
        self._hand_over_again = hand_over_again
        asyncio.get_running_loop().add_reader(connection, self._hear)
        self._expect_end(self._patience.start_s, "lost")

    async def recover(self) -> bool:
        """Take up a run that an earlier server handed over; return False if none did."""
        if await self._as_soon_as_possible(self._take_up):
            return True
        remove_assignment(self._folder)  # the next hand-over writes another
        return False

    async def _take_up(self) -> bool:
        try:
            lock = os.open(self._folder / control.LOCK, os.O_RDWR)
        except OSError as exc:
            if exc.errno in SHORTAGES:
                raise
            if not wrote_anything(self._folder):
                return False
            # The program has taken the lock away, and its supervisor may live.
            await self._conclude(_OUT_OF_REACH)
            return True
        try:
            if control.is_held(lock):
                try:
                    connection = control.connect(self._folder)
                except OSError as exc:
                    if exc.errno in SHORTAGES:
                        raise
                    # It is just ending, and the lock is free in a moment; or the program has taken
                    # the socket away, or the supervisor hangs.
                    if not isinstance(exc, ConnectionRefusedError) or not await _is_freed(lock):
                        await self._conclude(_OUT_OF_REACH)
                        return True
                else:
                    self.follow(connection, facts_or_none(self._folder).get("id", ""))
                    return True
        finally:
            os.close(lock)
        if not wrote_anything(self._folder):
            return False  # handed over, but it died before the program began
        await self._conclude()
        return True

    async def leave(self) -> None:
        """Let go of the run."""
        if self._connection is not None:
            self._stop_following()
        tasks = [task for task in (self._launching, self._ending, self._killing) if task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)  # what they raise is logged

    # Underneath.

    def _give(self, order: bytes) -> None:
        if self._end is not None:
            return
        self._order = order
        if self._connection is not None:
            # A supervisor that has just gone needs no orders; _hear() will notice. A full buffer
            # holds orders enough.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
                self._connection.send(order)
        elif self._launching is not None:
            self._launching.cancel()

    def _hear(self) -> None:
        assert self._connection is not None
        try:
            notices = self._connection.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionResetError:
            notices = b""
        if not notices:
            self._leave_supervisor()
            return
        if control.STARTED in notices and not self._begun.is_set():
            # The program may have taken the file away by now, or written another.
            self._begin(moment(facts_or_none(self._folder).get("started_at")) or time.time())
        if control.DETAIL in notices:
            self._read_detail()
            self.on_detail()
        self._wake()

    def _begin(self, started_at: float) -> None:
        self.started_at = started_at
        self._read_detail()
        self._begun.set()
        if not self._order:
            self._forget_due()
        # From now on, also for a run that was found again: the clock may have been set meanwhile.
        limit_s = self._run_order.request.timeout + self._run_order.stop_grace_s
        self._expect_end(limit_s + self._patience.end_s, "timeout")

    def _read_detail(self) -> None:
        self.detail = str(facts_or_none(self._folder, control.DETAIL_FILE).get("detail", ""))

    def _stop_following(self) -> None:
        assert self._connection is not None
        self._forget_due()
        asyncio.get_running_loop().remove_reader(self._connection)
        self._connection.close()
        self._connection = None

    def _leave_supervisor(self) -> None:
        """Begin the end of a run whose supervisor is gone, or cannot be killed."""
        self._stop_following()
        self._bury()
        self._ending = self._in_background(self._end_in_any_case())

    # A supervisor that does not do its work.

    def _expect_end(self, within_s: float, reason: EndReason) -> None:
        """End the run by force if it is not over by then, unless that is due earlier."""
        if self._connection is None:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + within_s
        if self._overdue is None or due < self._overdue.when():
            self._forget_due()
            self._overdue = loop.call_at(due, self._force, reason)

    def _forget_due(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _force(self, reason: EndReason) -> None:
        started_at = moment(facts_or_none(self._folder).get("started_at"))
        if reason == "lost" and started_at is not None and not self._begun.is_set():
            # It was stopped in the moment between the program's beginning and its notice of that.
            self._overdue = None
            self._begin(started_at)
            self._wake()
            return
        logger.error("the supervisor of run %s hangs, and is killed", self.run_id)
        if reason != "lost":
            self._forced = reason
        self._killing = self._in_background(
            asyncio.to_thread(kill_marked, control.SUPERVISOR_ID, self._mark)
        )
        # Its socket tells when it is gone; if it does not, the run ends all the same.
        self._overdue = asyncio.get_running_loop().call_later(_KILLED_S, self._leave_supervisor)

    # The end.

    async def _end_in_any_case(self) -> None:
        try:
            await self._after_supervisor()
        except Exception:  # the top of a task: the run has to end
            logger.exception("the end of run %s could not be read", self.run_id)
            sentence = "the server failed while it looked for the run's end; its log says why"
            self._finish(_unstarted("lost", sentence))

    async def _after_supervisor(self) -> None:
        if (
            self._hand_over_again is not None
            and self._hand_overs_left
            and not self._order
            and is_untouched(self._folder)
        ):
            # It was killed after it had been handed the run, and before it had read the
            # assignment: another one gets the run.
            self._hand_overs_left -= 1
            try:
                await self._as_soon_as_possible(_at_once(self._hand_over_again))
            except OSError as exc:
                why = reason(exc, self._folder)
                self._finish(_unstarted("lost", f"the run could not be started: {why}"))
            return
        await self._conclude()

    async def _conclude(self, loss: str = "the run's supervisor died") -> None:
        """Read how the run ended, after its supervisor is gone.

        Args:
            loss: the sentence for a run whose end is not written down.
        """
        read = _at_once(lambda: read_end(self._folder))
        end = await self._as_soon_as_possible(read)
        if end is None:
            bury = functools.partial(asyncio.to_thread, self._bury_lost_run, loss)
            end = await self._as_soon_as_possible(bury)
        self.started_at = end.started_at
        self._finish(end)

    def _bury_lost_run(self, loss: str) -> RunEnd:
        """End what is left of a run whose supervisor died; write and return its end."""
        started_at = moment(facts_or_none(self._folder).get("started_at")) or self.started_at
        if self._mark:
            kill_marked(control.SUPERVISOR_ID, self._mark)
        self._clean_up(self._folder)
        reason, error = self._forced or "lost", loss
        if not self._folder.is_dir():
            error = "the run's folder cannot be used: it was removed while the run went on"
        if self._forced is not None:
            error = f"{control.order_sentence(self._forced)}, and its supervisor hung"
        end = RunEnd(reason, None, error, started_at, time.time())
        # The program may have taken the whole folder away, or the disk is full: the record gets
        # the end all the same.
        with contextlib.suppress(OSError):
            control.write_json(self._folder / control.END, vars(end))
        return end

    async def _as_soon_as_possible(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Return what `work` gives, repeating it while the machine lacks something for it."""
        while True:
            try:
                return await work()
            except OSError as exc:
                if exc.errno not in SHORTAGES:
                    raise
                # One entry for all runs that wait.
                logger.error("the ends of runs cannot be read: %s", exc.strerror)
            await asyncio.sleep(RETRY_S)

    def _in_background(self, steps: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(steps, name=f"run {self.run_id}")
        task.add_done_callback(log_failure)
        return task

    def _finish(self, end: RunEnd) -> None:
        remove_assignment(self._folder)
        self._end = end
        self._forget_due()
        self._begun.set()
        self._over.set()
        self._wake()
        self._on_end(self)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _at_once(work: Callable[[], _T]) -> Callable[[], Awaitable[_T]]:
    async def at_once() -> _T:
        return work()

    return at_once


def _unstarted(reason: Any, error: str) -> RunEnd:
    return RunEnd(reason, None, error, started_at=None, finished_at=time.time())


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


async def _is_freed(lock: int) -> bool:
    """Return whether a lock is given back within `_ENDING_S`."""
    until = time.monotonic() + _ENDING_S
    while control.is_held(lock):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(_LOOK_S)
    return True
