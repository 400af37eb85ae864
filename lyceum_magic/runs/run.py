"""`Run`: the handle of one run, from before its start to after its end.

All its work (start, follow, abort, write down) is done by one task on the session's loop thread.
The methods here are called from any other thread, or from the user's own event loop.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent import futures
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from ..client.api import Client, Started, StartUnknown
from ..client.stream import Item, Notice, follow
from ..exceptions import (
    JournalUnavailable,
    LyceumError,
    RunAborted,
    RunFailed,
    RunLost,
    RunTimedOut,
    ServerError,
    ServerUnreachable,
    TransferError,
    UnknownRun,
)
from ..outputs import tracebacks
from ..outputs.decoding import Decoded, Harvest, decode
from ..outputs.notebook import ErrorOutput, NotebookOutput, to_outputs
from ..outputs.values import Values
from ..protocol.events import Finished, Output, Progress
from ..protocol.limits import MARK_CHARACTERS, TAG_KEY
from ..protocol.requests import Start
from ..protocol.states import State
from .inbox import Inbox
from .interrupts import noted_interrupts
from .journal import Entry, Journal
from .saving import Saved, write_files

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")

#: How often a wait in the user's own event loop lets Python notice an interrupt.
TICK_S = 0.1
#: The pauses before each look for a run whose start got no reply: it may be listed a bit later.
LOOK_UP_PAUSES_S = (0.0, 0.5, 2.0)
#: How long the end of an aborted run is waited for before the abort is asked for again.
CONFIRM_S = 10.0


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
        self, portal: BlockingPortal, journal: Journal, client: Client, entry: Entry
    ) -> None:
        self._portal = portal
        self._journal = journal
        self._client = client
        self._entry = entry
        self._log = journal.open_log(entry.tag)
        self._inboxes: list[Inbox] = []
        self._error: LyceumError | None = None
        self._abort_asked: str = ""
        self._is_writer = False
        self.note = ""
        self._harvest: Harvest | None = None
        self._values: Values | None = None
        self.allow_pickle = False
        self._task: Future[None] | None = None
        # Futures, because both threads and event loops can wait for them.
        self._known: Future[None] = Future()
        self._ended: Future[None] = Future()
        if entry.run_id is not None:
            self._known.set_result(None)
        if entry.is_final:
            self._ended.set_result(None)

    # What it is.

    @property
    def id(self) -> str:
        return self._entry.run_id or ""

    @property
    def machine(self) -> str:
        return self._entry.machine

    @property
    def name(self) -> str:
        return self._entry.name

    @property
    def timeout_s(self) -> int:
        return self._entry.timeout_s

    @property
    def is_embedded(self) -> bool:
        return self._entry.is_embedded

    @property
    def state(self) -> State:
        """Its state as last heard."""
        return State(self._entry.state)

    @property
    def return_code(self) -> int | None:
        """Exit code of its main process, 128 + n for signal n; None where there is none (yet)."""
        return self._entry.return_code

    @property
    def reason(self) -> str:
        """Why it did not complete, in one sentence; empty while it runs and when it completed."""
        return self._entry.reason

    @property
    def created_at(self) -> float:
        """When it was sent, in seconds since 1970 by this machine's clock."""
        return self._entry.created_at

    @property
    def elapsed_s(self) -> float:
        """Seconds from sending it to its end, or to now."""
        return (self._entry.ended_at or time.time()) - self._entry.created_at

    @property
    def price_per_hour(self) -> float | None:
        """Of its machine, in dollars; None where it is free or unknown."""
        return self._entry.price_per_hour

    @property
    def waited_s(self) -> float | None:
        """Seconds from sending it to its leaving the queue; None while it is there."""
        started_at = self._entry.started_at
        return None if started_at is None else max(0.0, started_at - self._entry.created_at)

    @property
    def billed(self) -> float | None:
        """What the server says it cost, in dollars; None where it does not say (yet)."""
        return self._entry.billed

    @property
    def cost(self) -> float | None:
        """What it has cost, in dollars: as billed, before that by its time so far.

        None where it is free or its price is unknown.
        """
        return self._entry.cost(time.time())

    @property
    def mark(self) -> str:
        """What tells the frames of this run from other text, for `outputs.decoding`."""
        return self._entry.tag[:MARK_CHARACTERS]

    @property
    def text(self) -> str:
        """All that it has printed so far, stdout and stderr in the order of arrival."""
        return "".join(item.text for item in self.decoded() if isinstance(item, Output))

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
        if self._harvest is not None:
            return self._harvest
        harvest = Harvest(self.mark)
        for event in self.read_log():
            harvest.feed(event)
        if self.state.is_final:
            harvest.close()
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
        return (event for event, _ in self._log.read())

    def __repr__(self) -> str:
        where = "LOCAL" if self.is_embedded else self._entry.base_url
        return f"<Run {self.id or '(starting)'} {self.state} on {self.machine} ({where})>"

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
        if not self._wait_for(self._ended, timeout_s):
            raise TimeoutError(f"run {self.id} has not ended within {timeout_s} s")
        return self.state

    def wait_started(self) -> None:
        """Waits until the server has answered the start; an interrupt meanwhile aborts the run.

        Raises:
            LyceumError: it could not be started.
        """
        self._wait_for(self._known, None)

    def _wait_for(self, milestone: Future[None], timeout_s: float | None) -> bool:
        try:
            done = bool(futures.wait([milestone], timeout_s).done)
        except KeyboardInterrupt:
            self.request_abort("interrupted")
            futures.wait([self._ended], CONFIRM_S)
            raise KeyboardInterrupt(f"run {self.id}: {self.state}") from None
        if done and self._error is not None:
            raise self._error
        return done

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
        """`await run` is `run.result()` in the user's own event loop.

        An interrupt aborts the run; a cancellation for another reason lets it go on.
        """
        return self._wait_in_loop().__await__()

    async def _wait_in_loop(self) -> Run:
        ended = asyncio.wrap_future(self._ended)
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
        kind = RunTimedOut if self._entry.timed_out else kinds.get(self.state, RunFailed)
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
        if not self._ended.done():
            self._call(order, self.id)
        return self.wait()

    def request_abort(self, why: str) -> None:
        """Asks for an abort and returns at once; a run that is still being started is aborted as
        soon as its id is known."""
        self._portal.start_task_soon(self._abort_when_known, why)

    def logs(self) -> list[str]:
        """Its log lines as the server keeps them."""
        self.wait_started()
        return self._call(self._client.logs, self.id)

    def record(self) -> dict[str, Any]:
        """Its record as the server gives it now."""
        self.wait_started()
        return dict(self._call(self._client.record, self.id))

    def _call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        return self._portal.call(function, *args)

    # Its task on the loop thread.

    def begin(self, request: Start | None) -> None:
        """Starts the task: start and follow, or only follow where `request` is None."""
        self._task = self._portal.start_task_soon(self._live, request)

    def leave(self) -> None:
        """Stops following it; it goes on where it runs."""
        if self._task is not None:
            self._task.cancel()
            futures.wait([self._ended])

    def watch(self) -> tuple[Iterator[Output], Inbox]:
        """What it has printed so far, and an inbox with what happens from then on.

        Close the inbox as soon as nobody reads it: the run is followed no faster than it is read.
        """
        inbox = Inbox()

        async def subscribe() -> Iterator[Output]:
            # Both on the loop thread at once, so that nothing falls between them.
            if self._ended.done():
                inbox.close()
            else:
                self._inboxes.append(inbox)
            return (event for event, _ in self._log.read(self._log.size()))

        try:
            return self._portal.call(subscribe), inbox
        except BaseException:
            inbox.close()  # an interrupt may have come when it was in the list already
            raise

    @property
    def is_out_of_sight(self) -> bool:
        """Whether following it failed, so that its end is not known here."""
        return self._error is not None and not self.state.is_final

    async def _tell(self, item: Item) -> None:
        self._inboxes = [inbox for inbox in self._inboxes if not inbox.is_closed]
        # A copy: who subscribes while this waits for another has read the item from the log.
        for inbox in list(self._inboxes):
            await inbox.put(item)

    async def _live(self, request: Start | None) -> None:
        try:
            self._is_writer = self._log.claim()
            if request is not None:
                self._harvest = Harvest(self.mark)
                await self._start(request)
            elif not self.id:
                await self._find_unanswered_start()
            if not self._entry.is_final:
                last_event_id = self._log.last_event_id()
                before = self._log.read() if last_event_id is None else ()
                await follow(
                    self._client,
                    self.id,
                    self._entry.streaming_url,
                    self._take,
                    timeout_s=self.timeout_s,
                    last_event_id=last_event_id,
                    delivered=(event.text for event, _ in before),
                )
                await self._learn_bill()
        except JournalUnavailable as exc:
            self._error = exc
        except LyceumError as exc:
            self._error = exc
            if not self.id and (request is not None or isinstance(exc, UnknownRun)):
                self._write(state=State.SYSTEM_FAILURE.value, reason=str(exc), ended_at=time.time())
            elif isinstance(exc, RunLost):
                self._write(state=exc.state, reason=exc.reason, ended_at=time.time())
        except Exception as exc:  # noqa: BLE001 - the top of the task: nobody else would see it
            self._error = LyceumError(f"lyceum-magic failed while it followed the run: {exc!r}.")
            self._error.__cause__ = exc
        finally:
            self._log.close()
            if self._harvest is not None and self.state.is_final:
                self._harvest.close()
            _reach(self._known)
            _reach(self._ended)
            for inbox in self._inboxes:
                inbox.close()
            self._inboxes.clear()

    async def _start(self, request: Start) -> None:
        self._journal.write(self._entry)
        try:
            started = await self._client.start(request)
        except (StartUnknown, ServerError) as exc:
            started = await self._find_lost_start(exc)
        self._know(started)

    async def _find_unanswered_start(self) -> None:
        """Finds a run whose kernel ended between sending the start and hearing the answer.

        Raises:
            UnknownRun: the server never had it.
        """
        never = UnknownRun("This run was never started: its kernel ended before the server had it.")
        self._know(await self._find_lost_start(never))

    def _know(self, started: Started) -> None:
        self._write(run_id=started.run_id, streaming_url=started.streaming_url)
        _reach(self._known)

    async def _find_lost_start(self, cause: LyceumError) -> Started:
        """Looks for a run that carries this run's tag, where a start got no reply.

        Raises:
            ServerUnreachable: nobody could be asked, or the server never had the run.
            LyceumError: the cause, where it already says that nothing was started.
        """
        unasked: ServerUnreachable | None = None
        for pause_s in LOOK_UP_PAUSES_S:
            await anyio.sleep(pause_s)
            try:
                records = [*await self._client.active(), *await self._client.history()]
            except ServerUnreachable as exc:
                unasked = exc
                continue
            unasked = None
            for record in records:
                metadata = record.get("metadata")
                if isinstance(metadata, dict) and metadata.get(TAG_KEY) == self._entry.tag:
                    return Started(str(record["execution_id"]), None)
        if not isinstance(cause, StartUnknown):
            raise unasked or cause
        if unasked is not None:
            raise StartUnknown(
                f"{cause} Nobody can be asked now whether it was started: look at `%lyceum list` "
                "before you run the cell again."
            ) from cause
        raise ServerUnreachable(
            f"{cause} The server has no such run, so nothing was started: run the cell again."
        ) from cause

    async def _take(self, item: Item, event_id: str | None) -> None:
        """Takes what the stream gives: writes it down first, then tells the cell."""
        match item:
            case Output():
                if self.state is not State.RUNNING:
                    self._write_state(State.RUNNING)
                self._log.append(item, event_id)
                if self._harvest is not None:
                    self._harvest.feed(item)
            case Progress():
                self._write_state(item.state)
            case Finished():
                self._finish(item)
            case Notice():
                pass
        await self._tell(item)

    def _write_state(self, state: State) -> None:
        started_at = self._entry.started_at
        if started_at is None and state in (State.STARTING, State.RUNNING):
            started_at = time.time()
        self._write(state=state.value, started_at=started_at)

    def _finish(self, end: Finished) -> None:
        state = end.final_state
        started_at = self._entry.started_at
        if started_at is None and state in (State.COMPLETED, State.FAILED):
            started_at = self._entry.created_at  # nobody said when
        reason = end.error
        if not reason and state is not State.COMPLETED:
            code = end.return_code
            reason = f"the program ended with exit code {code}" if code else f"the run {state}"
        if state is State.FAILED and not end.timed_out and self._harvest is not None:
            # What the program raised says more than its exit code.
            reason = tracebacks.headline(self._harvest.raised) or reason
        if self._abort_asked and state in (State.ABORTED, State.CANCELLED):
            reason = f"{reason} ({self._abort_asked})"
        self._write(
            state=state.value,
            return_code=end.return_code,
            reason=reason,
            timed_out=end.timed_out,
            started_at=started_at,
            ended_at=time.time(),
        )

    async def _learn_bill(self) -> None:
        if self.price_per_hour and self.state.is_final:
            self._write(billed=await self._client.billed(self.id))

    def _write(self, **changes: Any) -> None:
        self._entry = replace(self._entry, **changes)
        if self._is_writer:
            self._journal.write(self._entry)

    async def _abort_when_known(self, why: str) -> None:
        if self._abort_asked:
            return
        self._abort_asked = why
        await asyncio.wait([asyncio.wrap_future(self._known)])
        ended = asyncio.wrap_future(self._ended)
        while not self._ended.done():
            try:
                await self._client.abort(self.id)
            except LyceumError as exc:
                await self._tell(Notice(f"the abort failed: {exc}"))
            await asyncio.wait([ended], timeout=CONFIRM_S)


def _let_scripts_print_lines() -> None:
    """Up to Python 3.12 the interpreter prints what ends a script itself, without `linecache`."""
    if sys.version_info < (3, 13) and sys.excepthook is sys.__excepthook__:
        sys.excepthook = traceback.print_exception


def _reach(milestone: Future[None]) -> None:
    if not milestone.done():
        milestone.set_result(None)
