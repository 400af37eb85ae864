"""The sending of callbacks: due deliveries from the store in, results to the store out.

Nothing is sent from memory. An attempt holds its slot from the moment it is read until its result
is on the disk. So a server that was killed sends again only those callbacks whose acknowledgement
it has not stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ... import trail
from ...exceptions import EmbeddedServerError
from ...protocol.callback_urls import PathChanged, fill_in, references
from ...protocol.callbacks import DeliveryHealth, DeliveryState
from ...protocol.times import iso
from ..bell import Bell
from ..context import Context
from ..stores.base import (
    Attempt,
    Delivery,
    OutboxCounts,
    OutboxStore,
    RecordRefused,
    StoreUnavailable,
)
from ..tasks import log_failure
from .bodies import body_of_test
from .planning import new_delivery
from .results import Outcome, result_of
from .schedule import Schedule
from .sending import CallbackSender
from .signing import Signing
from .slots import QUICK_S, RECHECK_S, Slots

logger = logging.getLogger(__name__)

#: The clocks are looked at this often whatever is planned: a user may have set one.
LONGEST_WAIT_S = 60.0
#: The pause before another attempt to read or write the store.
PAUSE_S = 1.0
#: A sender keeps its own time limits. This is the last one.
LIMIT_S = 20.0
#: The longest wait of a test, for its own attempt and for others at its endpoint.
TEST_S = 30.0
#: The longest time for attempts under way when the server ends.
CLOSE_S = 1.0
#: A clock that has gone back by less was corrected, not set.
_CORRECTION_S = 1.0
_SHORTEST_WAIT_S = 0.001

_READING = "Callbacks that are due cannot be read"
_WRITING = "The results of callbacks cannot be stored, and no callback is sent until they can"
_PREPARING = "Callbacks cannot be signed, or their secrets filled in"
_DECRYPTING = "Callbacks fail"

_NO_URLS = (
    "some URLs were encrypted with another vault.key. Put that file back, or remove these "
    "callbacks with `%lyceum callbacks rm ID`"
)
_NO_KEY = "The callback's URL cannot be decrypted: the server's vault.key is gone."


class Deliverer:
    """The sender of deliveries that are due; it plans the next attempt after a failure.

    Attributes:
        next_at: When the next callback is due, in seconds since 1970; None if none is planned.
    """

    def __init__(
        self,
        store: OutboxStore,
        sender: CallbackSender,
        signing: Signing,
        schedule: Schedule,
        context: Context,
    ) -> None:
        self._store = store
        self._sender = sender
        self._signing = signing
        self._schedule = schedule
        self._secrets = context.secrets
        self._troubles = context.troubles
        self._activity = context.activity
        self._clock = context.clock
        self._monotonic = context.monotonic
        self._pause = context.pause
        self._slots = Slots()
        self._news = Bell()  # there may be something to send
        self._attempts: set[asyncio.Task[None]] = set()
        self._results: list[tuple[Attempt, Delivery]] = []  # to be written
        self._ended = Bell()  # there are results
        self._cannot_write = False
        self._is_closing = False
        self._loops: list[asyncio.Task[None]] = []
        self._clocks: tuple[float, float] | None = None  # wall and monotonic, at the last look
        self._replan_until = -math.inf  # monotonic
        self._counts = OutboxCounts(0, 0, 0)
        # Deliveries whose URL cannot be decrypted, and whether the secrets cannot either.
        self._unreadable: set[str] = set()
        self._is_locked = False
        self._awaited: dict[str, asyncio.Future[None]] = {}  # tests, by delivery
        self.next_at: float | None = None

    async def open(self) -> None:
        """Begin to send due deliveries."""
        self._loops = [
            asyncio.create_task(self._send_for_ever(), name="the sending of callbacks"),
            asyncio.create_task(self._write_for_ever(), name="the log of callbacks"),
        ]
        for loop in self._loops:
            loop.add_done_callback(log_failure)

    async def close(self) -> None:
        """End. Attempts under way are cut off after `CLOSE_S`; the next server sends them again."""
        if self._loops:
            sending, writing = self._loops
            await _cancelled([sending])
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=CLOSE_S)
            await _cancelled(self._attempts)
            self._is_closing = True
            self._ended.ring()
            await writing
        await self._sender.close()

    def ring(self, endpoints: Collection[str] | None = None) -> None:
        """Look at the store again.

        Args:
            endpoints: The endpoints with new deliveries; None for any.
        """
        self._slots.wake(endpoints)
        self._news.ring()

    async def health(self) -> DeliveryHealth:
        """Return how the deliveries are doing, from the store or, if it fails, as it last was."""
        try:
            self._counts = await self._store.outbox_counts()
            self.next_at = await self._store.next_at()
            await self._look_for_the_key()
        except EmbeddedServerError as exc:
            self._troubles.begin(_READING, exc)
        else:
            self._troubles.end(_READING)
        return {
            "pending": self._counts.pending,
            "failing": self._counts.failing,
            "dead": self._counts.dead,
            "next_attempt_at": iso(self.next_at),
            "errors": list(self._troubles.sentences),
        }

    async def test(self, url: str) -> Delivery:
        """Send a callback of no run; return its delivery after the attempt, or after `TEST_S`.

        Args:
            url: A URL that `targets.problem_of` accepts.

        Raises:
            StoreUnavailable: The delivery cannot be stored.
        """
        now = self._clock()
        delivery = new_delivery(url, body_of_test(now), now, run_id=None)
        ended = asyncio.get_running_loop().create_future()
        self._awaited[delivery.delivery_id] = ended
        try:
            await self._store.add_delivery(delivery)
            self.ring([delivery.endpoint])
            await asyncio.wait([ended], timeout=TEST_S)
        finally:
            del self._awaited[delivery.delivery_id]
        return await self._store.delivery(delivery.delivery_id) or replace(delivery, url=None)

    async def redeliver(self, delivery_id: str) -> Delivery | None:
        """Send a callback again from the beginning of its schedule; return None if it is unknown.

        Raises:
            StoreUnavailable: The change cannot be stored.
        """
        delivery = await self._store.redeliver(delivery_id, self._clock())
        if delivery is not None:
            self.ring([delivery.endpoint])
        return delivery

    # What is due

    async def _send_for_ever(self) -> None:
        while True:
            news = self._news.listen()
            try:
                wait_s = await self._send_what_is_due()
            except Exception as exc:  # noqa: BLE001 - the top of a task; what it says is logged
                self._troubles.begin(_READING, exc)
                await self._pause(PAUSE_S)
                continue
            self._troubles.end(_READING)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await news.wait()

    async def _send_what_is_due(self) -> float:
        """Begin the attempts that are due and have a slot.

        Returns:
            Seconds after which to look again, unless there is news before.
        """
        now = self._clock()
        await self._keep_waits(now)
        if self._cannot_write:
            # Otherwise a restart would send again all that is begun now.
            return LONGEST_WAIT_S
        due = await self._store.endpoints(now)
        later = await self._store.next_at(after=now)
        self.next_at = min(due.values(), default=later)
        wait_s = await self._begin_what_is_due(due, now)
        if later is not None:
            wait_s = min(wait_s, max(later - now, _SHORTEST_WAIT_S))
        if not self._slots.under_way:
            self._troubles.end(_PREPARING)  # the deliveries that failed were removed
        return wait_s

    async def _begin_what_is_due(self, due: Mapping[str, float], now: float) -> float:
        wait_s = LONGEST_WAIT_S
        for endpoint in sorted(due, key=due.__getitem__):
            if await self._begin_attempts(endpoint, now):
                wait_s = min(wait_s, RECHECK_S)
        return wait_s

    async def _begin_attempts(self, endpoint: str, now: float) -> bool:
        """Begin the due attempts at one endpoint; return whether it has free slots left."""
        slots, free = self._slots.of(endpoint), self._slots.free(endpoint)
        if free <= 0 or slots.is_drained(self._monotonic()):
            return free > 0
        # Before the look: a delivery that comes during the look resets this.
        slots.drained_at = self._monotonic()
        without = slots.under_way | slots.left_out
        found = await self._store.due(endpoint, now, limit=free, without=without)
        for delivery in found:
            self._slots.take(endpoint, delivery.delivery_id)
            attempt = asyncio.create_task(self._attempt(delivery))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempts.discard)
            attempt.add_done_callback(partial(self._after_attempt, delivery))
        if len(found) == free:
            slots.drained_at = None
        return len(found) < free

    async def _keep_waits(self, now: float) -> None:
        """Replan all waits if the wall clock has gone back.

        This is repeated with each look for a while: results that are being written were decided by
        the old time.
        """
        monotonic = self._monotonic()
        if self._clocks is not None:
            wall_then, monotonic_then = self._clocks
            if wall_then + (monotonic - monotonic_then) - now > _CORRECTION_S:
                self._replan_until = monotonic + LONGEST_WAIT_S
        if self._clocks is None or monotonic < self._replan_until:
            await self._store.replan(now)
            self._slots.wake(None)
        self._clocks = now, monotonic

    # One attempt

    async def _attempt(self, delivery: Delivery) -> None:
        started_at, begun = self._clock(), self._monotonic()
        try:
            outcome = await self._outcome_of(delivery, started_at)
        except StoreUnavailable as exc:
            # Nothing was sent, and the receiver is not at fault: this does not count.
            self._troubles.begin(_PREPARING, exc)
            await self._pause(PAUSE_S)
            self._slots.release(delivery.endpoint, delivery.delivery_id)
            self._news.ring()
            return
        except Exception as exc:  # noqa: BLE001 - an attempt ends in any case
            # Its text may quote the URL.
            logger.error("Sending to %s failed: %s", delivery.shown_url, type(exc).__name__)
            outcome = _failed(
                f"The server failed while it sent the callback ({type(exc).__name__})."
            )
        took_s = self._monotonic() - begun
        run_id, status = delivery.run_id or "", outcome.status_code
        trail.mark("server", run_id, "attempt", delivery=delivery.delivery_id, status=status)
        now = self._clock()
        self._results.append(
            result_of(delivery, outcome, self._schedule, started_at, took_s=took_s, now=now)
        )
        self._ended.ring()

    def _after_attempt(self, delivery: Delivery, attempt: asyncio.Task[None]) -> None:
        """Free the slot of an attempt without a result. No case of that is known."""
        if not attempt.cancelled() and (error := attempt.exception()) is not None:
            # Its text may quote the URL.
            logger.error(
                "The attempt of callback %s failed (%s). It is sent again when the server "
                "starts again",
                delivery.delivery_id, type(error).__name__,
            )  # fmt: skip
            self._slots.leave_out(delivery.endpoint, delivery.delivery_id)

    async def _outcome_of(self, delivery: Delivery, now: float) -> Outcome:
        if delivery.url is None:
            self._unreadable.add(delivery.delivery_id)
            self._troubles.begin(_DECRYPTING, EmbeddedServerError(_NO_URLS))
            return _failed(_NO_KEY)
        self._unreadable.discard(delivery.delivery_id)
        try:
            url = await self._filled_in(delivery.url)
            headers = await self._signing.headers(delivery.delivery_id, delivery.body, now)
        except KeyError as exc:
            name = exc.args[0]
            return _failed(
                # Without ${}: no text shows a part of the URL as it is.
                f"The callback URL uses the secret {name}, but this account has no secret of that "
                f"name. Set it with `%lyceum secrets set {name}`."
            )
        except PathChanged as exc:
            return _failed(str(exc))
        except StoreUnavailable:
            raise
        except EmbeddedServerError as exc:
            self._is_locked = True
            self._troubles.begin(_DECRYPTING, exc)
            return _failed(str(exc))
        self._troubles.end(_PREPARING)
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self._sender.send(url, headers, delivery.body)
        except TimeoutError:
            return _failed(f"The callback was not sent within {LIMIT_S:g} s.")

    async def _filled_in(self, url: str) -> str:
        return fill_in(url, await self._secrets()) if references(url) else url

    async def _look_for_the_key(self) -> None:
        """End the trouble of undecryptable callbacks once none is left.

        Raises:
            StoreUnavailable: The store cannot tell.
        """
        if self._is_locked:
            try:
                await self._signing.secrets(self._clock())
                await self._secrets()
            except StoreUnavailable:
                raise
            except EmbeddedServerError as exc:
                self._troubles.begin(_DECRYPTING, exc)
                return
            self._is_locked = False
        for delivery_id in list(self._unreadable):
            found = await self._store.delivery(delivery_id)
            if found is not None and found.state is DeliveryState.PENDING:
                self._troubles.begin(_DECRYPTING, EmbeddedServerError(_NO_URLS))
                return
            self._unreadable.discard(delivery_id)
        self._troubles.end(_DECRYPTING)

    # Results

    async def _write_for_ever(self) -> None:
        """Write results in groups: those that came while the last group was written."""
        while True:
            ended = self._ended.listen()
            if self._results:
                await self._write_results()
            elif self._is_closing:
                return
            else:
                await ended.wait()

    async def _write_results(self) -> None:
        group = list(self._results)
        try:
            prevailed, unwritable = await self._written(group)
        except Exception as exc:  # noqa: BLE001 - the top of a task; what it says is logged
            self._troubles.begin(_WRITING, exc)
            self._cannot_write = True
            if self._is_closing:  # the next server sends them again
                self._results.clear()
            else:
                await self._pause(PAUSE_S)
            return
        if self._cannot_write:
            self._clocks = None  # these may be planned by an old time: the next look replans
        self._cannot_write = False
        self._troubles.end(_WRITING)
        del self._results[: len(group)]
        for attempt, delivery in group:
            self._settle(attempt, delivery, is_written=delivery.delivery_id not in unwritable)
            if delivery.state is DeliveryState.DEAD and delivery.delivery_id in prevailed:
                logger.warning(
                    "The callback %s to %s was given up after %d attempts: %s",
                    delivery.delivery_id, delivery.shown_url, delivery.attempts, delivery.error,
                )  # fmt: skip
        self._news.ring()
        self._activity.ring()

    async def _written(
        self, group: Sequence[tuple[Attempt, Delivery]]
    ) -> tuple[Collection[str], Collection[str]]:
        """Write results, but leave out those that the store refuses.

        Otherwise one of them would hold up all others.

        Returns:
            Ids of deliveries that took over their results, and of those that were not written.

        Raises:
            StoreUnavailable: Nothing can be written now.
        """
        try:
            return await self._store.write_attempts(group), ()
        except Exception as exc:
            if isinstance(exc, StoreUnavailable) and not isinstance(exc, RecordRefused):
                raise
            if len(group) == 1:
                ((_, delivery),) = group
                # Its text may quote the record.
                logger.error(
                    "The result of callback %s cannot be stored (%s). It is sent again when the "
                    "server starts again",
                    delivery.delivery_id, type(exc).__name__,
                )  # fmt: skip
                return (), (delivery.delivery_id,)
        each = [await self._written([result]) for result in group]
        return {i for ids, _ in each for i in ids}, {i for _, ids in each for i in ids}

    def _settle(self, attempt: Attempt, delivery: Delivery, *, is_written: bool) -> None:
        """Free the slot of a delivery whose result is on the disk, or can never be."""
        free = self._slots.release if is_written else self._slots.leave_out
        free(delivery.endpoint, delivery.delivery_id)
        self._slots.of(delivery.endpoint).is_well = not delivery.error or attempt.took_s < QUICK_S
        waiter = self._awaited.get(delivery.delivery_id)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _failed(error: str) -> Outcome:
    return Outcome(address=None, status_code=None, error=error)


async def _cancelled(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
