"""The life of one run on the workspace's loop thread: started, followed, aborted, written down.

`Run` is what users hold; this is what works for it. Everything here happens in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, assert_never

import anyio

from .. import trail
from ..client.api import Client, Started, StartUnknown, ended_at_of
from ..client.stream import Item, Notice, Recovered, follow
from ..exceptions import (
    JournalUnavailable,
    LyceumError,
    RequestRefused,
    RunLost,
    ServerError,
    ServerUnreachable,
    ServiceUnavailable,
    UnknownRun,
)
from ..journal.journal import Entry, Journal
from ..outputs import tracebacks
from ..outputs.decoding import Decoded, Harvest, OutputDecoder, decode
from ..protocol.events import Finished, Output, Progress
from ..protocol.limits import MARK_CHARACTERS, TAG_KEY
from ..protocol.lines import one_line
from ..protocol.records import finished_of
from ..protocol.requests import Start
from ..protocol.states import State
from .backlog import Inbox, News

logger = logging.getLogger(__name__)

#: The pauses before each look for a run whose start got no reply: it may be listed a bit later.
LOOK_UP_PAUSES_S = (0.0, 0.5, 2.0)
#: How long the end of a followed run waits for what only its record says.
RECORD_LIMIT_S = 3.0
#: How long the end of an aborted run is waited for before the abort is asked for again.
CONFIRM_S = 10.0
#: The pauses between two looks at the record of a run whose end a callback speaks of: each twice
#: the last, up to the longest.
FIRST_HINT_PAUSE_S = 0.5
LONGEST_HINT_PAUSE_S = 60.0
#: So often may the record deny the end, as long as the run's stream can tell of it later.
DENIALS = 4
#: How long such a run's stream has for its last outputs.
STREAM_LIMIT_S = 5.0


class Following:
    """One run, from before its start to after its end.

    Attributes:
        entry: the newest that is known of it.
        log: its output on disk.
        harvest: what it has sent home beside its outputs; None if this process does not follow it.
        error: why following it failed.
        known, ended: reached when its id is known, and when it has ended or following it has.
            Futures, because both threads and event loops can wait for them.
        callback: what a callback to this process said of its end, once the server has confirmed it;
            `heard` is reached then.
        expects_callback: whether one can come.
        on_end: called once, on the loop thread, when its end is known here.
    """

    def __init__(self, journal: Journal, client: Client, entry: Entry) -> None:
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
        self._is_over = entry.is_final
        self._journal = journal
        self._client = client
        self._inboxes: list[Inbox] = []
        self._abort_asked = ""
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
        """Whether following it failed, so that its end is not known here."""
        return self.error is not None and not self.state.is_final

    @property
    def mark(self) -> str:
        """What tells the frames of this run from other text."""
        return self.entry.tag[:MARK_CHARACTERS]

    async def subscribe(self, inbox: Inbox) -> Iterator[Decoded]:
        """Return its output so far; the inbox gets what happens from then on."""
        # Both at once, so that nothing falls between them. A frame of which only a part has come
        # is in the inbox when the rest has.
        is_over = self.ended.done()
        if is_over:
            inbox.close()
        else:
            self._inboxes.append(inbox)
        return decode(self.log.read_text(self.log.size()), self.mark, is_over=is_over)

    async def live(self, request: Start | None) -> None:
        """Starts the run and follows it to its end, or only follows it where `request` is None."""
        try:
            self._is_writer = self._claim_log(is_new=request is not None)
            await self._decode_log()
            if request is not None:
                await self._start(request)
            elif not self._run_id:
                await self._find_unanswered_start()
            if not self.entry.is_final:
                last_event_id = self.log.last_event_id()
                before = self.log.read() if last_event_id is None else ()
                await follow(
                    self._client,
                    self._run_id,
                    self.entry.streaming_url,
                    self._take,
                    timeout_s=self.entry.timeout_s,
                    last_event_id=last_event_id,
                    delivered=(event.text for event, _ in before),
                )
                await self._learn_bill()
                if request is None:
                    await self._learn_end()
        except JournalUnavailable as exc:
            self.error = exc  # nothing was started
        except LyceumError as exc:
            self.error = exc
            if isinstance(exc, StartUnknown):
                self._write(reason=str(exc))  # not over: whoever attaches to it asks the server
            elif not self._run_id and (request is not None or isinstance(exc, UnknownRun)):
                # Who was refused can do something about it; all else is the platform's.
                state = State.FAILED if isinstance(exc, RequestRefused) else State.SYSTEM_FAILURE
                self._write(state=state.value, reason=str(exc), ended_at=time.time())
            elif isinstance(exc, RunLost):
                self._write(state=exc.state, reason=exc.reason, ended_at=time.time())
        except Exception as exc:  # noqa: BLE001 - the top of the task: nobody else would see it
            self.error = LyceumError(f"lyceum-magic failed while it followed the run: {exc!r}.")
            self.error.__cause__ = exc
        finally:
            self.log.close()
            if self._is_unwritten:
                self._write()  # there may be room again
            left = self._decode_rest()
            self._tell_end()
            _reach(self.known)
            _reach(self.ended)
            for inbox in self._inboxes:
                inbox.add(left)
                inbox.close()
            self._inboxes.clear()

    async def abort_when_known(self, why: str) -> None:
        """Aborts it as soon as its id is known, again and again until it has ended."""
        if self._abort_asked:
            return
        self._abort_asked = why
        await asyncio.wait([asyncio.wrap_future(self.known)])
        ended = asyncio.wrap_future(self.ended)
        while not self.ended.done():
            try:
                await self._client.abort(self._run_id)
            except LyceumError as exc:
                await self._tell([Notice(f"the abort failed: {exc}")])
            await asyncio.wait([ended], timeout=CONFIRM_S)

    async def on_callback(self, callback: Mapping[str, Any]) -> None:
        """Takes a callback for the hint that it is: what the server says is what is written down.

        It reaches who waits even where the stream is lost.
        """
        await asyncio.wait([asyncio.wrap_future(self.known)])
        if self.heard.done() or not self._run_id:
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

    # Underneath.

    async def _confirmed_end(self) -> tuple[Finished, float | None] | None:
        """The end by the run's record, and when it was if that says so.

        None if it has not ended, or the server has not answered within the run's own time limit.
        """
        pause_s, denials, until = FIRST_HINT_PAUSE_S, 0, time.monotonic() + self.entry.timeout_s
        while (denials < DENIALS or self.is_out_of_sight) and time.monotonic() < until:
            with contextlib.suppress(LyceumError):  # an answer may come later
                record = await self._client.record(self._run_id)
                if (end := finished_of(record)) is not None:
                    return end, ended_at_of(record)
                denials += 1
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_HINT_PAUSE_S)
        return None

    def _tell_end(self) -> None:
        if self._run_id and self.state.is_final and not self._is_over:
            self._is_over = True
            on_end, self.on_end = self.on_end, _nothing  # it may hold this very object
            on_end()

    @property
    def _run_id(self) -> str:
        return self.entry.run_id or ""

    async def _tell(self, news: Sequence[News], characters: int = 0) -> None:
        self._inboxes = [inbox for inbox in self._inboxes if not inbox.is_closed]
        trail.mark("client", self._run_id, "handed", items=len(news), to=len(self._inboxes))
        # A copy: one that subscribes while this waits for another has the news from the log.
        for inbox in list(self._inboxes):
            await inbox.put(news, characters)

    async def _decode_log(self) -> None:
        """Decode what an earlier follower has written down: the decoder goes on from there."""
        decoder, harvest = OutputDecoder(self.mark), Harvest()
        for event in self.log.read_text():
            harvest.take(decoder.feed(event))
            await asyncio.sleep(0)  # a log may be long, and other runs are followed meanwhile
        self._decoder, self.harvest = decoder, harvest

    async def _decode(self, event: Output, event_id: str | None) -> None:
        """Decode an event, keep what is to be kept, and tell the cell what is complete now."""
        assert self._decoder is not None
        assert self.harvest is not None
        items = self._decoder.feed(event)
        self._untold_characters += len(event.text)  # of a long message, in many events
        self.harvest.take(items)
        trail.mark("client", self._run_id, "decoded", event=event_id, items=len(items))
        if items:
            characters, self._untold_characters = self._untold_characters, 0
            await self._tell(items, characters)

    def _decode_rest(self) -> list[Decoded]:
        """Return what is left in the decoder when the run is not followed any more."""
        if self._decoder is None or self.harvest is None:
            return []
        left = self._decoder.close()
        if self.state.is_final:
            self.harvest.take(left)
        return left

    async def _start(self, request: Start) -> None:
        self._journal.write(self.entry)
        try:
            started = await self._client.start(request)
        except ServiceUnavailable:
            raise  # it says that nothing was started, and why
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
        self._write(run_id=started.run_id, streaming_url=started.streaming_url, reason="")
        _reach(self.known)

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
                if isinstance(metadata, dict) and metadata.get(TAG_KEY) == self.entry.tag:
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
                self.log.append(item, event_id)
                if self.log.problem:
                    self._warn(self.log.problem)
                if trail.is_on:
                    size = len(item.text.encode("utf-8", "replace"))
                    trail.mark("client", self._run_id, "journalled", event=event_id, bytes=size)
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
            return  # a stream that lags behind a callback
        started_at = self.entry.started_at
        if started_at is None and state in (State.STARTING, State.RUNNING):
            started_at = time.time()
        self._write(state=state.value, started_at=started_at)

    def _finish(self, end: Finished, ended_at: float | None = None) -> None:
        state = end.final_state
        started_at = self.entry.started_at
        if started_at is None and state in (State.COMPLETED, State.FAILED):
            started_at = self.entry.created_at  # nobody said when
        reason = one_line(end.error)
        if not reason and state is not State.COMPLETED:
            code = end.return_code
            reason = f"the program ended with exit code {code}" if code else f"the run {state}"
        if state is State.FAILED and not end.timed_out and self.harvest is not None:
            # What the program raised says more than its exit code.
            reason = tracebacks.headline(self.harvest.raised) or reason
        if self._abort_asked and state in (State.ABORTED, State.CANCELLED):
            reason = f"{reason} ({self._abort_asked})"
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
            self._write(billed=await self._client.billed(self._run_id))

    async def _learn_end(self) -> None:
        """When it ended: it may have been over long before anybody followed it again."""
        with contextlib.suppress(LyceumError), anyio.move_on_after(RECORD_LIMIT_S):
            record = await self._client.record(self._run_id)
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
        """Takes what has become of the run, and writes it down if the journal can be written.

        It is known here in any case: a full disk does not hide the run's end.
        """
        self.entry = replace(self.entry, **changes)
        if not self._is_writer:
            return
        self._is_unwritten = True
        # An end without the output before it would pass for all of the run. As it is, whoever
        # attaches to it next asks the server for the rest.
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
                "%s What comes of run %s is kept in this process alone until it can.",
                problem, self._run_id[:8],
            )  # fmt: skip


def _nothing() -> None:
    """For who wants no call."""


def _reach(milestone: Future[None]) -> None:
    if not milestone.done():
        milestone.set_result(None)
