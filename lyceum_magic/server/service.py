"""The rules of the embedded server: what a run may ask for, when it starts, how its end is told.

Requests come in validated, records go out; there is no HTTP, no SQL and no subprocess here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .. import trail
from ..disks import reason
from ..exceptions import EmbeddedServerError, LyceumError, UnknownRun
from ..protocol.callback_urls import problem_of_url
from ..protocol.limits import MAX_CALLBACK_URLS
from ..protocol.lines import one_line
from ..protocol.requests import Start
from ..protocol.states import State
from .context import Context
from .machines import machine_named, runner_name
from .metrics import record_usage
from .outbox.planning import deliveries_of
from .output.masking import masked
from .run import ServerRun
from .run_folders import RunFolders
from .runners.base import InvalidField, RunEnd, RunHandle, Runner, RunOrder
from .sessions.sessions import Sessions
from .stores.base import (
    Delivery,
    EndedRun,
    HistoryPage,
    RunRecord,
    Store,
    StoreUnavailable,
)
from .tasks import log_failure

logger = logging.getLogger(__name__)

#: The pause before another attempt to write down an end that a full disk has refused.
REWRITE_S = 5.0

#: The longest that abort and stop wait for the end they ordered before they answer. In seconds.
CONFIRMATION_S = 5.0

#: The number of ended runs that are read from the store at a time.
PAGE_RUNS = 100

_Steps = Callable[[ServerRun], Awaitable[None]]

_NOTEBOOK_JOB = "customer_notebook"
_NO_TRACE = (
    "it is not known how the run ended: its folder is gone from the server's disk; run it again if "
    "its result is needed"
)
_READING = "what was asked for cannot be read, and its runs are not taken up until it can"
_WRITING = "the ends of runs cannot be written down, and callbacks wait until they can"


class ServerBusy(LyceumError):
    """The server does not end while runs are not over."""


@dataclass(frozen=True)
class Outbox:
    """The service's way to the outbox.

    Attributes:
        problem_of_url: Returns why no callback can go to a URL, in one sentence; None if it can.
        on_deliveries: Called with the endpoints of new deliveries; must return at once.
        next_at: Returns when the next callback is due, in seconds since 1970; None if none is.
    """

    problem_of_url: Callable[[str], str | None] = problem_of_url
    on_deliveries: Callable[[Collection[str]], None] = lambda endpoints: None
    next_at: Callable[[], float | None] = lambda: None


class RunService:
    """The service that starts, follows and ends runs.

    Args:
        runners: name -> runner, for every name in `machines.MACHINES`.
        runs_folder: where every run gets a folder of its own.
        sessions: the account's sessions, in which runs may take part.
        max_running: how many runs are under way at a time.
    """

    def __init__(
        self,
        store: Store,
        runners: Mapping[str, Runner],
        runs_folder: Path,
        outbox: Outbox,
        context: Context,
        *,
        sessions: Sessions,
        max_running: int,
    ) -> None:
        self._store = store
        self._runners = runners
        self._outbox = outbox
        self._secrets = context.secrets
        self._troubles = context.troubles
        self._clock = context.clock
        self.activity = context.activity
        self._folders = RunFolders(runs_folder)
        self._sessions = sessions
        self._max_running = max_running
        self._tracked: dict[str, ServerRun] = {}
        self._queue: list[ServerRun] = []
        self._drivers: set[asyncio.Task[None]] = set()
        # Runs that are over, and whose end could not be written down yet.
        self._unwritten: dict[str, ServerRun] = {}
        self._followers: Counter[str] = Counter()  # by run

    async def open(self) -> None:
        """Find the runs of earlier servers again."""
        self._folders.make()
        for record in await self._store.unfinished():
            if step := record.request.step:
                self._sessions.take_up(step, record.run_id)
            run = self._track(record)
            self._drive(run, self._take_up)

    async def close(self) -> None:
        """Let go of the runs; they go on, and the next server finds them."""
        for driver in self._drivers:
            driver.cancel()
        if self._drivers:
            await asyncio.wait(self._drivers)  # what they raise is logged

    async def start(self, request: Start) -> RunRecord:
        """Write a new run down and start it as soon as a slot is free.

        Raises:
            UnknownMachine: no machine has that name; the message lists those that exist.
            InvalidField: a field cannot be used, see `Runner.check`; or a text is not Unicode; or
                no callback can go to a URL.
            EngineUnavailable: there is no container engine.
            SessionConflict, SnapshotDamaged, SessionFull: its session cannot go on with it.
        """
        runner = self._runner_of(request)
        _check_texts(request)
        self._check_callback_urls(request.user_callback_urls or ())
        await runner.check(request)
        record = RunRecord(str(uuid.uuid4()), request, self._clock())
        trail.mark("server", record.run_id, "accepted", kind=request.kind)
        await self._add(record)
        trail.mark("server", record.run_id, "queued", ahead=len(self._queue))
        self._queue.append(self._track(record))
        self._start_what_fits()
        return record

    async def find(self, run_id: str) -> ServerRun:
        """Return the run of this id, over or not.

        Raises:
            UnknownRun: there is none.
        """
        if run := self._tracked.get(run_id) or self._unwritten.get(run_id):
            return run
        if record := await self._store.get(run_id):
            return ServerRun(record)
        raise UnknownRun(f"No run has the id {run_id!r}.")

    def active(self) -> Sequence[RunRecord]:
        """Return the runs that are not over, newest first."""
        return [run.record for run in reversed(self._tracked.values())]

    async def history(self, *, limit: int, offset: int) -> HistoryPage:
        """Return a page of all runs, newest first."""
        page = await self._store.history(limit=limit, offset=offset)
        records = [
            run.record if (run := self._unwritten.get(record.run_id)) else record
            for record in page.records
        ]
        return replace(page, records=records)

    def spools_going_on(self) -> Mapping[str, Path]:
        """Return the id and output of every run that is not over."""
        return {run.run_id: run.spool for run in self._tracked.values() if run.spool}

    async def ended_since(self, moment: float) -> AsyncIterator[Sequence[EndedRun]]:
        """Yield the runs that ended at `moment` or later and have output, the newest end first."""
        last: EndedRun | None = None
        while runs := await self._store.ended_since(moment, limit=PAGE_RUNS, before=last):
            yield runs
            last = runs[-1]

    async def abort(self, run_id: str) -> RunRecord:
        """Kill a run; return its record when it is over, or after `CONFIRMATION_S`.

        Raises:
            UnknownRun: there is none of this id.
        """
        return await self._order(run_id, "kill")

    async def abort_all(self) -> None:
        """Kill all runs; return when all are over, or after `CONFIRMATION_S`."""
        await asyncio.gather(*(self.abort(run_id) for run_id in list(self._tracked)))

    async def stop(self, run_id: str) -> RunRecord:
        """Ask a run to end, kill it after its grace; return its record as `abort` does.

        Raises:
            UnknownRun: there is none of this id.
        """
        return await self._order(run_id, "stop")

    @contextlib.contextmanager
    def following(self, run_id: str) -> Iterator[None]:
        """Count a follower for as long as the block lasts: a server with one is not idle."""
        self._followers[run_id] += 1
        self.activity.ring()
        try:
            yield
        finally:
            self._followers[run_id] -= 1
            self._followers += Counter()  # drops those that are at 0
            self.activity.ring()

    @property
    def followers(self) -> int:
        """The number of readers that follow runs now."""
        return self._followers.total()

    def is_in_use(self, run_id: str) -> bool:
        """Return whether a run is not over, or still has a follower."""
        return run_id in self._tracked or run_id in self._followers

    async def idle(self, for_s: float) -> None:
        """Wait until there has been neither a live run nor a follower for `for_s` seconds.

        Not while a callback is due within as many seconds; later ones are for the next server.
        """
        while True:
            change = self.activity.listen()
            wait_s = None if self._tracked or self.followers else for_s
            try:
                async with asyncio.timeout(wait_s):
                    await change.wait()
            except TimeoutError:
                next_at = self._outbox.next_at()
                if next_at is None or next_at > self._clock() + for_s:
                    return

    def check_idle(self) -> None:
        """Raise ServerBusy while a run is not over."""
        if number := len(self._tracked):
            raise ServerBusy(f"{_count(number)} not over yet; abort or wait, then ask again.")

    # From the queue to the end

    async def _add(self, record: RunRecord) -> None:
        """Write a new run down, after it has claimed its place in a session."""
        step = record.request.step
        if step is not None:
            await self._sessions.claim(step, record.run_id)
        try:
            await self._store.add(record)
        except BaseException:
            if step is not None:
                await self._sessions.settle(step, record.run_id)
            raise

    def _start_what_fits(self) -> None:
        while self._queue and len(self._tracked) - len(self._queue) < self._max_running:
            run = self._queue.pop(0)
            self._drive(run, self._run)
        for ahead, run in enumerate(self._queue, start=1):
            run.show(detail=f"{ahead} {'run' if ahead == 1 else 'runs'} ahead")

    async def _take_up(self, run: ServerRun) -> None:
        problem: EmbeddedServerError | None = None
        try:
            # With what is sealed: its callback URLs, and what it needs if it has not begun.
            run.show(replace(run.record, request=await self._request(run.run_id)))
        except EmbeddedServerError as exc:
            problem = exc
        handle = await self._runner_of(run.record.request).find(self._run_order(run.record))
        if handle is not None:
            if problem is not None:
                logger.error("run %s will send no callbacks: %s", run.run_id, problem)
            await self._follow_to_the_end(run, handle)
            return
        if run.record.started_at is not None:  # what has begun is never begun a second time
            problem = EmbeddedServerError(_NO_TRACE)
        if problem is not None:
            await self._lose(run, problem)
            return
        run.show(replace(run.record, state=State.PENDING))
        self._queue.append(run)
        self._queue.sort(key=lambda queued: queued.record.created_at)
        self._start_what_fits()

    async def _request(self, run_id: str) -> Start:
        """Return all that was asked for, as soon as the disk gives it.

        Raises:
            EmbeddedServerError: it cannot be decrypted.
        """
        while True:
            try:
                request = await self._store.request(run_id)
            except StoreUnavailable as exc:
                self._troubles.begin(_READING, exc)
                await asyncio.sleep(REWRITE_S)
            else:
                self._troubles.end(_READING)
                return request

    async def _run(self, run: ServerRun) -> None:
        run.show(replace(run.record, state=State.STARTING))
        try:
            secrets = await self._secrets()
        except EmbeddedServerError as exc:
            await self._lose(run, exc)
            return
        run.secrets = secrets
        run_order = replace(self._run_order(run.record), environment=secrets)
        try:
            run_order.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            why = f"the run could not be started: {reason(exc, run_order.folder)}"
            await self._lose(run, EmbeddedServerError(why))
            return
        runner = self._runner_of(run.record.request)
        handle = await runner.start(run_order, lambda step: run.show(detail=step))
        trail.mark("server", run.run_id, "started")
        await self._follow_to_the_end(run, handle)

    async def _follow_to_the_end(self, run: ServerRun, handle: RunHandle) -> None:
        run.handle = handle
        run.show(replace(run.record, state=State.STARTING, spool=handle.spool))
        if run.order is not None:
            await _pass_on(run.order, handle)
        await handle.started()
        recording: asyncio.Task[None] | None = None
        try:
            if handle.started_at is not None:
                record = replace(run.record, state=State.RUNNING, started_at=handle.started_at)
                run.show(record, detail=handle.detail)
                handle.on_detail = lambda: run.show(detail=handle.detail)
                trail.mark("server", run.run_id, "running")
                recording = asyncio.create_task(record_usage(handle))
                # A run goes on even if that cannot be written.
                with contextlib.suppress(StoreUnavailable):
                    await self._store.update(record)
            end = await handle.ended()
        finally:
            if recording is not None:
                recording.cancel()
        await self._finish(run, end)

    async def _lose(self, run: ServerRun, error: EmbeddedServerError) -> None:
        """End a run that cannot start, for a reason that the user can do something about."""
        await self._finish(run, RunEnd("lost", None, str(error), None, self._clock()))

    async def _finish(self, run: ServerRun, end: RunEnd) -> None:
        record = final_record(run.record, await self._masked(run, end))
        if step := record.request.step:
            # Before anybody is told: the next cell may start at once.
            await self._sessions.settle(step, run.run_id)
        # Once: their ids stay the same however often they must be written.
        deliveries = deliveries_of(record, record.request.user_callback_urls or (), self._clock())
        try:
            # First on disk, then told: a client that hears of the end can read it.
            await self._write_down(record, deliveries)
        except Exception as exc:  # noqa: BLE001 - what it says is logged
            # Told all the same, so that no client waits for ever. It stays as told from now on:
            # this server keeps it until it can be written, and the next one finds the run again.
            self._troubles.begin(_WRITING, exc)
            self._unwritten[run.run_id] = run
            self._drive(run, lambda run: self._write_end(run, deliveries))
        finally:
            del self._tracked[run.run_id]
            run.show(record)
            self.activity.ring()
            self._start_what_fits()

    async def _write_end(self, run: ServerRun, deliveries: Sequence[Delivery]) -> None:
        while run.run_id in self._unwritten:
            await asyncio.sleep(REWRITE_S)
            now = self._clock()  # it may have been set back since
            due = [replace(delivery, planned_at=now, next_at=now) for delivery in deliveries]
            try:
                await self._write_down(run.record, due)
            except Exception as exc:  # noqa: BLE001 - what it says is logged, and the loop goes on
                # Said again: an end that needs less may have been written in between.
                self._troubles.begin(_WRITING, exc)
            else:
                del self._unwritten[run.run_id]

    async def _write_down(self, record: RunRecord, deliveries: Sequence[Delivery]) -> None:
        await self._store.finish(record, deliveries)
        self._troubles.end(_WRITING)
        trail.mark("server", record.run_id, "end", state=record.state.value)
        for delivery in deliveries:
            trail.mark("server", record.run_id, "outbox", delivery=delivery.delivery_id)
        if deliveries:
            self._outbox.on_deliveries({delivery.endpoint for delivery in deliveries})

    async def _masked(self, run: ServerRun, end: RunEnd) -> RunEnd:
        """Return the end without the secrets of the run and of the account.

        An engine's error may quote the program's, which has the secrets of its start, even if they
        have changed since.
        """
        if not end.error:
            return end
        values = {*run.secrets.values()}
        # What this server cannot read it has given to no run.
        with contextlib.suppress(EmbeddedServerError):
            values |= {*(await self._secrets()).values()}
        return replace(end, error=masked(end.error, values))

    async def _order(self, run_id: str, order: Literal["kill", "stop"]) -> RunRecord:
        run = await self.find(run_id)
        if run.is_over:
            return run.record
        if run in self._queue:
            self._queue.remove(run)
            reason: Literal["aborted", "stopped"] = "aborted" if order == "kill" else "stopped"
            await self._finish(run, RunEnd(reason, None, "", None, self._clock()))
            return run.record
        # A run whose handle is still to come gets the order passed on with it.
        run.order = order
        if run.handle is not None:
            await _pass_on(order, run.handle)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONFIRMATION_S):
                await _over(run)
        return run.record

    def _check_callback_urls(self, urls: Sequence[str]) -> None:
        field = "user_callback_urls"
        if len(urls) > MAX_CALLBACK_URLS:
            raise InvalidField(
                f"a run may have {MAX_CALLBACK_URLS} callback URLs, and here are {len(urls)}",
                field=field,
            )
        for url in urls:
            if problem := self._outbox.problem_of_url(url):
                raise InvalidField(problem, field=field)

    def _drive(self, run: ServerRun, steps: _Steps) -> None:
        driver = asyncio.create_task(self._end_in_any_case(run, steps), name=f"run {run.run_id}")
        driver.add_done_callback(log_failure)
        self._drivers.add(driver)
        driver.add_done_callback(self._drivers.discard)

    async def _end_in_any_case(self, run: ServerRun, steps: _Steps) -> None:
        try:
            await steps(run)
        except Exception:  # the top of a run: whatever failed, the run has to end
            logger.exception("run %s failed inside the server", run.run_id)
            if run.is_over:
                return
            error = "the server failed while it worked on the run; its log says why"
            await self._finish(run, RunEnd("lost", None, error, None, self._clock()))

    def _track(self, record: RunRecord) -> ServerRun:
        run = self._tracked[record.run_id] = ServerRun(record)
        self.activity.ring()
        return run

    def _runner_of(self, request: Start) -> Runner:
        return self._runners[runner_name(request.kind, request.execution_type)]

    def _run_order(self, record: RunRecord) -> RunOrder:
        step = record.request.step
        return RunOrder(
            record.run_id,
            self._folders.of(record.run_id),
            record.request,
            stop_grace_s=record.request.grace_s,
            has_gpu=machine_named(record.request.execution_type).has_gpu,
            session_folder=self._sessions.folder_of(step.key) if step else None,
        )


def final_record(record: RunRecord, end: RunEnd) -> RunRecord:
    """Return the record of a run that ended as `end` says."""
    state, error = _outcome(record, end)
    return replace(
        record,
        request=record.request.when_over(),
        state=state,
        timed_out=end.reason == "timeout",
        # A run that its limit ended has no exit code of its own to report.
        return_code=None if end.reason == "timeout" else end.return_code,
        error=one_line(error),
        started_at=end.started_at if end.started_at is not None else record.started_at,
        finished_at=end.finished_at,
    )


def _outcome(record: RunRecord, end: RunEnd) -> tuple[State, str]:
    """Return the final state, and the sentence that every end other than `completed` carries."""
    match end.reason:
        case "exited" if end.return_code == 0:
            return State.COMPLETED, ""
        case "exited":
            return State.FAILED, end.error or f"the program ended with exit code {end.return_code}"
        case "timeout":
            limit = f"the time limit of {record.request.timeout} s ended the run"
            return State.FAILED, limit
        case "aborted":
            return State.ABORTED, end.error or "the run was aborted"
        case "stopped" if record.job_type == _NOTEBOOK_JOB:
            return State.COMPLETED, ""
        case "stopped":
            return State.CANCELLED, end.error or "the run was stopped"
        case "refused":
            return State.FAILED, end.error or "the run could not be started"
        case "lost":
            return State.SYSTEM_FAILURE, end.error or "the server lost the run"


def _check_texts(request: Start) -> None:
    """Raise InvalidField for half of a surrogate pair: JSON can hold it, no file can."""
    for field, value in request:
        try:
            for text in _texts(value):
                text.encode()
        except UnicodeEncodeError:
            # Not chained: that exception holds the whole text.
            message = f"{field} must be Unicode text; it holds half of a surrogate pair"
            raise InvalidField(message, field=field) from None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value
        yield from value.values()


async def _pass_on(order: Literal["kill", "stop"], handle: RunHandle) -> None:
    await (handle.kill() if order == "kill" else handle.stop())


async def _over(run: ServerRun) -> None:
    while True:
        change = run.changed.listen()
        if run.is_over:
            return
        await change.wait()


def _count(runs: int) -> str:
    return "1 run is" if runs == 1 else f"{runs} runs are"
