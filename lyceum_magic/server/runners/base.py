"""The runner interface: what the service asks of process, container and compose runners.

A runner knows nothing of HTTP or the database. It starts a run in a folder of its own, lets the
service wait for its end, and finds it again after the server died and came back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from ...exceptions import LyceumError
from ...protocol.limits import DEFAULT_GRACE_S

if TYPE_CHECKING:  # supervisors import this module
    from ...protocol.requests import Start

EndReason = Literal[
    "exited",  # the main process ended by itself; return_code says how
    "timeout",  # the run's time limit ended it
    "aborted",  # kill() ended it
    "stopped",  # stop() ended it
    "refused",  # it could not be started for a reason that lies in the run (requirements, ...)
    "lost",  # the server's machine failed: the supervisor died, the disk is full, ...
]


class EngineUnavailable(LyceumError):
    """No container engine answers that a run could use; the message says how to get one."""


class InvalidField(LyceumError):
    """A field of a request that has the right form and still cannot be used.

    Attributes:
        field: its name on the wire.
    """

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class Refusal(Exception):
    """A run that cannot be started for a reason that lies in it; the message is one sentence.

    Attributes:
        output: more about it, for the run's stderr.
    """

    def __init__(self, sentence: str, output: bytes = b"") -> None:
        super().__init__(sentence)
        self.output = output


@dataclass(frozen=True)
class RunOrder:
    """The order that the service gives to a runner: start this run, or find it again.

    Attributes:
        folder: the run's own folder (exists, 0700); everything of this run lives below it.
        environment: the account's secrets: variables for the program, whose values are masked in
            its output. Empty if a run is looked for rather than started.
        stop_grace_s: seconds between SIGTERM and SIGKILL when the run is stopped or times out.
        has_gpu: whether the run may expect a GPU on its machine.
        session_folder: the folder of its session's snapshots; None outside of a session.
    """

    run_id: str
    folder: Path
    request: Start
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    stop_grace_s: float = DEFAULT_GRACE_S
    has_gpu: bool = False
    session_folder: Path | None = None


@dataclass(frozen=True)
class Usage:
    """The processor time, memory and GPUs that a run uses at one moment, with all its processes.

    Attributes:
        cpu_s: seconds of processor time so far; only the difference of two says something.
        memory_bytes: resident memory now.
        gpu: the GPUs of its machine now, name of a series (see `gpus`) -> value; empty if it has
            none.
    """

    cpu_s: float
    memory_bytes: int
    gpu: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunEnd:
    """The end of a run. Times in seconds since 1970.

    Attributes:
        return_code: exit code, 128 + n for signal n; None if there is none (timeout, refused,
            lost, aborted, stopped before it began).
        error: one sentence for the user, empty for "exited" with code 0; never a traceback.
    """

    reason: EndReason
    return_code: int | None
    error: str
    started_at: float | None
    finished_at: float


#: Called with each step on the way: a phrase such as "installing requirements".
ProgressListener = Callable[[str], None]


class RunHandle(Protocol):
    """The server's hold on a run that is under way or over: its end, its output, its orders.

    Attributes:
        run_id: the id of the run.
        spool: the path of its output (see `server.output.spool`); the file may not exist yet.
        started_at: when the program itself began; None while it is being prepared.
        detail: what the run waits for while it runs, as a phrase; empty if there is nothing to say.
        on_detail: called when that has changed.
    """

    run_id: str
    spool: Path
    started_at: float | None
    detail: str
    on_detail: Callable[[], None]

    async def ended(self) -> RunEnd:
        """Wait until the run is over and its spool is complete, and return its end.

        Any number of callers may wait.
        """
        ...

    async def started(self) -> None:
        """Wait until the program began, or until it is certain that it never will."""
        ...

    async def grown(self, offset: int) -> None:
        """Wait until the spool is longer than `offset`, or the run is over."""
        ...

    async def usage(self) -> Usage | None:
        """Return what the run uses now; None if it does not run, or if that is unknown."""
        ...

    async def kill(self) -> None:
        """Kill every process of the run; return when the order is passed on."""
        ...

    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after `stop_grace_s`; return when the order is passed on."""
        ...


class Runner(Protocol):
    """The interface of a runner: it starts runs, and finds those that an earlier server started."""

    async def open(self) -> None:
        """Get ready: start a pool of interpreters, look for an engine."""
        ...

    async def check(self, request: Start) -> None:
        """Check a request before it is accepted; the run starts later, or in another server.

        Raises:
            InvalidField: it asks for something that cannot be, or is not allowed.
            EngineUnavailable: the engine that would run it is not there.
        """
        ...

    async def start(self, run_order: RunOrder, on_progress: ProgressListener) -> RunHandle:
        """Begin the run and return its handle.

        Requirements and images are prepared in the background. Never raises for what lies in the
        run: such a run ends as "refused".
        """
        ...

    async def find(self, run_order: RunOrder) -> RunHandle | None:
        """Return the run that an earlier server started; None if it had not been started yet."""
        ...

    async def sweep(self, unused_since: float) -> None:
        """Remove what was installed for runs and unused since a moment, in seconds since 1970."""
        ...

    async def close(self) -> None:
        """Let go of everything but the runs themselves: they go on."""
        ...
