"""Interpreters that wait, so that a run need not wait for one to start."""

from __future__ import annotations

import asyncio
import errno
import logging
import sys
from collections.abc import Mapping, Sequence

from ... import trail
from ..tasks import log_failure
from .forks import Zygote
from .interpreters import Interpreter, spawn_interpreter

logger = logging.getLogger(__name__)

#: A new interpreter starts only then, so that it does not slow down a short run.
REFILL_DELAY_S = 0.05
#: The number of zygotes that may end before they have forked, one after the other.
_MOST_FAILURES = 3
#: The longest that a server which ends waits for its zygote to bury the waiting. In seconds.
_LAST_WAIT_S = 2.0


class InterpreterPool:
    """A pool that keeps `size` interpreters waiting, and replaces those that leave or die.

    To be used in one event loop. `module`, `environment` and `arguments` are those of
    `spawn_interpreter`.

    Args:
        forks: whether a zygote forks the interpreters, where the system can do that. Each is
            started by itself while there is none.
    """

    def __init__(
        self,
        *,
        size: int = 2,
        module: str = "process.supervisor",
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        forks: bool = False,
    ) -> None:
        self._size = size
        self._module = module
        self._environment = environment
        self._arguments = arguments
        self._forks = forks and sys.platform == "linux"
        self._zygote: Zygote | None = None
        self._retired: set[Zygote] = set()
        self._failures = 0
        self._waiting: list[Interpreter] = []
        self._burials: set[asyncio.Task[None]] = set()
        self._refill_due: asyncio.TimerHandle | None = None

    def refill(self) -> None:
        """Start what is missing.

        If the machine lacks something for it, the next `take` tries again.
        """
        self._refill_due = None
        try:
            self._provide_zygote()
            while len(self._waiting) < self._size:
                interpreter = self._new()
                self._waiting.append(interpreter)
                # One that waits never sends anything: it is readable when it has died.
                asyncio.get_running_loop().add_reader(
                    interpreter.control, self._on_death, interpreter
                )
        except OSError as exc:
            logger.error("no interpreter can be started ahead of need: %s", exc.strerror)

    def take(self) -> Interpreter:
        """Return an interpreter, the longest waiting first; a new one if none waits."""
        loop = asyncio.get_running_loop()
        if self._refill_due is None:
            self._refill_due = loop.call_later(REFILL_DELAY_S, self.refill)
        if not self._waiting:
            return self._new()
        interpreter = self._waiting.pop(0)
        loop.remove_reader(interpreter.control)
        return interpreter

    async def close(self) -> None:
        """End those that wait."""
        if self._refill_due:
            self._refill_due.cancel()
        self._forks = False
        self._bury_waiting()
        if self._burials:
            # A zygote that was stopped buries none.
            await asyncio.wait(self._burials, timeout=_LAST_WAIT_S)
        for zygote in [*self._retired, *([self._zygote] if self._zygote else [])]:
            await zygote.close()
        if self._burials:
            await asyncio.wait(self._burials)  # what they raise is logged

    def bury(self, interpreter: Interpreter) -> None:
        """Take a dead or dying one out of the process table, in the background."""
        interpreter.control.close()
        # One that is stopped would not notice, and keep the server from ending.
        interpreter.kill()
        task = asyncio.get_running_loop().create_task(interpreter.buried(), name="a burial")
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)
        task.add_done_callback(log_failure)

    def _new(self) -> Interpreter:
        why = ""
        if self._zygote is not None and not (why := self._zygote.trouble):
            try:
                return self._zygote.fork()
            except OSError as exc:
                why = errno.errorcode.get(exc.errno or 0, "failed")
        if self._forks:
            trail.mark("server", "", "spawned", why=why or "no-zygote")
        return spawn_interpreter(self._module, self._environment, self._arguments)

    def _bury_waiting(self) -> None:
        for interpreter in self._waiting:
            asyncio.get_running_loop().remove_reader(interpreter.control)
            self.bury(interpreter)
        self._waiting.clear()

    def _on_death(self, interpreter: Interpreter) -> None:
        # Replaced at the next take(), not now: an interpreter that cannot even start would
        # otherwise be started over and over.
        logger.warning("a waiting interpreter died")
        asyncio.get_running_loop().remove_reader(interpreter.control)
        self._waiting.remove(interpreter)
        self.bury(interpreter)

    # The zygote.

    def _provide_zygote(self) -> None:
        """Have a zygote that has read the packages as they are now, if that is possible."""
        if not self._forks:
            return
        if self._zygote is not None and self._zygote.is_outdated():
            self._bury_waiting()
            retired, self._zygote = self._zygote, None
            self._retired.add(retired)
            retired.retire()
        if self._zygote is None:
            self._zygote = Zygote(self._arguments, self._on_zygote_end)
        else:
            self._zygote.trouble = ""

    def _on_zygote_end(self, zygote: Zygote) -> None:
        self.bury(zygote.process)
        self._retired.discard(zygote)
        if zygote is not self._zygote:
            return
        self._zygote = None
        if not self._forks:  # this pool is closing
            return
        self._failures = 0 if zygote.is_ready else self._failures + 1
        if self._failures < _MOST_FAILURES:
            logger.warning("the process that forks interpreters ended; another one replaces it")
        else:
            self._forks = False
            logger.error("no process can fork interpreters; each is started by itself from now on")
