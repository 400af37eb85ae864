"""`Run`: the handle of one run, from before its start to after its end.

`Following` does all its work (start, follow, abort, write down) on the workspace's loop thread. The
methods here are called from any other thread, or from the user's own event loop.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..client.api import Client
from ..exceptions import RunAborted, RunFailed, RunLost, RunTimedOut, TransferError
from ..journal.journal import Entry, Journal
from ..outputs import tracebacks
from ..outputs.decoding import Decoded, Harvest, decode
from ..outputs.notebook import ErrorOutput, NotebookOutput, to_outputs
from ..outputs.values import Values
from ..protocol.events import Output
from ..protocol.lines import one_line
from ..protocol.requests import Start
from ..protocol.states import State
from .backlog import Backlog
from .facts import Fact
from .following import Following
from .hooks import Hooks
from .saving import Saved, write_files
from .waiting import Waiting

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

#: The exception for each end but `failed`.
_KINDS = {
    State.ABORTED: RunAborted,
    State.CANCELLED: RunAborted,
    State.SYSTEM_FAILURE: RunLost,
}


class Run:
    """A run on Lyceum: a handle that any number of threads may use.

    Attributes:
        allow_pickle: whether `values` may load pickles, which run what the program wanted. It is
            set where the run is started with `--pickle`, and not by `attach`.
        note: what its reader should know from the beginning, one sentence or more; may be empty.
        following: its life on the loop thread, for this package.
    """

    machine = Fact[str]("entry.machine", "The machine it was sent to.")
    name = Fact[str]("entry.name", "The name it was given, may be empty.")
    timeout_s = Fact[int]("entry.timeout_s", "Its time limit in seconds.")
    is_embedded = Fact[bool]("entry.is_embedded", "Whether the embedded server runs it.")
    created_at = Fact[float](
        "entry.created_at", "When it was sent, in seconds since 1970 by this machine's clock."
    )
    elapsed_s = Fact[float]("entry.elapsed_s", "Seconds from sending it to its end, or to now.")
    waited_s = Fact[float | None](
        "entry.waited_s", "Seconds from sending it to its leaving the queue; None while it waits."
    )
    return_code = Fact[int | None](
        "entry.return_code",
        "Exit code of its main process, 128 + n for signal n; None where there is none (yet).",
    )
    reason = Fact[str](
        "reason",
        "Why it did not complete, in one sentence; empty while it runs and when it completed.",
    )
    price_per_hour = Fact[float | None](
        "entry.price_per_hour", "Its machine's price in dollars; None where it is free or unknown."
    )
    billed = Fact[float | None](
        "entry.billed",
        "What the server says it cost, in dollars; None where it does not say (yet).",
    )
    callback = Fact[Mapping[str, Any] | None](
        "callback",
        "What a callback to this notebook said of its end; None where none has come. The server "
        "has confirmed that it ended; its own state is `state`.",
    )
    mark = Fact[str](
        "entry.mark", "The characters that tell its frames from other text; see `outputs.decoding`."
    )

    def __init__(
        self,
        portal: BlockingPortal,
        journal: Journal,
        client: Client,
        entry: Entry,
        hooks: Hooks | None = None,
    ) -> None:
        hooks = hooks or Hooks()
        self.following = Following(portal, journal, client, entry)
        self.following.on_end = lambda: hooks.note(self)
        self._waiting = Waiting(self.following, hooks.script_waits)
        self.note = ""
        self.allow_pickle = False
        self._harvest: Harvest | None = None
        self._values: Values | None = None

    # Its state.

    @property
    def id(self) -> str:
        """The server's id of the run; empty until the server has answered the start."""
        return self.following.run_id

    @property
    def state(self) -> State:
        """Its state as last heard."""
        return self.following.state

    @property
    def cost(self) -> float | None:
        """Its cost in dollars: as billed, before that by its time so far.

        None where it is free or its price is unknown.
        """
        return self.following.entry.cost(time.time())

    # What it has sent.

    @property
    def text(self) -> str:
        """All that it has printed so far, stdout and stderr in the order of arrival."""
        text = ""
        for item in decode(self.read_log(), self.mark):
            if isinstance(item, Output):
                # Grows in its place, a block at a time: a list of all pieces, or a StringIO,
                # would take as much memory as the text beside it.
                text += item.text
        return text

    @property
    def outputs(self) -> list[NotebookOutput]:
        """Its outputs so far, as nbformat has them; the last one is the error that it raised."""
        outputs = to_outputs(decode(self.read_log(), self.mark))
        failure = self.failure()
        if failure is not None and failure.ename:
            outputs.append(
                ErrorOutput(
                    output_type="error",
                    ename=failure.ename,
                    evalue=failure.evalue,
                    traceback=failure.traceback,
                )
            )
        return outputs

    @property
    def harvest(self) -> Harvest:
        """The values, files and errors that it has sent home so far, beside its outputs."""
        live = self.following.harvest or self._harvest
        if live is not None:
            return live
        is_over = self.state.is_final
        harvest = Harvest(decode(self.read_log(), self.mark, is_over=is_over))
        if is_over:
            self._harvest = harvest
        return harvest

    @property
    def values(self) -> Values:
        """The values that it has sent home so far; each is made at its first use."""
        source = self.harvest.values
        if self._values is None or self._values.source is not source:
            self._values = Values(source)
        self._values.allow_pickle = self.allow_pickle
        return self._values

    @property
    def files(self) -> dict[str, bytes]:
        """The files that it has sent home so far: path below its folder, with `/` -> content."""
        return {f.path: f.data for f in list(self.harvest.files.values()) if not f.problem}

    def save_files(self, folder: str | Path = ".", overwrite: bool = False) -> list[Path]:
        """Write `files` below a folder, which is made if it does not exist.

        Returns:
            Their paths, with those of files that already had the same content.

        Raises:
            TransferError: some files exist already (unless `overwrite`), or cannot be written; all
                others have been written.
        """
        saved = self.write_files(Path(folder), overwrite=overwrite)
        way_out = "overwrite=True would do it, and another folder has room"
        if problems := saved.problems(way_out):
            raise TransferError(" ".join(problems))
        return [Path(folder, path) for path in (*saved.written, *saved.same)]

    def write_files(self, folder: Path, *, overwrite: bool) -> Saved:
        """Write `files` as `save_files` does, and return what became of each."""
        return write_files(self.files, folder, overwrite=overwrite)

    def read_log(self) -> Iterator[Output]:
        """Yield its output so far as it came, piece by piece, read from disk on the way."""
        return self.following.log.read_text()

    def __repr__(self) -> str:
        where = "LOCAL" if self.is_embedded else self.following.entry.base_url
        return one_line(f"<Run {self.id or '(starting)'} {self.state} on {self.machine} ({where})>")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A Run belongs to its process and cannot be pickled or copied. Take its id along, and "
            f"call lyceum_magic.attach({self.following.known_as!r}) there."
        )

    # Waiting for it.

    def wait(self, timeout_s: float | None = None) -> State:
        """Wait until it has ended; an interrupt meanwhile aborts it.

        Args:
            timeout_s: seconds; None waits for ever.

        Returns:
            Its final state.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            ServerUnreachable, ...: its end cannot be learnt; it may go on.
        """
        _check_seconds(timeout_s)
        return self._waiting.for_end(timeout_s, timeout_s)

    def wait_callback(self, timeout_s: float | None = None) -> State:
        """Wait until a callback to this notebook has said that it has ended, and the server too.

        Where no callback can come (it was started without `--callback here`), or none has come 10
        seconds after its end is known otherwise, its stream and status tell of the end. `callback`
        says which it was. An interrupt meanwhile aborts it.

        Args:
            timeout_s: seconds; None waits for ever.

        Returns:
            Its final state.

        Raises:
            TimeoutError, ...: as `wait`.
        """
        _check_seconds(timeout_s)
        if not self.following.expects_callback:
            return self.wait(timeout_s)
        return self._waiting.for_callback(timeout_s)

    def wait_started(self) -> None:
        """Wait until the server has answered the start; an interrupt meanwhile aborts the run.

        Raises:
            LyceumError: it could not be started.
        """
        self._waiting.for_start()

    def result(self, timeout_s: float | None = None) -> Run:
        """Wait as `wait` does, and return the run.

        Raises:
            RunFailed: it ended other than `completed` (`RunTimedOut`, `RunAborted`, `RunLost`).
        """
        self.wait(timeout_s)
        if (failure := self.failure()) is not None:
            raise failure
        return self

    def __await__(self) -> Generator[Any, None, Run]:
        """Wait for `result` in the user's own event loop, asyncio's or trio's: `await run`.

        An interrupt aborts the run; a cancellation for another reason lets it go on.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            waiting = self._waiting.in_another_loop()
        else:
            waiting = self._waiting.in_asyncio()
        yield from waiting.__await__()
        return self.result()

    def failure(self, cell_name: str = "") -> RunFailed | None:
        """Return the exception that stands for its end; None while it runs, or if it completed.

        Args:
            cell_name: what the traceback of its cause calls the cell, if not by the run's id.
        """
        if self.state is State.COMPLETED or not self.state.is_final:
            return None
        timed_out = self.following.entry.timed_out
        kind = RunTimedOut if timed_out else _KINDS.get(self.state, RunFailed)
        # The cell of a session has raised KeyboardInterrupt, if it has taken the interrupt.
        has_raised = kind is RunFailed or self.following.ending.interrupted.done()
        raised = self.harvest.raised if has_raised else None
        error = raised.error if raised is not None else {}
        cause = tracebacks.rebuild(error, cell_name or f"<cell of run {self.id[:8]}>")
        ename, evalue = tracebacks.name_and_value(error)
        failure = kind(
            self.reason,
            run_id=self.id,
            state=self.state.value,
            return_code=self.return_code,
            ename=ename,
            evalue=evalue,
            traceback=tracebacks.lines(cause),
        )
        failure.__cause__ = cause
        failure._style = tracebacks.style(error)
        _let_scripts_print_lines()
        return failure

    # Ending it, and asking the server about it.

    def abort(self) -> State:
        """Kill it and wait until the server confirms its end; no error if it has ended already."""
        return self._end(self.following.client.abort)

    def stop(self) -> State:
        """End it gracefully (SIGTERM, then SIGKILL) and wait for its end."""
        return self._end(self.following.client.stop)

    def _end(self, order: Callable[[str], Awaitable[str]]) -> State:
        self.wait_started()
        if not self.following.ended.done():
            self.following.ask(order, self.id)
        return self.wait()

    def request_abort(self, why: str) -> None:
        """Ask for an abort and return at once.

        A run that is still being started is aborted as soon as its id is known.
        """
        self.following.request_abort(why)

    def request_interrupt(self, why: str) -> None:
        """Interrupt the cell of a session, and abort any other run; return at once.

        A cell that takes no interrupt within 3 seconds is aborted.
        """
        self.following.request_interrupt(why)

    def logs(self) -> list[str]:
        """Return its log lines as the server keeps them."""
        self.wait_started()
        return self.following.ask(self.following.client.logs, self.id)

    def record(self) -> dict[str, Any]:
        """Return its record as the server gives it now."""
        self.wait_started()
        return dict(self.following.ask(self.following.client.record, self.id))

    def metrics(self) -> dict[str, Any]:
        """Return what it has used: name of a series -> its list of `timestamp` and `value`.

        The longer it has run, the longer is the time between two values: a hundred at most.
        """
        self.wait_started()
        step_s = 1 + int(self.elapsed_s / 100)
        return self.following.ask(self.following.client.metrics, self.id, step_s)

    # Following it.

    def begin(self, request: Start | None) -> None:
        """Start the run and follow it; only follow it where `request` is None."""
        self.following.begin(request)

    def watch(self) -> tuple[Iterator[Decoded], Backlog]:
        """Return its output so far, and a backlog with what happens from then on.

        Close the backlog once it is read no more: the run is followed no faster than it is read.
        """
        backlog = Backlog()
        try:
            return self.following.ask(self.following.subscribe, backlog), backlog
        except BaseException:
            backlog.close()  # an interrupt may have come when it was in the list already
            raise


def _check_seconds(timeout_s: object) -> None:
    if timeout_s is not None and not isinstance(timeout_s, int | float):
        raise TypeError(f"timeout_s takes a number of seconds or None, not {timeout_s!r:.80}")


def _let_scripts_print_lines() -> None:
    """Make scripts print the lines of a run's traceback.

    Up to Python 3.12 the interpreter prints the exception that ends a script without `linecache`.
    """
    if sys.version_info < (3, 13) and sys.excepthook is sys.__excepthook__:
        sys.excepthook = traceback.print_exception
