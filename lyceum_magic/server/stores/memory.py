"""A store in memory: for tests, and for servers whose runs need not outlive them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ...protocol.ages import Mark, kept_from
from ...protocol.callbacks import DeliveryState
from ...protocol.requests import Start
from .base import (
    Attempt,
    Delivery,
    EndedRun,
    HistoryPage,
    KeyRecord,
    OutboxCounts,
    RunRecord,
    SecretRecord,
    StoredSigningSecret,
)


class MemoryStore:
    """Records in dictionaries, in the order in which they were added.

    Its outbox looks at every delivery for each question, which is fast enough for thousands.
    """

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}
        self._requests: dict[str, Start] = {}  # whole
        self._secrets: dict[str, tuple[SecretRecord, str]] = {}  # by name
        self._keys: dict[str, KeyRecord] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._attempts: dict[str, dict[int, Attempt]] = {}  # by delivery, then by number
        self._signing_secrets: Sequence[StoredSigningSecret] = ()
        self._ended: dict[str, EndedRun] = {}
        self._mark: Mark | None = None
        self._sequence = 0

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing: a test may open the same store again."""

    async def add(self, record: RunRecord) -> None:
        self._requests[record.run_id] = record.request
        self._sequence += 1
        await self.update(record)
        self._note_end(record)

    async def update(self, record: RunRecord) -> None:
        request = self._requests[record.run_id].without_sealed()
        self._records[record.run_id] = replace(record, request=request)

    async def finish(self, record: RunRecord, deliveries: Sequence[Delivery] = ()) -> None:
        self._requests[record.run_id] = self._requests[record.run_id].when_over()
        await self.update(replace(record, request=record.request.when_over()))
        self._note_end(record)
        for delivery in deliveries:
            await self.add_delivery(delivery)

    async def get(self, run_id: str) -> RunRecord | None:
        return self._records.get(run_id)

    async def request(self, run_id: str) -> Start:
        return self._requests[run_id]

    async def unfinished(self) -> Sequence[RunRecord]:
        return [record for record in self._records.values() if not record.state.is_final]

    async def history(self, *, limit: int, offset: int) -> HistoryPage:
        newest_first = list(reversed(self._records.values()))
        counts = Counter(record.state for record in newest_first)
        return HistoryPage(newest_first[offset : offset + limit], len(newest_first), counts)

    async def ended_since(
        self, moment: float, *, limit: int, before: EndedRun | None = None
    ) -> Sequence[EndedRun]:
        ended = [run for run in self._ended.values() if run.spool and run.ended_at >= moment]
        ended = [run for run in ended if before is None or _by_end(run) < _by_end(before)]
        return sorted(ended, key=_by_end, reverse=True)[:limit]

    async def oldest_ended(
        self, *, limit: int, after: EndedRun | None = None
    ) -> Sequence[EndedRun]:
        ended = [r for r in self._ended.values() if after is None or _by_age(r) > _by_age(after)]
        return sorted(ended, key=_by_age)[:limit]

    async def unmeasured(self, *, limit: int) -> Sequence[str]:
        unmeasured = (run.run_id for run in self._ended.values() if run.size_bytes is None)
        return list(itertools.islice(unmeasured, limit))

    async def note_sizes(self, folders: Mapping[str, int]) -> None:
        for run_id, size_bytes in folders.items():
            if run := self._ended.get(run_id):
                self._ended[run_id] = replace(run, size_bytes=size_bytes)

    async def ended_bytes(self) -> int:
        return sum(run.size_bytes or 0 for run in self._ended.values())

    async def unknown(self, run_ids: Sequence[str]) -> Collection[str]:
        return set(run_ids) - set(self._records)

    async def move_mark(self, now: float) -> float:
        newest = max((run.kept_from for run in self._ended.values()), default=None)
        self._mark = Mark.first(now, newest) if self._mark is None else self._mark.moved(now)
        return self._mark.time

    async def catch_up(self) -> bool:
        return False

    async def forget(self, run_id: str) -> None:
        if (record := self._records.get(run_id)) and record.state.is_final:
            del self._records[run_id]
            del self._requests[run_id]
            self._ended.pop(run_id, None)
            for delivery in await self.deliveries(run_id=run_id, state=DeliveryState.DELIVERED):
                await self.remove_delivery(delivery.delivery_id)

    async def forget_deliveries(self, before: float, *, limit: int) -> int:
        old = [
            delivery.delivery_id
            for delivery in self._deliveries.values()
            if (delivery.state is DeliveryState.DELIVERED or delivery.run_id is None)
            and delivery.ended_at is not None
            and delivery.ended_at < before
        ][:limit]
        for delivery_id in old:
            await self.remove_delivery(delivery_id)
        return len(old)

    # The account

    async def put_secrets(self, secrets: Sequence[tuple[SecretRecord, str]]) -> None:
        for record, value in secrets:
            if before := self._secrets.get(record.name):
                record = replace(record, secret_id=before[0].secret_id)
            self._secrets[record.name] = record, value

    async def secrets(self) -> Sequence[SecretRecord]:
        return [self._secrets[name][0] for name in sorted(self._secrets)]

    async def secret_values(self) -> Mapping[str, str]:
        return {name: value for name, (_, value) in self._secrets.items()}

    async def remove_secret(self, secret_id: str) -> bool:
        names = [name for name, (r, _) in self._secrets.items() if r.secret_id == secret_id]
        for name in names:
            del self._secrets[name]
        return bool(names)

    async def remove_all_secrets(self) -> None:
        self._secrets.clear()

    async def put_key(self, key: KeyRecord) -> None:
        self._keys[key.key_id] = key

    async def note_key_use(self, key_id: str, used_at: float) -> None:
        if key_id in self._keys:
            self._keys[key_id] = replace(self._keys[key_id], last_used_at=used_at)

    async def keys(self) -> Sequence[KeyRecord]:
        return list(self._keys.values())

    async def remove_key(self, key_id: str) -> None:
        self._keys.pop(key_id, None)

    # The outbox

    async def add_delivery(self, delivery: Delivery) -> None:
        if delivery.delivery_id not in self._deliveries:
            self._deliveries[delivery.delivery_id] = delivery
            self._attempts[delivery.delivery_id] = {}

    async def endpoints(self, due_by: float = math.inf) -> Mapping[str, float]:
        earliest: dict[str, float] = {}
        for next_at, delivery in self._planned():
            if next_at <= due_by:
                earliest.setdefault(delivery.endpoint, next_at)
        return earliest

    async def next_at(self, after: float = -math.inf) -> float | None:
        return min((at for at, _ in self._planned() if at > after), default=None)

    async def due(
        self, endpoint: str, now: float, *, limit: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        due = [
            delivery
            for next_at, delivery in self._planned()
            if delivery.endpoint == endpoint
            and next_at <= now
            and delivery.delivery_id not in without
        ]
        return sorted(due, key=lambda delivery: delivery.tries > 0)[:limit]

    async def write_attempts(self, attempts: Sequence[tuple[Attempt, Delivery]]) -> Collection[str]:
        prevailed = set()
        for attempt, after in attempts:
            before = self._deliveries.get(after.delivery_id)
            if before is None:
                continue
            self._attempts[after.delivery_id].setdefault(attempt.number, attempt)
            if after.redeliveries == before.redeliveries:
                prevailed.add(after.delivery_id)
                after = replace(after, url=before.url, body=before.body)
            else:
                after = replace(before, attempts=after.attempts, error=after.error)
            self._deliveries[after.delivery_id] = after
        return prevailed

    async def replan(self, now: float) -> None:
        for next_at, delivery in self._planned():
            if delivery.planned_at is not None and delivery.planned_at > now:
                self._deliveries[delivery.delivery_id] = replace(
                    delivery, next_at=now + (next_at - delivery.planned_at), planned_at=now
                )

    async def redeliver(self, delivery_id: str, now: float) -> Delivery | None:
        if (before := self._deliveries.get(delivery_id)) is None:
            return None
        self._deliveries[delivery_id] = replace(
            before,
            state=DeliveryState.PENDING,
            tries=0,
            planned_at=now,
            next_at=now,
            ended_at=None,
            redeliveries=before.redeliveries + 1,
        )
        return await self.delivery(delivery_id)

    async def remove_delivery(self, delivery_id: str) -> bool:
        self._attempts.pop(delivery_id, None)
        return self._deliveries.pop(delivery_id, None) is not None

    async def delivery(self, delivery_id: str) -> Delivery | None:
        delivery = self._deliveries.get(delivery_id)
        return delivery and replace(delivery, url=None, body=b"")

    async def deliveries(
        self, *, run_id: str | None = None, state: DeliveryState | None = None,
        limit: int = 100, offset: int = 0,
    ) -> Sequence[Delivery]:  # fmt: skip
        newest_first = [
            replace(delivery, url=None, body=b"")
            for delivery in reversed(self._deliveries.values())
            if run_id in (None, delivery.run_id) and state in (None, delivery.state)
        ]
        return newest_first[offset : offset + limit]

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        attempts = self._attempts.get(delivery_id, {})
        return [attempts[number] for number in sorted(attempts)]

    async def outbox_counts(self) -> OutboxCounts:
        known = self._deliveries.values()
        return OutboxCounts(
            pending=sum(delivery.state is DeliveryState.PENDING for delivery in known),
            failing=sum(bool(delivery.error) for _, delivery in self._planned()),
            dead=sum(d.state is DeliveryState.DEAD and d.run_id is not None for d in known),
        )

    async def signing_secrets(self) -> Sequence[StoredSigningSecret]:
        return self._signing_secrets

    async def put_signing_secrets(self, secrets: Sequence[StoredSigningSecret]) -> None:
        self._signing_secrets = list(secrets)

    def _note_end(self, record: RunRecord) -> None:
        if record.state.is_final:
            before = self._ended.get(record.run_id)
            ended_at = record.finished_at or record.created_at
            self._ended[record.run_id] = EndedRun(
                record.run_id,
                before.sequence if before else self._sequence,
                ended_at,
                kept_from(ended_at, self._mark),
                None,
                record.spool,
            )

    def _planned(self) -> Sequence[tuple[float, Delivery]]:
        """Return every delivery with attempts to come and its due time, the earliest first."""
        planned = [
            (delivery.next_at, delivery)
            for delivery in self._deliveries.values()
            if delivery.state is DeliveryState.PENDING and delivery.next_at is not None
        ]
        return sorted(planned, key=lambda item: item[0])


def _by_end(run: EndedRun) -> tuple[float, int]:
    return run.ended_at, run.sequence


def _by_age(run: EndedRun) -> tuple[float, int]:
    return run.kept_from, run.sequence
