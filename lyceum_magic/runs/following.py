"""One run on the workspace's loop thread: started, followed, aborted, written to the journal.

Users hold a `Run`; a `Following` does its work, in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

import anyio

from .. import trail
from ..client.api import Client, StartAnswer, StartUnknown, ended_at_of
from ..client.stream import Item, Notice, Recovered, follow
from ..exceptions import (
    JournalUnavailable,
    LyceumError,
    RequestRefused,
    RunLost,
    UnknownRun,
)
from ..journal.journal import Entry, Journal
from ..outputs import tracebacks
from ..outputs.decoding import (
    Decoded,
    Harvest,
    OutputDecoder,
    SessionInterrupted,
    SessionSaved,
    decode,
)
from ..protocol.events import Finished, Output, Progress
from ..protocol.lines import one_line
from ..protocol.records import finished_of
from ..protocol.requests import Start
from ..protocol.states import State
from . import starting
from .backlog import Backlog, News
from .ending import Ending
from .loop import log_failure

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that the end of a followed run waits for the facts that only its record has.
RECORD_LIMIT_S = 3.0
#: Seconds between two reads of a run's record after a callback has told of its end: each pause is
#: twice the last, up to the longest.
FIRST_HINT_PAUSE_S = 0.5
LONGEST_HINT_PAUSE_S = 60.0
#: Number of times that the record may still say `running` after a callback, as long as the run's
#: stream can tell of the end later.
DENIALS = 4
#: Seconds that a run's stream has for its last outputs once the record has confirmed the end.
STREAM_LIMIT_S = 5.0
#: Seconds to wait for a callback after the end of its run: the server makes its first attempt at
#: once, the second after 5 seconds.
CALLBACK_GRACE_S = 10.0


class Following:
    """The work for one run, from before its start to after its end.

    Attributes:
        client: the client of its server.
        entry: its newest state.
        log: its output on disk.
        harvest: what it has sent home beside its outputs; None if this process does not follow it.
        error: why following it failed.
        known, ended: reached when its id is known, and when it has ended or following it has.
            Futures, because both threads and event loops can wait for them.
        callback: what a callback to this process said of its end, once the server has confirmed it;
            `heard` is reached then.
        expects_callback: whether a callback can come.
        ending: the requests to end it.
        on_end: called once, on the loop thread, when its end is known here.
    """

    def __init__(
        self, portal: BlockingPortal, journal: Journal, client: Client, entry: Entry
    ) -> None:
        self.client = client
        self.entry = entry
        self.log = journal.open_log(entry.tag)
        self.harvest: Harvest | None = None
        self._decoder: OutputDecoder | None = None  # with `harvest`: it has read all of the log
        self._untold_characters = 0
        self.error: LyceumError | None = None
        self.known: Future[None] = Future()
        self.ended: Future[None] = Future()
        self.heard: Future[None] = Future()
        self.callback: Mapping[str, Any] | None = None
        self.expects_callback = False
        self.on_end: Callable[[], None] = _nothing
        self.ending = Ending(client, lambda: self.run_id, self.known, self.ended, self._notify)
        self._is_over = entry.is_final
        self._pid = os.getpid()
        self._portal = portal
        self._journal = journal
        self._task: Future[None] | None = None
        self._backlogs: list[Backlog] = []
        self._is_writer = False
        self._is_unwritten = False
        self._has_warned = False
        if entry.run_id is not None:
            self.known.set_result(None)
        if entry.is_final:
            self.ended.set_result(None)

    @property
    def state(self) -> State:
        return State(self.entry.state)

    @property
    def is_out_of_sight(self) -> bool:
        """True if following it failed, so that its end is not known here."""
        return self.error is not None and not self.state.is_final

    @property
    def run_id(self) -> str:
        """The server's id of the run; empty until the server has answered the start."""
        return self.entry.run_id or ""

    @property
    def known_as(self) -> str:
        """Its id, or its tag as long as it has no id."""
        return self.run_id or self.entry.tag

    @property
    def reason(self) -> str:
        """The reason why it did not complete, in one sentence."""
        return one_line(self.entry.reason)  # an earlier version may have written several

    # From any thread.

    def check_process(self) -> None:
        """Check that this process follows the run.

        Raises:
            LyceumError: it has only inherited the run from the process that it was forked from.
        """
        if os.getpid() != self._pid:
            raise LyceumError(
                f"Run {self.known_as} is followed by the process that this one was forked from; "
                f"attach to it again here: lyceum_magic.attach({self.known_as!r})."
            )

    def ask(self, question: Callable[..., Awaitable[T]], *args: object) -> T:
        """Return the result of a coroutine function, called on the loop thread."""
        self.check_process()
        return self._portal.call(question, *args)

    def begin(self, request: Start | None) -> None:
        """Start the run and follow it; only follow it where `request` is None."""
        self.check_process()
        self._task = self._portal.start_task_soon(self._live, request)
        self._task.add_done_callback(log_failure)

    def request_abort(self, why: str) -> None:
        """Ask for an abort and return at once."""
        self._ask_in_passing(self.ending.abort, why)

    def request_interrupt(self, why: str) -> None:
        """Interrupt the cell of a session, and abort any other run; return at once."""
        self._ask_in_passing(self.ending.interrupt, why)

    def _ask_in_passing(self, request: Callable[[str], Awaitable[None]], why: str) -> None:
        self.check_process()
        asking = self._portal.start_task_soon(request, why)
        asking.add_done_callback(log_failure)

    def leave(self) -> None:
        """Stop following the run; it goes on where it runs."""
        if self._task is not None:
            self._task.cancel()
            futures.wait([self.ended])

    # On the loop thread.

    async def subscribe(self, backlog: Backlog) -> Iterator[Decoded]:
        """Return its output so far; the backlog gets what happens from then on."""
        # Both at once, so that nothing falls between them. A frame of which only a part has come
        # is in the backlog when the rest has.
        is_over = self.ended.done()
        if is_over:
            backlog.close()
        else:
            self._backlogs.append(backlog)
        return decode(self.log.read_text(self.log.size()), self.entry.mark, is_over=is_over)

    async def _live(self, request: Start | None) -> None:
        try:
            self._is_writer = self._claim_log(is_new=request is not None)
            await self._decode_log()
            await self._start_or_find(request)
            if not self.entry.is_final:
                await self._follow()
                await self._learn_bill()
                if request is None:
                    await self._learn_end()
        except LyceumError as exc:
            self._note_failure(exc, is_new=request is not None)
        except Exception as exc:  # noqa: BLE001 - the top of the task: nothing else would show it
            self.error = LyceumError(f"lyceum-magic failed while it followed the run: {exc!r}.")
            self.error.__cause__ = exc
        finally:
            self._finish_following()
        if self.expects_callback and self.is_out_of_sight:
            # The user may have dropped the run. This task holds it, so that hooks are told still.
            heard = asyncio.wrap_future(self.heard)
            await asyncio.wait([heard], timeout=CALLBACK_GRACE_S + self.entry.timeout_s)

    async def _start_or_find(self, request: Start | None) -> None:
        if request is not None:
            self._journal.write(self.entry)
            self._know(await starting.start(self.client, request, self.entry.tag))
        elif not self.run_id:
            self._know(await starting.find_unanswered(self.client, self.entry.tag))

    async def _follow(self) -> None:
        last_event_id = self.log.last_event_id()
        before = self.log.read() if last_event_id is None else ()
        await follow(
            self.client,
            self.run_id,
            self.entry.streaming_url,
            self._take,
            timeout_s=self.entry.timeout_s,
            last_event_id=last_event_id,
            delivered=(event.text for event, _ in before),
        )

    def _note_failure(self, exc: LyceumError, *, is_new: bool) -> None:
        self.error = exc
        if isinstance(exc, JournalUnavailable):
            return  # nothing was started
        if isinstance(exc, StartUnknown):
            self._write(reason=str(exc))  # it may go on: the next to attach to it asks the server
        elif not self.run_id and (is_new or isinstance(exc, UnknownRun)):
            # The user can act on a refusal; all other failures are the platform's.
            state = State.FAILED if isinstance(exc, RequestRefused) else State.SYSTEM_FAILURE
            self._write(state=state.value, reason=str(exc), ended_at=time.time())
        elif isinstance(exc, RunLost):
            self._write(state=exc.state, reason=exc.reason, ended_at=time.time())

    def _finish_following(self) -> None:
        self.log.close()
        if self._is_unwritten:
            self._write()  # there may be room again
        left = self._decode_rest()
        self._tell_end()
        _reach(self.known)
        _reach(self.ended)
        for backlog in self._backlogs:
            backlog.add(left)
            backlog.close()
        self._backlogs.clear()

    async def on_callback(self, callback: Mapping[str, Any]) -> None:
        """Take a callback as a hint: read the run's record, and write down what the server says.

        So those who wait for the run learn of its end even if its stream is lost.
        """
        await asyncio.wait([asyncio.wrap_future(self.known)])
        if self.heard.done() or not self.run_id:
            return
        confirmed = await self._confirmed_end()
        if confirmed is None:
            return  # it has not ended; its stream goes on
        if not self.ended.done():  # it brings what a record does not: outputs, what was raised
            await asyncio.wait([asyncio.wrap_future(self.ended)], timeout=STREAM_LIMIT_S)
        if not self.state.is_final:
            self._finish(*confirmed)
            if self.ended.done():
                self.error = None  # following it failed; its end is known all the same
        self.callback = callback
        self._tell_end()
        _reach(self.heard)

    # Helpers.

    async def _confirmed_end(self) -> tuple[Finished, float | None] | None:
        """Return the end as the run's record has it, with its time if the record says so.

        None if it has not ended, or the server has not answered within the run's own time limit.
        """
        pause_s, denials, until = FIRST_HINT_PAUSE_S, 0, time.monotonic() + self.entry.timeout_s
        while (denials < DENIALS or self.is_out_of_sight) and time.monotonic() < until:
            with contextlib.suppress(LyceumError):  # an answer may come later
                record = await self.client.record(self.run_id)
                if (end := finished_of(record)) is not None:
                    return end, ended_at_of(record)
                denials += 1
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_HINT_PAUSE_S)
        return None

    def _tell_end(self) -> None:
        if self.run_id and self.state.is_final and not self._is_over:
            self._is_over = True
            on_end, self.on_end = self.on_end, _nothing  # it may hold this very object
            on_end()

    async def _notify(self, sentence: str) -> None:
        await self._tell([Notice(sentence)])

    async def _tell(
        self, news: Sequence[News], characters: int = 0, event_id: str | None = None
    ) -> None:
        self._backlogs = [backlog for backlog in self._backlogs if not backlog.is_closed]
        if trail.is_on:
            trail.mark(
                "client", self.run_id, "handed",
                event=event_id, **_amount(news), to=len(self._backlogs),
            )  # fmt: skip
        # A copy: one that is added while this waits for another has the news from the log.
        for backlog in list(self._backlogs):
            await backlog.put(news, characters)

    async def _decode_log(self) -> None:
        """Decode what an earlier follower has written down: the decoder goes on from there."""
        decoder, harvest = OutputDecoder(self.entry.mark), Harvest()
        for event in self.log.read_text():
            items = decoder.feed(event)
            harvest.take(items)
            self._note_session(items)
            await asyncio.sleep(0)  # a log may be long, and other runs are followed meanwhile
        self._decoder, self.harvest = decoder, harvest

    async def _decode(self, event: Output, event_id: str | None) -> None:
        """Decode an event, keep what is to be kept, and tell the cell what is complete now."""
        assert self._decoder is not None
        assert self.harvest is not None
        items = self._decoder.feed(event)
        self._untold_characters += len(event.text)  # of a long message, in many events
        self.harvest.take(items)
        self._note_session(items)
        if trail.is_on:
            trail.mark(
                "client", self.run_id, "decoded",
                event=event_id, bytes=event.size, **_amount(items),
            )  # fmt: skip
        if items:
            characters, self._untold_characters = self._untold_characters, 0
            await self._tell(items, characters, event_id)

    def _note_session(self, items: Sequence[Decoded]) -> None:
        """Write down the snapshot that the run says it has saved; note a taken interrupt."""
        for item in items:
            match item:
                case SessionSaved(sha256=sha256) if sha256:
                    try:
                        self._journal.snapshots.note_saved(self.entry.tag, item.id, sha256)
                    except JournalUnavailable as exc:
                        self._warn(str(exc))
                case SessionInterrupted():
                    _reach(self.ending.interrupted)

    def _decode_rest(self) -> list[Decoded]:
        """Return what is left in the decoder when the run is not followed any more."""
        if self._decoder is None or self.harvest is None:
            return []
        left = self._decoder.close()
        if self.state.is_final:
            self.harvest.take(left)
        return left

    def _know(self, started: StartAnswer) -> None:
        self._write(run_id=started.run_id, streaming_url=started.streaming_url, reason="")
        _reach(self.known)

    async def _take(self, item: Item, event_id: str | None) -> None:
        """Take an item of the stream: write it down first, then pass it on."""
        match item:
            case Output():
                if self.state is not State.RUNNING:
                    self._write_state(State.RUNNING)
                self.log.append(item, event_id)
                if self.log.problem:
                    self._warn(self.log.problem)
                if trail.is_on:
                    trail.mark("client", self.run_id, "journalled", event=event_id, bytes=item.size)
                await self._decode(item, event_id)
                return
            case Progress():
                self._write_state(item.state)
            case Finished():
                self._finish(item)
            case Notice() | Recovered():
                pass
            case _:
                assert_never(item)
        await self._tell([item])

    def _write_state(self, state: State) -> None:
        if self.state.is_final:
            return  # a callback was faster than the stream
        started_at = self.entry.started_at
        if started_at is None and state in (State.STARTING, State.RUNNING):
            started_at = time.time()
        self._write(state=state.value, started_at=started_at)

    def _finish(self, end: Finished, ended_at: float | None = None) -> None:
        state = end.final_state
        started_at = self.entry.started_at
        if started_at is None and state in (State.COMPLETED, State.FAILED):
            started_at = self.entry.created_at  # its start was not seen
        reason = one_line(end.error)
        if not reason and state is not State.COMPLETED:
            code = end.return_code
            reason = f"the program ended with exit code {code}" if code else f"the run {state}"
        if state is State.FAILED and not end.timed_out and self.harvest is not None:
            # What the program raised says more than its exit code.
            reason = tracebacks.headline(self.harvest.raised) or reason
        if self.ending.why and state in (State.ABORTED, State.CANCELLED):
            reason = f"{reason} ({self.ending.why})"
        self._write(
            state=state.value,
            return_code=end.return_code,
            reason=reason,
            timed_out=end.timed_out,
            started_at=started_at,
            ended_at=ended_at or time.time(),
        )

    async def _learn_bill(self) -> None:
        if self.entry.price_per_hour and self.state.is_final:
            self._write(billed=await self.client.billed(self.run_id))

    async def _learn_end(self) -> None:
        """Read the time of its end, which may be long before this process followed it."""
        with contextlib.suppress(LyceumError), anyio.move_on_after(RECORD_LIMIT_S):
            record = await self.client.record(self.run_id)
            if self.entry.is_final and (ended_at := ended_at_of(record)) is not None:
                self._write(ended_at=ended_at)

    def _claim_log(self, *, is_new: bool) -> bool:
        """Return whether this process writes the run down.

        Raises:
            JournalUnavailable: nothing can be written, and the run has not been started.
        """
        try:
            return self.log.claim()
        except JournalUnavailable as exc:
            if is_new:
                raise
            self._warn(str(exc))
            self.log.keep_in_memory()
            return False

    def _write(self, **changes: Any) -> None:
        """Change the run's entry, and write it down if the journal can be written.

        The entry is right in this process in any case: a full disk does not hide the run's end.
        """
        self.entry = replace(self.entry, **changes)
        if not self._is_writer:
            return
        self._is_unwritten = True
        # An end without the output before it would pass for the whole run. Without the end, the
        # next process that attaches to the run asks the server for the rest.
        if self.entry.is_final and not self.log.save():
            self._warn(self.log.problem)
            return
        try:
            self._journal.write(self.entry)
        except JournalUnavailable as exc:
            self._warn(str(exc))
        else:
            self._is_unwritten = False

    def _warn(self, problem: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s Until it can, what comes of run %s is kept in this process alone.",
                problem, self.run_id[:8],
            )  # fmt: skip


def _amount(news: Sequence[News]) -> dict[str, int]:
    """Return what the debug trail says of items."""
    return {"items": len(news), "text": sum(n.size for n in news if isinstance(n, Output))}


def _nothing() -> None:
    """Do nothing: the `on_end` of a run without hooks."""


def _reach(milestone: Future[None]) -> None:
    if not milestone.done():
        milestone.set_result(None)
