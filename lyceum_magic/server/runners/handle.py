"""The server's end of a run that belongs to a supervisor: a `RunHandle` over the run's folder.

The supervisor is a process of its own that outlives the server: `process.supervisor` for Python programs,
`engine.supervisor` for containers and stacks. Both take a run over the same way, tell of it and
obey by single bytes on the same socket, and leave the same files behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import json
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import psutil

from ...disks import reason
from ..output.spool import SpoolWriter
from ..regular_files import read_regular
from ..tasks import log_failure
from .base import EndReason, EngineUnavailable, Refusal, RunEnd, RunSpec, Usage
from .pool import Interpreter
from .process.supervisor import DETAIL, DETAIL_FILE, KILL, STARTED, STOP, SUPERVISOR_ID, write_json

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

#: How many interpreters may die over one run before it is given up.
MAX_HAND_OVERS = 3

_NOTE_FILE = "note"

#: What the machine lacks for a while. It says nothing about the run, and passes.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
#: The pause before another attempt at what such a shortage has prevented.
RETRY_S = 0.5
#: How long a supervisor that was killed may take to be gone.
_KILLED_S = 10.0
#: How long a supervisor that closed its socket may take to be gone.
_ENDING_S = 10.0
_LOOK_S = 0.02
_MOST_ROUNDS = 500


@dataclass(frozen=True)
class Patience:
    """How long the server waits for a supervisor before it ends the run itself. In seconds.

    A supervisor that was stopped, or hangs, would keep its run going for ever.

    Attributes:
        start_s: for the program to begin, once the run was handed over.
        end_s: for the end, once the run was to be over: by its limit and its grace, or by an order.
    """

    start_s: float
    end_s: float


PATIENCE = Patience(start_s=120.0, end_s=10.0)


_OUT_OF_REACH = "the supervisor of the run can no longer be reached"
_FORCED = {
    "timeout": "the run exceeded its time limit",
    "aborted": "the run was aborted",
    "stopped": "the run was stopped",
}


class SupervisedRun:
    """A run that belongs to a supervisor; see `RunHandle`.

    Args:
        on_end: told of the end, once.
        clean_up: takes away what a supervisor that died left running, given the run's folder; it
            is called on a thread.
        measure: what a run uses now, given its folder; it is called on a thread.
        patience: with its supervisor.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        on_end: Callable[[SupervisedRun], None],
        clean_up: Callable[[Path], None],
        measure: Callable[[Path], Usage | None],
        patience: Patience = PATIENCE,
    ) -> None:
        self.run_id = spec.run_id
        self.spool = spec.folder / "spool"
        self.started_at: float | None = None
        self.detail = ""
        self.on_detail: Callable[[], None] = lambda: None
        self._spec = spec
        self._folder = spec.folder
        self._on_end = on_end
        self._clean_up = clean_up
        self._measure = measure
        self._patience = patience
        self._end: RunEnd | None = None
        self._control: socket.socket | None = None
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
        self._changed = asyncio.Event()  # set once and replaced: wakes all who wait

    @property
    def is_abandoned(self) -> bool:
        """Whether its supervisor did not see to its end."""
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
        self._give(KILL)
        self._expect_end(self._patience.end_s, "aborted")

    async def stop(self) -> None:
        self._give(STOP)
        self._expect_end(self._spec.stop_grace_s + self._patience.end_s, "stopped")

    # What the runner does.

    def launch(self, steps: Coroutine[Any, Any, None]) -> None:
        """Carries out the steps that lead to a program, in the background."""

        async def carry_out() -> None:
            try:
                await steps
            except Refusal as exc:
                if exc.output:
                    report(self._spec, exc.output)
                self._finish(_unstarted("refused", str(exc)))
            except EngineUnavailable as exc:  # it was there when the run was accepted
                self._finish(_unstarted("lost", str(exc)))
            except OSError as exc:
                why = reason(exc, self._folder)
                self._finish(_unstarted("lost", f"the run could not be started: {why}"))
            except Exception:  # the top of a task: nobody may wait for the run for ever
                logger.exception("run %s failed while it was prepared", self.run_id)
                sentence = "the server failed while it prepared the run; its log says why"
                self._finish(_unstarted("lost", sentence))

        def on_done(task: asyncio.Task[None]) -> None:
            steps.close()
            if task.cancelled() and self._order:
                word = "aborted" if self._order == KILL else "stopped"
                self._finish(_unstarted(word, f"the run was {word} before it began"))

        self._launching = self._in_background(carry_out())
        # Not inside the task: an order may come before it has taken its first step.
        self._launching.add_done_callback(on_done)

    def follow(
        self,
        control: socket.socket,
        mark: str,
        bury: Callable[[], None] = lambda: None,
        hand_over_again: Callable[[], None] | None = None,
    ) -> None:
        """Listens to the run's supervisor until it ends.

        Args:
            mark: what all its processes have as SUPERVISOR_ID.
            bury: called then, if the supervisor is our child.
            hand_over_again: called where it died before it had begun anything.
        """
        self._control = control
        self._mark = mark
        self._bury = bury
        self._hand_over_again = hand_over_again
        asyncio.get_running_loop().add_reader(control, self._hear)
        self._expect_end(self._patience.start_s, "lost")

    async def recover(self) -> bool:
        """Takes up a run that an earlier server handed over; False where none did."""
        if await self._as_soon_as_possible(self._take_up):
            return True
        # It holds secrets, and the next hand-over writes it anew.
        with contextlib.suppress(OSError):
            (self._folder / "assignment.json").unlink(missing_ok=True)
        return False

    async def _take_up(self) -> bool:
        try:
            lock = os.open(self._folder / "lock", os.O_RDWR)
        except OSError as exc:
            if exc.errno in SHORTAGES:
                raise
            if not _wrote_anything(self._folder):
                return False
            # The program has taken the lock away, and its supervisor may live.
            await self._conclude(_OUT_OF_REACH)
            return True
        try:
            if _is_held(lock):
                try:
                    control = _connect(self._folder)
                except OSError as exc:
                    if exc.errno in SHORTAGES:
                        raise
                    # It is just ending, and the lock is free in a moment; or the program has taken
                    # the socket away, or the supervisor hangs.
                    if not isinstance(exc, ConnectionRefusedError) or not await _is_freed(lock):
                        await self._conclude(_OUT_OF_REACH)
                        return True
                else:
                    self.follow(control, _facts(self._folder).get("id", ""))
                    return True
        finally:
            os.close(lock)
        if not _wrote_anything(self._folder):
            return False  # handed over, but it died before the program began
        await self._conclude()
        return True

    async def leave(self) -> None:
        """Lets go of the run."""
        if self._control is not None:
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
        if self._control is not None:
            # A supervisor that has just gone needs no orders; _hear() will notice. One that does
            # not read has orders enough.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
                self._control.send(order)
        elif self._launching is not None:
            self._launching.cancel()

    def _hear(self) -> None:
        assert self._control is not None
        try:
            notices = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionResetError:
            notices = b""
        if not notices:
            self._leave_supervisor()
            return
        if STARTED in notices and not self._begun.is_set():
            # The program may have taken the file away by now, or written another.
            self._begin(_moment(_facts(self._folder).get("started_at")) or time.time())
        if DETAIL in notices:
            self._read_detail()
            self.on_detail()
        self._wake()

    def _begin(self, started_at: float) -> None:
        self.started_at = started_at
        self._read_detail()
        self._begun.set()
        if not self._order:
            self._forget_due()
        # From now on, also for a run that was found again: no clock is trusted that may have been
        # set in between.
        limit_s = self._spec.request.timeout + self._spec.stop_grace_s
        self._expect_end(limit_s + self._patience.end_s, "timeout")

    def _read_detail(self) -> None:
        self.detail = str(_facts(self._folder, DETAIL_FILE).get("detail", ""))

    def _stop_following(self) -> None:
        assert self._control is not None
        self._forget_due()
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None

    def _leave_supervisor(self) -> None:
        """Sees to the end of a run whose supervisor is gone, or as good as gone."""
        self._stop_following()
        self._bury()
        self._ending = self._in_background(self._end_in_any_case())

    # A supervisor that does not do its work.

    def _expect_end(self, within_s: float, reason: EndReason) -> None:
        """Ends the run by force if it is not over by then, unless that is due before."""
        if self._control is None:
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
        started_at = _moment(_facts(self._folder).get("started_at"))
        if reason == "lost" and started_at is not None and not self._begun.is_set():
            # It was stopped in the moment between the program's beginning and the word of it.
            self._overdue = None
            self._begin(started_at)
            self._wake()
            return
        logger.error("the supervisor of run %s hangs, and is killed", self.run_id)
        if reason != "lost":
            self._forced = reason
        self._killing = self._in_background(
            asyncio.to_thread(kill_marked, SUPERVISOR_ID, self._mark)
        )
        # Its socket tells when it is gone; if it does not, the run ends all the same.
        self._overdue = asyncio.get_running_loop().call_later(_KILLED_S, self._leave_supervisor)

    # The end.

    async def _end_in_any_case(self) -> None:
        try:
            await self._after_supervisor()
        except Exception:  # the top of a task: nobody may wait for the run for ever
            logger.exception("the end of run %s could not be read", self.run_id)
            sentence = "the server failed while it looked for the run's end; its log says why"
            self._finish(_unstarted("lost", sentence))

    async def _after_supervisor(self) -> None:
        if (
            self._hand_over_again is not None
            and self._hand_overs_left
            and not self._order
            and _is_untouched(self._folder)
        ):
            # It was killed while it waited, after it had been handed the run and before it had
            # looked at it: another one shall have it.
            self._hand_overs_left -= 1
            with contextlib.suppress(OSError):
                await self._as_soon_as_possible(_at_once(self._hand_over_again))
                return
        await self._conclude()

    async def _conclude(self, loss: str = "the run's supervisor died") -> None:
        """Reads how the run ended, once its supervisor is gone.

        Args:
            loss: the sentence for a run whose end nobody has written down.
        """
        read = _at_once(lambda: read_end(self._folder))
        end = await self._as_soon_as_possible(read)
        if end is None:
            bury = functools.partial(asyncio.to_thread, self._bury_lost_run, loss)
            end = await self._as_soon_as_possible(bury)
        self.started_at = end.started_at
        self._finish(end)

    def _bury_lost_run(self, loss: str) -> RunEnd:
        """Ends what is left of a run whose supervisor died, and writes its end in its place."""
        started_at = _moment(_facts(self._folder).get("started_at")) or self.started_at
        if self._mark:
            kill_marked(SUPERVISOR_ID, self._mark)
        self._clean_up(self._folder)
        reason, error = self._forced or "lost", loss
        if not self._folder.is_dir():
            error = "the run's folder cannot be used: it was removed while the run went on"
        if self._forced is not None:
            error = f"{_FORCED[self._forced]}, and its supervisor hung"
        end = RunEnd(reason, None, error, started_at, time.time())
        # The program may have taken the whole folder away, or the disk takes nothing: the record
        # has it all the same.
        with contextlib.suppress(OSError):
            write_json(self._folder / "exit.json", vars(end))
        return end

    async def _as_soon_as_possible(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """What `work` gives, repeated as long as the machine lacks something for it."""
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
        # Holds secrets, and is still there where no supervisor came to read it.
        with contextlib.suppress(OSError):
            (self._folder / "assignment.json").unlink(missing_ok=True)
        self._end = end
        self._forget_due()
        self._begun.set()
        self._over.set()
        self._wake()
        self._on_end(self)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def hand_over(
    spec: RunSpec,
    run: SupervisedRun,
    take: Callable[[], Interpreter],
    bury: Callable[[Interpreter], None],
) -> None:
    """Gives a prepared run to an interpreter that becomes its supervisor, and follows that one.

    Args:
        take: gives an interpreter that waits for a run.
        bury: called with each one that has died.
    """
    with _locked(spec.folder) as lock, _listening(spec.folder) as listener:
        while True:
            interpreter = take()
            try:
                interpreter.hand_over(spec.folder, lock, listener)
            except (BrokenPipeError, ConnectionResetError):
                bury(interpreter)  # it died while it waited
            else:
                break
    run.follow(
        interpreter.control,
        interpreter.mark,
        bury=lambda: bury(interpreter),
        hand_over_again=lambda: hand_over(spec, run, take, bury),
    )


def report(spec: RunSpec, text: bytes) -> None:
    """Adds to the run's stderr, before there is a supervisor that does it."""
    spool = SpoolWriter(spec.folder / "spool", secrets=spec.environment.values())
    spool.append("stderr", time.time(), text)
    spool.flush(time.time())
    spool.close()


def note(spec: RunSpec, phrase: str) -> None:
    """Says something that is so for the whole run, beside its state."""
    (spec.folder / _NOTE_FILE).write_text(phrase, encoding="utf-8")


def read_note(folder: Path) -> str:
    """The note of the run in `folder`; empty where it has none."""
    try:
        return (folder / _NOTE_FILE).read_text(encoding="utf-8")
    except OSError:  # most have none, and the folders of old runs are gone
        return ""


def kill_marked(variable: str, value: str) -> None:
    """Kills all processes whose environment holds this variable, until there are none.

    Except for those that not even that ends, as they wait for a disk.
    """
    for _ in range(_MOST_ROUNDS):
        found = False
        for process in psutil.process_iter():
            # Other users' processes do not show their environment, and are not ours to kill.
            with contextlib.suppress(psutil.Error):
                if process.environ().get(variable) == value:
                    process.kill()
                    found = True
        if not found:
            return


def read_facts(folder: Path, name: str = "supervisor.json") -> dict[str, Any]:
    """What a supervisor wrote into a file, by default as its program began; else an empty object.

    The program can have written anything in its place.

    Raises:
        OSError: the machine lacks something to read it.
    """
    try:
        facts = json.loads(read_regular(folder / name))
    except (ValueError, RecursionError):
        return {}
    except OSError as exc:
        if exc.errno in SHORTAGES:
            raise
        return {}
    return facts if isinstance(facts, dict) else {}


def read_end(folder: Path) -> RunEnd | None:
    """How a run ended; None where nobody has written it down, or the program has replaced it.

    Raises:
        OSError: the machine lacks something to read it.
    """
    try:
        end = RunEnd(**json.loads(read_regular(folder / "exit.json")))
    except (ValueError, TypeError, RecursionError):
        return None
    except OSError as exc:
        if exc.errno in SHORTAGES:
            raise
        return None
    is_sound = (
        end.reason in get_args(EndReason)
        and (end.return_code is None or type(end.return_code) is int)
        and isinstance(end.error, str)
        and (end.started_at is None or _moment(end.started_at) is not None)
        and _moment(end.finished_at) is not None
    )
    return end if is_sound else None


def _facts(folder: Path, name: str = "supervisor.json") -> dict[str, Any]:
    """The same, empty also where it cannot be read now: nothing depends on it."""
    try:
        return read_facts(folder, name)
    except OSError:
        return {}


def _moment(value: object) -> float | None:
    """A time in seconds since 1970; None for what is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e11 else None  # type: ignore[arg-type, operator]


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


# --- finding supervisors ---------------------------------------------------------------------


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """A locked file: locked for as long as anybody has this descriptor or a copy of it."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def is_supervised(folder: Path) -> bool:
    """Whether a supervisor has the run in `folder`."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return _is_held(lock)
    finally:
        os.close(lock)


def _is_held(lock: int) -> bool:
    try:
        # Shared: others who only look, at the same moment, are no supervisors.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


async def _is_freed(lock: int) -> bool:
    """Whether a lock is given back within `_ENDING_S`."""
    until = time.monotonic() + _ENDING_S
    while _is_held(lock):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


@contextlib.contextmanager
def _listening(folder: Path) -> Iterator[socket.socket]:
    """The socket on which the supervisor will await later servers."""
    with socket.socket(socket.AF_UNIX) as listener, _short_path(folder) as short:
        (folder / "control.sock").unlink(missing_ok=True)
        listener.bind(f"{short}/control.sock")
        listener.listen()
        yield listener


def _connect(folder: Path) -> socket.socket:
    control = socket.socket(socket.AF_UNIX)
    try:
        control.setblocking(False)  # a supervisor that hangs would keep us waiting
        with _short_path(folder) as short:
            control.connect(f"{short}/control.sock")
    except BaseException:
        control.close()
        raise
    return control


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """Another path of `folder`: a socket's address has room for about 100 characters."""
    if sys.platform == "linux":
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory(dir="/tmp") as parent:
            link = os.path.join(parent, "run")
            os.symlink(folder, link)
            yield link


def _is_untouched(folder: Path) -> bool:
    return os.path.exists(folder / "assignment.json") and not _wrote_anything(folder)


def _wrote_anything(folder: Path) -> bool:
    return any(os.path.exists(folder / name) for name in ("supervisor.json", "exit.json"))
