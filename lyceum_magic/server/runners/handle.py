"""The server's end of a run that belongs to a supervisor: a `RunHandle` over the run's folder.

The supervisor is a process of its own that outlives the server: `supervisor` for Python programs,
`engine_supervisor` for containers and stacks. Both take a run over the same way, tell of it and
obey by single bytes on the same socket, and leave the same files behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil

from ..spool import SpoolWriter
from .base import EngineUnavailable, Refusal, RunEnd, RunSpec, Usage
from .pool import Interpreter
from .supervisor import DETAIL, DETAIL_FILE, KILL, STARTED, STOP, write_json

logger = logging.getLogger(__name__)

#: How many interpreters may die over one run before it is given up.
MAX_HAND_OVERS = 3


class SupervisedRun:
    """A run that belongs to a supervisor; see `RunHandle`.

    Args:
        on_end: told of the end, once.
        clean_up: takes away what a supervisor that died left running, given the run's folder; it
            is called on a thread.
        measure: what a run uses now, given its folder; it is called on a thread.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        on_end: Callable[[SupervisedRun], None],
        clean_up: Callable[[Path], None],
        measure: Callable[[Path], Usage | None],
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
        self._end: RunEnd | None = None
        self._control: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._order: bytes = b""
        self._bury: Callable[[], None] = lambda: None
        self._hand_over_again: Callable[[], None] | None = None
        self._hand_overs_left = MAX_HAND_OVERS - 1
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._changed = asyncio.Event()  # set once and replaced: wakes all who wait

    @property
    def is_lost(self) -> bool:
        """Whether the platform failed it."""
        return self._end is not None and self._end.reason == "lost"

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

    async def stop(self) -> None:
        self._give(STOP)

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
                reason = exc.strerror or type(exc).__name__
                self._finish(_unstarted("lost", f"the run could not be started: {reason}"))
            except Exception:  # the top of a task: nobody may wait for the run for ever
                logger.exception("run %s failed while it was prepared", self.run_id)
                sentence = "the server failed while it prepared the run; its log says why"
                self._finish(_unstarted("lost", sentence))

        def on_done(task: asyncio.Task[None]) -> None:
            steps.close()
            if task.cancelled() and self._order:
                word = "aborted" if self._order == KILL else "stopped"
                self._finish(_unstarted(word, f"the run was {word} before it began"))

        self._task = asyncio.get_running_loop().create_task(carry_out())
        # Not inside the task: an order may come before it has taken its first step.
        self._task.add_done_callback(on_done)

    def follow(
        self,
        control: socket.socket,
        bury: Callable[[], None] = lambda: None,
        hand_over_again: Callable[[], None] | None = None,
    ) -> None:
        """Listens to the run's supervisor until it ends.

        Args:
            bury: called then, if the supervisor is our child.
            hand_over_again: called where it died before it had begun anything.
        """
        self._control = control
        self._bury = bury
        self._hand_over_again = hand_over_again
        asyncio.get_running_loop().add_reader(control, self._hear)

    async def recover(self) -> bool:
        """Takes up a run that an earlier server handed over; False where none did."""
        if await self._take_up():
            return True
        # It holds secrets, and the next hand-over writes it anew.
        with contextlib.suppress(OSError):
            (self._folder / "assignment.json").unlink(missing_ok=True)
        return False

    async def _take_up(self) -> bool:
        try:
            lock = os.open(self._folder / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            if _is_held(lock):
                try:
                    control = _connect(self._folder)
                except FileNotFoundError:  # the program has taken the socket away
                    await self._conclude("nobody can reach the run's supervisor any more")
                    return True
                except ConnectionRefusedError:
                    # It is just ending: the lock is free in a moment.
                    await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
                else:
                    self.follow(control)
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
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # Underneath.

    def _give(self, order: bytes) -> None:
        if self._end is not None:
            return
        self._order = order
        if self._control is not None:
            # A supervisor that has just gone needs no orders; _hear() will notice.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._control.send(order)
        elif self._task is not None:
            self._task.cancel()

    def _hear(self) -> None:
        assert self._control is not None
        try:
            notices = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionResetError:
            notices = b""
        if not notices:
            self._stop_following()
            self._bury()
            self._task = asyncio.get_running_loop().create_task(self._after_supervisor())
            return
        if STARTED in notices and not self._begun.is_set():
            try:
                self.started_at = read_json(self._folder / "supervisor.json")["started_at"]
            except FileNotFoundError:  # the program has already taken the whole folder away
                self.started_at = time.time()
            self._read_detail()
            self._begun.set()
        if DETAIL in notices:
            self._read_detail()
            self.on_detail()
        self._wake()

    def _read_detail(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.detail = str(read_json(self._folder / DETAIL_FILE)["detail"])

    def _stop_following(self) -> None:
        assert self._control is not None
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None

    async def _after_supervisor(self) -> None:
        if (
            self._hand_over_again is not None
            and self._hand_overs_left
            and not self._order
            and (self._folder / "assignment.json").exists()
            and not _wrote_anything(self._folder)
        ):
            # It was killed while it waited, after it had been handed the run and before it had
            # looked at it: another one shall have it.
            self._hand_overs_left -= 1
            with contextlib.suppress(OSError):
                self._hand_over_again()
                return
        await self._conclude()

    async def _conclude(self, loss: str = "the run's supervisor died") -> None:
        """Reads how the run ended, once its supervisor is gone.

        Args:
            loss: the sentence for a run whose end nobody has written down.
        """
        try:
            end = RunEnd(**read_json(self._folder / "exit.json"))
        except FileNotFoundError:
            try:
                end = await asyncio.to_thread(self._bury_lost_run, loss)
            except OSError as exc:  # the program took the whole folder away, or the disk is gone
                end = _unstarted("lost", f"the run's folder cannot be used: {exc.strerror}")
        self.started_at = end.started_at
        self._finish(end)

    def _bury_lost_run(self, loss: str) -> RunEnd:
        """Ends what is left of a run whose supervisor died, and writes its end in its place."""
        started_at = None
        with contextlib.suppress(FileNotFoundError):  # it died before the program began
            started_at = read_json(self._folder / "supervisor.json")["started_at"]
        self._clean_up(self._folder)
        end = RunEnd("lost", None, loss, started_at, time.time())
        write_json(self._folder / "exit.json", vars(end))
        return end

    def _finish(self, end: RunEnd) -> None:
        # Holds secrets, and is still there where no supervisor came to read it.
        with contextlib.suppress(OSError):
            (self._folder / "assignment.json").unlink(missing_ok=True)
        self._end = end
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
        bury=lambda: bury(interpreter),
        hand_over_again=lambda: hand_over(spec, run, take, bury),
    )


def report(spec: RunSpec, text: bytes) -> None:
    """Adds to the run's stderr, before there is a supervisor that does it."""
    spool = SpoolWriter(spec.folder / "spool", secrets=spec.environment.values())
    spool.append("stderr", time.time(), text)
    spool.flush(time.time())
    spool.close()


def kill_marked(variable: str, value: str) -> None:
    """Kills all processes whose environment holds this variable, until there are none."""
    found = True
    while found:
        found = False
        for process in psutil.process_iter():
            # Other users' processes do not show their environment, and are not ours to kill.
            with contextlib.suppress(psutil.Error):
                if process.environ().get(variable) == value:
                    process.kill()
                    found = True


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small file that was written by `write_json`."""
    value: dict[str, Any] = json.loads(path.read_bytes())
    return value


def _unstarted(reason: Any, error: str) -> RunEnd:
    return RunEnd(reason, None, error, started_at=None, finished_at=time.time())


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
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
        with _short_path(folder) as short:
            control.connect(f"{short}/control.sock")
    except BaseException:
        control.close()
        raise
    control.setblocking(False)
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


def _wrote_anything(folder: Path) -> bool:
    return (folder / "supervisor.json").exists() or (folder / "exit.json").exists()
