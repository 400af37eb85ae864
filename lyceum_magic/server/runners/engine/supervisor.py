"""The supervisor of a run in a container engine, a process of its own that outlives the server.

It is to containers and stacks what `process.supervisor` is to Python programs, and the server sees
no difference: the same hand-over, the same bytes on its socket, the same files in the run's folder
(see `control`). What runs in the engine is a `Work`; everything else is here: the spool, the time
limit, the orders, the end.

`container_work` and `compose.work` are its two programs, each started as `python -P -m ... N` when
an image or a stack is ready to begin, where N is how many descriptors it may have.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypedDict

from .... import trail
from ....disks import reason
from ...descriptors import set_limit
from ...output.masking import masked
from ...output.spool import SpoolWriter
from .. import control
from ..base import EndReason, Refusal
from ..control import EndFile, Servers
from .engine import explanation

if TYPE_CHECKING:
    from ....protocol.events import StreamName
    from ....protocol.requests import Kind

#: Characters: they fit into an `EndFile`, whatever they are.
_MAX_SENTENCE = 600


class EngineAssignment(TypedDict):
    """The content of `assignment.json`. Times in seconds.

    Attributes:
        environment: the account's secrets; their values are masked in the output.
        work: what the kind's own `Work` needs.
    """

    run_id: str
    kind: Kind
    environment: dict[str, str]
    timeout_s: float
    stop_grace_s: float
    work: dict[str, Any]


class Events(Protocol):
    """The events that a `Work` reports; any thread may call."""

    def started(self) -> None:
        """Report that the first program began: the time limit counts from here."""
        ...

    def output(self, stream: StreamName, data: bytes) -> None:
        """Report what a program wrote."""
        ...

    def waiting(self, phrase: str) -> None:
        """Report that the run goes on until something ends, which the phrase names."""
        ...


class Work(Protocol):
    """The part of a run that happens in the engine.

    `run` has a thread of its own; the others may be called meanwhile from another one, at any
    moment and more than once.
    """

    def run(self, events: Events) -> tuple[int, str]:
        """Start everything; return when all of it is over and all output has been reported.

        Returns:
            The return code, and a sentence for the user if the code alone does not say it all.

        Raises:
            Refusal: it cannot be started for a reason that lies in the run.
            Exception: the engine failed.
        """
        ...

    def stop(self) -> None:
        """Send SIGTERM to all, and SIGKILL after their grace; return when all have ended."""
        ...

    def kill(self) -> None:
        """Kill all at once, including what is about to start."""
        ...

    def remove(self) -> None:
        """Take everything of the run out of the engine. Nothing left to remove is no error."""
        ...


@dataclass(frozen=True)
class _End:
    """The end of a `Work`, before the reason for it is known.

    `finished_at` in seconds since 1970.
    """

    reason: EndReason
    return_code: int | None
    error: str
    finished_at: float = field(default_factory=time.time)


class EngineSupervisor:
    """The supervisor: it keeps a run's output and time limit, passes orders on, writes the end."""

    def __init__(self, assignment: EngineAssignment, work: Work, servers: Servers) -> None:
        self._assignment = assignment
        self._work = work
        self._servers = servers
        self._spool = SpoolWriter(control.SPOOL, secrets=assignment["environment"].values())
        # Guards the spool and the connections, which `work`'s threads use as well.
        self._lock = threading.Lock()
        self._wake_reader, self._wake_writer = os.pipe()
        self._started_at: float | None = None
        self._reason: EndReason | None = None  # why we ended it; None if it ended by itself
        self._failure = ""  # why we cannot go on
        self._phrase = ""  # what the run waits for
        self._end: _End | None = None
        self._limit_due = float("inf")  # a moment of time.monotonic()

    def supervise(self) -> None:
        """Return when the run is over, out of the engine and written down."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_file = EndFile()
        self._mark("up")
        self._on_thread("work", self._carry_out)
        end = self._listen_until_over()
        try:
            self._work.remove()
        except Exception:  # noqa: BLE001 - what stays in the engine does not change how it ended
            control.log_exception()
        with self._lock:
            try:
                self._spool.flush(time.time())
            except OSError as exc:
                self._fail(exc)
        written = self._written(end)
        end_file.put(json.dumps(written, ensure_ascii=False))
        self._mark("end", reason=written["reason"], offset=self._spool.end)
        # Only now: a server takes their end for ours, and looks for what has just been written.
        with self._lock:
            self._servers.close()

    # What `work` reports, on its threads.

    def started(self) -> None:
        with self._lock:
            if self._started_at is not None:
                return
            self._started_at = time.time()
            self._limit_due = time.monotonic() + self._assignment["timeout_s"]
            try:
                control.write_facts(self._started_at)
            except OSError as exc:
                self._fail(exc)
            else:
                self._servers.tell(control.STARTED)
                self._mark("program")
        self._wake()

    def output(self, stream: StreamName, data: bytes) -> None:
        with self._lock:
            if self._failure:
                return
            try:
                is_written = self._spool.append(stream, time.time(), data)
            except OSError as exc:
                self._fail(exc)
            else:
                if is_written:
                    self._servers.tell(control.GROWN)
                if trail.is_on:
                    self._mark("spool", stream=stream, bytes=len(data), offset=self._spool.end)
                return
        self._wake()  # which then kills

    def waiting(self, phrase: str) -> None:
        with self._lock:
            if phrase == self._phrase:
                return
            self._phrase = phrase
            # A full disk takes the phrase, and nothing else.
            with contextlib.suppress(OSError):
                control.write_json(control.DETAIL_FILE, {"detail": phrase})
                self._servers.tell(control.DETAIL)

    def _mark(self, station: str, **facts: int | str) -> None:
        trail.mark("supervisor", self._assignment["run_id"], station, **facts)

    def _fail(self, exc: OSError) -> None:
        self._failure = f"the run's output could not be written: {reason(exc, '.')}"

    def _carry_out(self) -> None:
        try:
            code, error = self._work.run(self)
        except Refusal as exc:
            if exc.output:
                self.output("stderr", exc.output)
            self._over(_End("refused", None, str(exc)))
        else:
            self._over(_End("exited", code, error))

    def _over(self, end: _End) -> None:
        with self._lock:
            self._end = self._end or end
        self._wake()

    def _on_thread(self, name: str, steps: Callable[[], object]) -> None:
        """Carry steps out on a thread.

        A failure there ends the run, which would otherwise never end.
        """

        def attempt() -> None:
            try:
                steps()
            except Exception as exc:  # noqa: BLE001 - the top of a thread
                control.log_exception()
                sentence = f"the container engine failed: {explanation(exc) or type(exc).__name__}"
                self._over(_End("lost", None, sentence))

        threading.Thread(target=attempt, name=name, daemon=True).start()

    def _written(self, end: _End) -> dict[str, Any]:
        """Return the fields of a `RunEnd`."""
        reason: EndReason = end.reason
        code, error = end.return_code, end.error
        if self._failure:
            reason, code, error = "lost", None, self._failure
        elif reason == "lost":
            pass  # also if it was ended: it is unknown whether it did
        elif self._reason:
            reason, code = self._reason, code if self._reason == "stopped" else None
            error = control.order_sentence(reason, self._assignment["timeout_s"])
        return {
            "reason": reason,
            "return_code": code,
            # Masked here, where the run's secrets are known as long as it lives, and before the
            # cut, which could leave half of one.
            "error": masked(error, self._assignment["environment"].values())[:_MAX_SENTENCE],
            "started_at": self._started_at,
            "finished_at": end.finished_at,
        }

    # What happens meanwhile, on the main thread.

    def _listen_until_over(self) -> _End:
        poll = select.poll()
        servers = self._servers
        for descriptor in (self._wake_reader, servers.listener, *servers.descriptors):
            poll.register(descriptor, select.POLLIN)
        os.set_blocking(self._wake_reader, False)
        is_killed = False
        while self._end is None:
            if self._failure and not is_killed:
                is_killed = True
                self._on_thread("kill", self._work.kill)
            if time.monotonic() >= self._limit_due and not self._reason:
                self._terminate("timeout")
            wait_s = self._limit_due - time.monotonic() if not self._reason else float("inf")
            patience_ms = None if wait_s == float("inf") else max(0.0, wait_s) * 1000 + 0.5
            for descriptor, _ in poll.poll(patience_ms):
                if descriptor == self._wake_reader:
                    os.read(descriptor, 4096)
                elif descriptor == servers.listener:
                    if (accepted := self._accept()) is not None:
                        poll.register(accepted, select.POLLIN)
                elif not self._obey(descriptor):
                    poll.unregister(descriptor)
        return self._end

    def _accept(self) -> int | None:
        """Let a server in that came back, and tell it at once if the program runs."""
        with self._lock:
            descriptor = self._servers.accept()
            if self._started_at is not None:
                self._servers.tell(control.STARTED)
        return descriptor

    def _obey(self, descriptor: int) -> bool:
        """Do what a server orders; return False if that server is gone."""
        with self._lock:
            orders = self._servers.orders(descriptor)
        if not orders:  # the run goes on
            return False
        if control.KILL in orders:
            self._reason = "aborted"
            self._on_thread("kill", self._work.kill)
        elif control.STOP in orders and not self._reason:
            self._terminate("stopped")
        return True

    def _terminate(self, reason: EndReason) -> None:
        self._reason = reason
        # On a thread, as all orders: an abort must get through while it takes its time.
        self._on_thread("stop", self._work.stop)

    def _wake(self) -> None:
        os.write(self._wake_writer, b".")


def supervise_one_run(work_of: Callable[[EngineAssignment], Work]) -> NoReturn:
    """Take one run over from the server and see it through to its end: a whole process."""
    set_limit(int(sys.argv[1]))

    def supervise(assignment: EngineAssignment, servers: Servers) -> None:
        os.unlink(control.ASSIGNMENT)  # it holds secrets
        EngineSupervisor(assignment, work_of(assignment), servers).supervise()

    # It ends without waiting for threads that still talk to the engine.
    control.supervise_one_run(socket.socket(fileno=os.dup(0)), supervise)
