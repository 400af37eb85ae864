"""The process between the server and a run in a container engine: its supervisor.

It is to containers and stacks what `process.supervisor` is to Python programs, and shows the server the
same face: the same hand-over and the same bytes on its socket, the same files in the run's folder.
What runs in the engine is a `Work`; everything else is here: the spool, the time limit, the orders,
the end. As the server may die at any time, nothing of a run is the server's once it is handed over.

`container_work` and `compose.work` are its two programs, each started as `python -P -m ...` when
an image or a stack is ready to begin.
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
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypedDict

from ....disks import reason
from ...descriptors import set_limit
from ...output.masking import masked
from ...output.spool import SpoolWriter
from ..base import EndReason, Refusal
from ..process.supervisor import (
    DETAIL,
    DETAIL_FILE,
    GROWN,
    KILL,
    STARTED,
    STOP,
    SUPERVISOR_ID,
    put_end,
    write_json,
)
from .engine import explanation

if TYPE_CHECKING:
    from ....protocol.events import StreamName
    from ....protocol.requests import Kind

_EXIT_BYTES = 4096
_MAX_SENTENCE = 600  # characters: they fit into those bytes, whatever they are


class EngineAssignment(TypedDict):
    """What the server writes to `assignment.json`. Times in seconds.

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
    """What a `Work` tells; any thread may call."""

    def started(self) -> None:
        """The first program began: the time limit counts from here."""
        ...

    def output(self, stream: StreamName, data: bytes) -> None:
        """A program wrote."""
        ...

    def waiting(self, phrase: str) -> None:
        """The run goes on until something ends, which the phrase names."""
        ...


class Work(Protocol):
    """What one run does in the engine. `run` has a thread of its own; the others may be called
    meanwhile from another one, at any moment and more than once."""

    def run(self, events: Events) -> tuple[int, str]:
        """Starts everything, and returns when all of it is over and all output has been told.

        Returns:
            The return code, and a sentence for people where the code alone does not say it all.

        Raises:
            Refusal: it cannot be started for a reason that lies in the run.
            Exception: the engine failed.
        """
        ...

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL after their grace; returns when all have ended."""
        ...

    def kill(self) -> None:
        """Kills all at once, also what is only about to start."""
        ...

    def remove(self) -> None:
        """Takes everything of the run out of the engine; nothing there is no error."""
        ...


@dataclass(frozen=True)
class _End:
    """How `work` ended, before it is known why. `finished_at` in seconds since 1970."""

    reason: EndReason
    return_code: int | None
    error: str
    finished_at: float = field(default_factory=time.time)


class EngineSupervisor:
    """Keeps a run's output and its time limit, passes orders on, writes down how it ended."""

    def __init__(
        self,
        assignment: EngineAssignment,
        work: Work,
        control: socket.socket,
        listener: socket.socket,
    ) -> None:
        self._assignment = assignment
        self._work = work
        self._listener = listener
        self._connections = {control.fileno(): control}
        self._spool = SpoolWriter("spool", secrets=assignment["environment"].values())
        # Guards the spool and the connections, which `work`'s threads use as well.
        self._lock = threading.Lock()
        self._wake_reader, self._wake_writer = os.pipe()
        self._started_at: float | None = None
        self._reason = ""  # why we ended it; empty where it ended by itself
        self._failure = ""  # why we cannot go on
        self._phrase = ""  # what the run waits for
        self._end: _End | None = None
        self._limit_due = float("inf")  # a moment of time.monotonic()

    def supervise(self) -> None:
        """Returns when the run is over, out of the engine and written down."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # The place for the last word is taken now, in case the disk is full by then.
        exit_file = os.open("exit.draft", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(exit_file, b" " * _EXIT_BYTES)
        self._on_thread("work", self._carry_out)
        end = self._listen_until_over()
        try:
            self._work.remove()
        except Exception:  # noqa: BLE001 - what stays in the engine does not change how it ended
            _log_exception()
        with self._lock:
            try:
                self._spool.flush(time.time())
            except OSError as exc:
                self._fail(exc)
        put_end(exit_file, json.dumps(self._written(end), ensure_ascii=False))
        # Only now: a server takes their end for ours, and looks for what has just been written.
        with self._lock:
            while self._connections:
                self._connections.popitem()[1].close()

    # What `work` tells, on its threads.

    def started(self) -> None:
        with self._lock:
            if self._started_at is not None:
                return
            self._started_at = time.time()
            self._limit_due = time.monotonic() + self._assignment["timeout_s"]
            facts = {
                "pid": os.getpid(),
                "id": os.environ.get(SUPERVISOR_ID, ""),
                "started_at": self._started_at,
            }
            try:
                write_json("supervisor.json", facts)
            except OSError as exc:
                self._fail(exc)
            else:
                self._notify(STARTED)
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
                    self._notify(GROWN)
                return
        self._wake()  # which then kills

    def waiting(self, phrase: str) -> None:
        with self._lock:
            if phrase == self._phrase:
                return
            self._phrase = phrase
            # A full disk takes the phrase, and nothing else.
            with contextlib.suppress(OSError):
                write_json(DETAIL_FILE, {"detail": phrase})
                self._notify(DETAIL)

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
        """Whatever fails there ends the run: nobody shall wait for it for ever."""

        def attempt() -> None:
            try:
                steps()
            except Exception as exc:  # noqa: BLE001 - the top of a thread
                _log_exception()
                sentence = f"the container engine failed: {explanation(exc) or type(exc).__name__}"
                self._over(_End("lost", None, sentence))

        threading.Thread(target=attempt, name=name, daemon=True).start()

    def _written(self, end: _End) -> dict[str, Any]:
        """The fields of a `RunEnd`."""
        reason: EndReason = end.reason
        code, error = end.return_code, end.error
        if self._failure:
            reason, code, error = "lost", None, self._failure
        elif reason == "lost":
            pass  # also where it was ended: nobody knows whether it has
        elif self._reason == "timeout":
            limit = f"{self._assignment['timeout_s']:g}"
            reason, code = "timeout", None
            error = f"the run exceeded its time limit of {limit} s"
        elif self._reason == "aborted":
            reason, code, error = "aborted", None, "the run was aborted"
        elif self._reason == "stopped":
            reason, error = "stopped", "the run was stopped"
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
        for descriptor in (self._wake_reader, self._listener.fileno(), *self._connections):
            poll.register(descriptor, select.POLLIN)
        os.set_blocking(self._wake_reader, False)
        self._listener.setblocking(False)
        for connection in self._connections.values():
            connection.setblocking(False)
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
                elif descriptor == self._listener.fileno():
                    poll.register(self._accept(), select.POLLIN)
                elif not self._obey(descriptor):
                    poll.unregister(descriptor)
        return self._end

    def _accept(self) -> int:
        """A server came back. It is told at once if the program runs."""
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        with self._lock:
            self._connections[connection.fileno()] = connection
            if self._started_at is not None:
                self._notify(STARTED)
        return connection.fileno()

    def _obey(self, descriptor: int) -> bool:
        """Does what a server orders; False where that server is gone."""
        connection = self._connections[descriptor]
        try:
            orders = connection.recv(4096)
        except ConnectionResetError:
            orders = b""
        if not orders:  # the run goes on
            with self._lock:
                del self._connections[descriptor]
            connection.close()
            return False
        if KILL in orders:
            self._reason = "aborted"
            self._on_thread("kill", self._work.kill)
        elif STOP in orders and not self._reason:
            self._terminate("stopped")
        return True

    def _terminate(self, reason: str) -> None:
        self._reason = reason
        # On a thread, as all orders: an abort must get through while it takes its time.
        self._on_thread("stop", self._work.stop)

    def _notify(self, byte: bytes) -> None:
        for connection in self._connections.values():
            # A full buffer holds notices enough, and a closed one is noticed by _obey.
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                connection.send(byte)

    def _wake(self) -> None:
        os.write(self._wake_writer, b".")


def _log_exception() -> None:
    # A full disk takes the log, and nothing else.
    with contextlib.suppress(OSError), open("supervisor.log", "a", encoding="utf-8") as log:
        traceback.print_exc(file=log)


def supervise_one_run(work_of: Callable[[EngineAssignment], Work]) -> NoReturn:
    """Takes one run over from the server and sees it through to its end: a whole process."""
    set_limit(int(sys.argv[1]))
    control = socket.socket(fileno=os.dup(0))
    folder, descriptors, *_ = socket.recv_fds(control, 4096, 2)
    if not folder:  # the server is gone, and never needed us
        os._exit(0)
    os.chdir(folder)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)
    try:
        # The lock is held until this process ends.
        _lock, listener = descriptors
        with open("assignment.json", encoding="utf-8") as file:
            assignment: EngineAssignment = json.load(file)
        os.unlink("assignment.json")  # it holds secrets
        listening = socket.socket(fileno=listener)
        EngineSupervisor(assignment, work_of(assignment), control, listening).supervise()
    except BaseException:  # noqa: BLE001 - the top of this process, with nobody left to tell
        _log_exception()
        os._exit(1)
    # Threads that still talk to the engine have nothing left to say.
    os._exit(0)
