"""`Run`: the handle of one run, from before its start to after its end.

`Following` does all its work (start, follow, abort, write down) on the workspace's loop thread. The
methods here are called from any other thread, or from the user's own event loop.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import anyio

from ..client.api import Client
from ..exceptions import (
    LyceumError,
    RunAborted,
    RunFailed,
    RunLost,
    RunTimedOut,
    TransferError,
)
from ..journal.journal import Entry, Journal
from ..outputs import tracebacks
from ..outputs.decoding import Decoded, Harvest, decode
from ..outputs.notebook import ErrorOutput, NotebookOutput, to_outputs
from ..outputs.values import Values
from ..protocol.events import Output
from ..protocol.lines import one_line
from ..protocol.requests import Start
from ..protocol.states import State
from .backlog import Inbox
from .following import CONFIRM_S, Following
from .hooks import Hooks
from .interrupts import noted_interrupts
from .loop import log_failure
from .saving import Saved, write_files

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")

#: How often a wait in the user's own event loop lets Python notice an interrupt.
TICK_S = 0.1

#: How long a callback may be behind the end of its run before nobody waits for it any more: the
#: first attempt is made at once, the second after 5 seconds.
CALLBACK_GRACE_S = 10.0


def new_tag() -> str:
    return uuid.uuid4().hex


class Run:
    """A run on Lyceum: a handle that any number of threads may use.

    Attributes:
        id: the server's id of the run; empty until the server has answered the start.
        machine: the machine it was sent to.
        name: the name it was given, may be empty.
        timeout_s: its time limit in seconds.
        is_embedded: whether the embedded server runs it.
        allow_pickle: whether `values` may load pickles, which run what the program wanted. It is
            set where the run is started with `--pickle`, and not by `attach`.
        note: what its reader should know from the beginning, one sentence or more; may be empty.
    """

    def __init__(
        self,
        portal: BlockingPortal,
        journal: Journal,
        client: Client,
        entry: Entry,
        hooks: Hooks | None = None,
    ) -> None:
        self._pid = os.getpid()
        self._portal_here = portal
        self._client = client
        self._hooks = hooks or Hooks()
        self._life = Following(journal, client, entry)
        self._life.on_end = lambda: self._hooks.note(self)
        self.note = ""
        self.allow_pickle = False
        self._harvest: Harvest | None = None
        self._values: Values | None = None
        self._task: Future[None] | None = None

    @property
    def _portal(self) -> BlockingPortal:
        """Where its life is.

        Raises:
            LyceumError: in another process, which has only inherited this handle.
        """
        self._check_process()
        return self._portal_here

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            known_as = self.id or self._life.entry.tag
            raise LyceumError(
                f"Run {known_as} is followed by the process that this one was forked from; attach "
                f"to it again here: lyceum_magic.attach({known_as!r})."
            )

    def leave_to_parent(self) -> None:
        """Let go of its log in a forked child."""
        self._life.log.leave_to_parent()

    # What it is.

    @property
    def id(self) -> str:
        return self._life.entry.run_id or ""

    @property
    def machine(self) -> str:
        return self._life.entry.machine

    @property
    def name(self) -> str:
        return self._life.entry.name

    @property
    def timeout_s(self) -> int:
        return self._life.entry.timeout_s

    @property
    def is_embedded(self) -> bool:
        return self._life.entry.is_embedded

    @property
    def state(self) -> State:
        """Its state as last heard."""
        return State(self._life.entry.state)

    @property
    def return_code(self) -> int | None:
        """Exit code of its main process, 128 + n for signal n; None where there is none (yet)."""
        return self._life.entry.return_code

    @property
    def reason(self) -> str:
        """Why it did not complete, in one sentence; empty while it runs and when it completed."""
        return one_line(self._life.entry.reason)  # an earlier version may have written it down

    @property
    def created_at(self) -> float:
        """When it was sent, in seconds since 1970 by this machine's clock."""
        return self._life.entry.created_at

    @property
    def elapsed_s(self) -> float:
        """Seconds from sending it to its end, or to now."""
        return (self._life.entry.ended_at or time.time()) - self._life.entry.created_at

    @property
    def price_per_hour(self) -> float | None:
        """Of its machine, in dollars; None where it is free or unknown."""
        return self._life.entry.price_per_hour

    @property
    def waited_s(self) -> float | None:
        """Seconds from sending it to its leaving the queue; None while it is there."""
        started_at = self._life.entry.started_at
        return None if started_at is None else max(0.0, started_at - self._life.entry.created_at)

    @property
    def billed(self) -> float | None:
        """What the server says it cost, in dollars; None where it does not say (yet)."""
        return self._life.entry.billed

    @property
    def cost(self) -> float | None:
        """What it has cost, in dollars: as billed, before that by its time so far.

        None where it is free or its price is unknown.
        """
        return self._life.entry.cost(time.time())

    @property
    def mark(self) -> str:
        """What tells the frames of this run from other text, for `outputs.decoding`."""
        return self._life.mark

    @property
    def text(self) -> str:
        """All that it has printed so far, stdout and stderr in the order of arrival."""
        text = ""
        for item in self.decoded():
            if isinstance(item, Output):
                # Grows in its place, a block at a time: a list of all pieces, or a StringIO,
                # would take as much memory as the text beside it.
                text += item.text
        return text

    @property
    def outputs(self) -> list[NotebookOutput]:
        """What it has shown so far, as nbformat outputs; the last one is what it has raised."""
        outputs = to_outputs(self.decoded())
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

    def decoded(self) -> Iterator[Decoded]:
        """What it has sent so far, read from disk as it goes."""
        return decode(self.read_log(), self.mark)

    @property
    def harvest(self) -> Harvest:
        """What it has sent home so far beside its outputs."""
        live = self._life.harvest or self._harvest
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
        """Writes `files` below a folder, which is made if it is not there.

        Returns:
            Where they are, those included that were there with the same content.

        Raises:
            TransferError: files that are there already, unless `overwrite`, or that cannot be
                written; all others have been written.
        """
        saved = self.write_files(Path(folder), overwrite=overwrite)
        way_out = "overwrite=True would do it, and another folder has room"
        if problems := saved.problems(way_out):
            raise TransferError(" ".join(problems))
        return [Path(folder, path) for path in (*saved.written, *saved.same)]

    def write_files(self, folder: Path, *, overwrite: bool) -> Saved:
        """As `save_files`; what becomes of each file is for the caller to judge."""
        return write_files(self.files, folder, overwrite=overwrite)

    def read_log(self) -> Iterator[Output]:
        """Its output so far as it came, piece by piece, read from disk as it goes."""
        return self._life.log.read_text()

    def __repr__(self) -> str:
        where = "LOCAL" if self.is_embedded else self._life.entry.base_url
        return one_line(f"<Run {self.id or '(starting)'} {self.state} on {self.machine} ({where})>")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A Run belongs to its process and cannot be pickled or copied. Take its id along, and "
            f"call lyceum_magic.attach({self.id or self._life.entry.tag!r}) there."
        )

    # Waiting for it.

    def wait(self, timeout_s: float | None = None) -> State:
        """Waits until it has ended; an interrupt meanwhile aborts it.

        Args:
            timeout_s: seconds; None waits for ever.

        Returns:
            Its final state.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            ServerUnreachable, ...: its end cannot be learnt; it may go on.
        """
        _check_seconds(timeout_s)
        return self._state_at_end(timeout_s, timeout_s)

    def wait_callback(self, timeout_s: float | None = None) -> State:
        """Waits until a callback to this notebook has said that it has ended, and the server too.

        Where no callback can come (it was started without `--callback here`), or none has come 10
        seconds after its end is known otherwise, its stream and status do. `callback` tells which
        it was. An interrupt meanwhile aborts it.

        Args:
            timeout_s: seconds; None waits for ever.

        Returns:
            Its final state.

        Raises:
            TimeoutError, ...: as `wait`.
        """
        _check_seconds(timeout_s)
        life = self._life
        if not life.expects_callback:
            return self.wait(timeout_s)
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        done = self._wait_until_any([life.heard, life.ended], timeout_s)
        if done and not life.heard.done() and self.id:
            # A stream that is lost says nothing about the end: the callback may be all that comes.
            more_s = CALLBACK_GRACE_S + (self.timeout_s if self.is_out_of_sight else 0)
            self._wait_until_any([life.heard], min(more_s, deadline - time.monotonic()))
        if life.heard.done():
            self._hooks.script_waits()
            return self.state
        left_s = None if timeout_s is None else max(0.0, deadline - time.monotonic())
        return self._state_at_end(left_s, timeout_s)

    @property
    def callback(self) -> Mapping[str, Any] | None:
        """What a callback to this notebook said of its end; None where none has come.

        The server has confirmed that it ended; its own state is `state`.
        """
        return self._life.callback

    @property
    def expects_callback(self) -> bool:
        """Whether this process can hear of its end by a callback."""
        return self._life.expects_callback

    @expects_callback.setter
    def expects_callback(self, value: bool) -> None:
        self._life.expects_callback = value

    async def on_callback(self, callback: Mapping[str, Any]) -> None:
        """A callback has come for it; on the loop thread."""
        await self._life.on_callback(callback)

    def wait_started(self) -> None:
        """Waits until the server has answered the start; an interrupt meanwhile aborts the run.

        Raises:
            LyceumError: it could not be started.
        """
        self._wait_until_any([self._life.known], None)
        self._hooks.script_waits()
        if not self.id and self._life.error is not None:
            raise self._life.error

    def _state_at_end(self, left_s: float | None, timeout_s: float | None) -> State:
        if not self._wait_for(self._life.ended, left_s):
            raise TimeoutError(f"run {self.id} has not ended within {timeout_s} s")
        return self.state

    def _wait_for(self, milestone: Future[None], timeout_s: float | None) -> bool:
        done = self._wait_until_any([milestone], timeout_s)
        if done:
            self._hooks.script_waits()
        if done and self._life.error is not None:
            raise self._life.error
        return done

    def _wait_until_any(self, milestones: Sequence[Future[None]], timeout_s: float | None) -> bool:
        if not any(milestone.done() for milestone in milestones):
            self._check_process()
        try:
            return bool(futures.wait(milestones, timeout_s, futures.FIRST_COMPLETED).done)
        except KeyboardInterrupt:
            self.request_abort("interrupted")
            futures.wait([self._life.ended], CONFIRM_S)
            raise KeyboardInterrupt(f"run {self.id}: {self.state}") from None

    def result(self, timeout_s: float | None = None) -> Run:
        """Waits as `wait` does, and returns the run.

        Raises:
            RunFailed: it ended other than `completed` (`RunTimedOut`, `RunAborted`, `RunLost`).
        """
        self.wait(timeout_s)
        if (failure := self.failure()) is not None:
            raise failure
        return self

    def __await__(self) -> Generator[Any, None, Run]:
        """`await run` is `run.result()` in the user's own event loop, asyncio's or trio's.

        An interrupt aborts the run; a cancellation for another reason lets it go on.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._wait_in_another_loop().__await__()
        return self._wait_in_loop().__await__()

    async def _wait_in_another_loop(self) -> Run:
        if not self._life.ended.done():
            self._check_process()
        is_interrupted = False

        def note() -> bool:
            nonlocal is_interrupted
            is_interrupted = True
            return True

        with noted_interrupts(note):
            try:
                while not self._life.ended.done():  # noqa: ASYNC110 - set on another loop's thread
                    await anyio.sleep(TICK_S)
            except (KeyboardInterrupt, anyio.get_cancelled_exc_class()):
                if is_interrupted:
                    self.request_abort("interrupted")
                    with anyio.move_on_after(CONFIRM_S, shield=True):
                        while not self._life.ended.done():  # noqa: ASYNC110
                            await anyio.sleep(TICK_S)
                raise
        return self.result()

    async def _wait_in_loop(self) -> Run:
        if not self._life.ended.done():
            self._check_process()
        ended = asyncio.wrap_future(self._life.ended)
        is_interrupted = False

        def note() -> bool:
            nonlocal is_interrupted
            is_interrupted = True  # a cancellation alone does not say why it came
            return True

        with noted_interrupts(note):
            try:
                while not ended.done():
                    # A short tick: an interrupt does not wake a selector that is idle.
                    await asyncio.wait([ended], timeout=TICK_S)
            except asyncio.CancelledError:
                if not is_interrupted:
                    raise  # whoever waits has changed his mind; the run goes on
                self.request_abort("interrupted")
                await asyncio.wait([ended], timeout=CONFIRM_S)
        return self.result()

    def failure(self, cell_name: str = "") -> RunFailed | None:
        """The exception that stands for its end; None while it runs, and when it completed.

        Args:
            cell_name: what the traceback of its cause calls the cell, if not by the run's id.
        """
        if self.state is State.COMPLETED or not self.state.is_final:
            return None
        kinds = {
            State.ABORTED: RunAborted,
            State.CANCELLED: RunAborted,
            State.SYSTEM_FAILURE: RunLost,
        }
        kind = RunTimedOut if self._life.entry.timed_out else kinds.get(self.state, RunFailed)
        raised = self.harvest.raised if kind is RunFailed else None
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

    # Ending it.

    def abort(self) -> State:
        """Kills it and waits until the server confirms its end; over already is no error."""
        return self._end(self._client.abort)

    def stop(self) -> State:
        """Ends it gracefully (SIGTERM, then SIGKILL) and waits for its end."""
        return self._end(self._client.stop)

    def _end(self, order: Callable[[str], Awaitable[str]]) -> State:
        self.wait_started()
        if not self._life.ended.done():
            self._call(order, self.id)
        return self.wait()

    def request_abort(self, why: str) -> None:
        """Asks for an abort and returns at once; a run that is still being started is aborted as
        soon as its id is known."""
        asking = self._portal.start_task_soon(self._life.abort_when_known, why)
        asking.add_done_callback(log_failure)

    def logs(self) -> list[str]:
        """Its log lines as the server keeps them."""
        self.wait_started()
        return self._call(self._client.logs, self.id)

    def record(self) -> dict[str, Any]:
        """Its record as the server gives it now."""
        self.wait_started()
        return dict(self._call(self._client.record, self.id))

    def metrics(self) -> dict[str, Any]:
        """What it has used: name of a series -> its list of `timestamp` and `value`.

        The longer it has run, the longer is the time between two values: a hundred at most.
        """
        self.wait_started()
        return self._call(self._client.metrics, self.id, 1 + int(self.elapsed_s / 100))

    def _call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        return self._portal.call(function, *args)

    # Its life on the loop thread.

    def begin(self, request: Start | None) -> None:
        """Starts the task: start and follow, or only follow where `request` is None."""
        self._task = self._portal.start_task_soon(self._live, request)
        self._task.add_done_callback(log_failure)

    async def _live(self, request: Start | None) -> None:
        await self._life.live(request)
        if self._life.expects_callback and self.is_out_of_sight:
            # This task holds the run, which nobody else may: hooks are to be told all the same.
            heard = asyncio.wrap_future(self._life.heard)
            await asyncio.wait([heard], timeout=CALLBACK_GRACE_S + self.timeout_s)

    def leave(self) -> None:
        """Stops following it; it goes on where it runs."""
        if self._task is not None:
            self._task.cancel()
            futures.wait([self._life.ended])

    def watch(self) -> tuple[Iterator[Decoded], Inbox]:
        """Return its output so far, and an inbox with what happens from then on.

        Close the inbox as soon as nobody reads it: the run is followed no faster than it is read.
        """
        inbox = Inbox()
        try:
            return self._portal.call(self._life.subscribe, inbox), inbox
        except BaseException:
            inbox.close()  # an interrupt may have come when it was in the list already
            raise

    @property
    def is_out_of_sight(self) -> bool:
        """Whether following it failed, so that its end is not known here."""
        return self._life.is_out_of_sight


def _check_seconds(timeout_s: object) -> None:
    if timeout_s is not None and not isinstance(timeout_s, int | float):
        raise TypeError(f"timeout_s takes a number of seconds or None, not {timeout_s!r:.80}")


def _let_scripts_print_lines() -> None:
    """Up to Python 3.12 the interpreter prints what ends a script itself, without `linecache`."""
    if sys.version_info < (3, 13) and sys.excepthook is sys.__excepthook__:
        sys.excepthook = traceback.print_exception
