"""Interpreters that wait, so that a run need not wait for one to start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...variables import for_supervisor
from ..descriptors import inherited_limit
from ..tasks import log_failure
from .control import SUPERVISOR_ID

logger = logging.getLogger(__name__)

#: A new interpreter starts only then, so that it does not slow down a short run.
REFILL_DELAY_S = 0.05


@dataclass(frozen=True, eq=False)
class Interpreter:
    """A waiting interpreter, later a supervisor. Its control socket ends when it dies.

    Attributes:
        mark: what it and all that it starts have as SUPERVISOR_ID.
    """

    pid: int
    control: socket.socket
    mark: str

    def hand_over(self, folder: Path, lock: int, listener: socket.socket) -> None:
        """Give it the run whose assignment lies in `folder`; see `control`.

        A few bytes into an empty socket: they are sent as a whole, and at once.

        Raises:
            BrokenPipeError, ConnectionResetError: it has died.
        """
        socket.send_fds(self.control, [os.fsencode(folder)], [lock, listener.fileno()])

    async def buried(self) -> None:
        """Wait until the process is gone from the process table; it must be dying."""
        await asyncio.to_thread(os.waitpid, self.pid, 0)


def spawn_interpreter(
    module: str = "process.supervisor",
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Interpreter:
    """Start a process that waits for a run.

    Args:
        module: the supervisor's, below `runners`, such as `process.supervisor` or `compose.work`.
        environment: variables to add for it.
        arguments: of its command line, after the number of descriptors that it may have.
    """
    mark = uuid.uuid4().hex
    ours, theirs = socket.socketpair()
    variables = for_supervisor() | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        SUPERVISOR_ID: mark,
        **(environment or {}),
    }
    with theirs, contextlib.ExitStack() as undo:
        undo.enter_context(ours)
        pid = os.posix_spawn(
            sys.executable,
            # -P: nothing of the server's working directory may shadow the standard library.
            [
                *(sys.executable, "-P", "-m", f"lyceum_magic.server.runners.{module}"),
                str(inherited_limit()),
                *arguments,
            ],
            variables,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_RDWR, 0),
            ],
            setsid=True,
            # A server in the background may ignore these; its programs must not.
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
            setsigmask=(),
        )
        undo.pop_all()
    ours.setblocking(False)
    return Interpreter(pid, ours, mark)


class InterpreterPool:
    """A pool that keeps `size` interpreters waiting, and replaces those that leave or die.

    To be used in one event loop. `module`, `environment` and `arguments` are those of
    `spawn_interpreter`.
    """

    def __init__(
        self,
        *,
        size: int = 2,
        module: str = "process.supervisor",
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self._size = size
        self._module = module
        self._environment = environment
        self._arguments = arguments
        self._waiting: list[Interpreter] = []
        self._burials: set[asyncio.Task[None]] = set()
        self._refill_due: asyncio.TimerHandle | None = None

    def refill(self) -> None:
        """Start what is missing.

        If the machine lacks something for it, the next `take` tries again.
        """
        self._refill_due = None
        while len(self._waiting) < self._size:
            try:
                interpreter = self._spawn()
            except OSError as exc:
                logger.error("no interpreter can be started ahead of need: %s", exc.strerror)
                return
            self._waiting.append(interpreter)
            # One that waits never sends anything: it is readable when it has died.
            asyncio.get_running_loop().add_reader(interpreter.control, self._on_death, interpreter)

    def take(self) -> Interpreter:
        """Return an interpreter, the longest waiting first; a new one if none waits."""
        loop = asyncio.get_running_loop()
        if self._refill_due is None:
            self._refill_due = loop.call_later(REFILL_DELAY_S, self.refill)
        if not self._waiting:
            return self._spawn()
        interpreter = self._waiting.pop(0)
        loop.remove_reader(interpreter.control)
        return interpreter

    async def close(self) -> None:
        """End those that wait."""
        if self._refill_due:
            self._refill_due.cancel()
        for interpreter in self._waiting:
            asyncio.get_running_loop().remove_reader(interpreter.control)
            self.bury(interpreter)
        self._waiting.clear()
        if self._burials:
            await asyncio.wait(self._burials)  # what they raise is logged

    def bury(self, interpreter: Interpreter) -> None:
        """Take a dead or dying one out of the process table, in the background."""
        interpreter.control.close()
        # One that is stopped would not notice, and keep the server from ending.
        with contextlib.suppress(ProcessLookupError):
            os.kill(interpreter.pid, signal.SIGKILL)
        task = asyncio.get_running_loop().create_task(interpreter.buried(), name="a burial")
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)
        task.add_done_callback(log_failure)

    def _spawn(self) -> Interpreter:
        return spawn_interpreter(self._module, self._environment, self._arguments)

    def _on_death(self, interpreter: Interpreter) -> None:
        # Replaced at the next take(), not now: an interpreter that cannot even start would
        # otherwise be started over and over.
        logger.warning("a waiting interpreter (pid %d) died", interpreter.pid)
        asyncio.get_running_loop().remove_reader(interpreter.control)
        self._waiting.remove(interpreter)
        self.bury(interpreter)
