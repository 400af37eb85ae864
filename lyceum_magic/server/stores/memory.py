"""A store that forgets: for tests, and for servers whose runs need not outlive them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...protocol.callbacks import DeliveryState
from ...protocol.requests import Start
from .base import (
    ApiKey,
    Attempt,
    Delivery,
    HistoryPage,
    OutboxCounts,
    RunRecord,
    SecretRecord,
    SigningSecret,
)


class MemoryStore:
    """Keeps records in dictionaries, in the order in which they came.

    Its outbox looks at every delivery whatever is asked, which is quick enough for thousands.
    """

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}
        self._requests: dict[str, Start] = {}  # whole
        self._secrets: dict[str, tuple[SecretRecord, str]] = {}  # by name
        self._keys: dict[str, ApiKey] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._attempts: dict[str, dict[int, Attempt]] = {}  # by delivery, then by number
        self._signing_secrets: Sequence[SigningSecret] = ()

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to let go of: a test may open the same store again."""

    async def add(self, record: RunRecord) -> None:
        self._requests[record.run_id] = record.request
        await self.update(record)

    async def update(self, record: RunRecord) -> None:
        request = self._requests[record.run_id].without_sealed()
        self._records[record.run_id] = replace(record, request=request)

    async def finish(self, record: RunRecord, deliveries: Sequence[Delivery] = ()) -> None:
        self._requests[record.run_id] = self._requests[record.run_id].without_credentials()
        await self.update(record)
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

    async def spools_since(self, moment: float) -> Mapping[str, Path]:
        return {
            record.run_id: record.spool
            for record in self._records.values()
            if record.spool and record.finished_at is not None and record.finished_at >= moment
        }

    async def ended(self) -> Sequence[tuple[str, float]]:
        ended = [
            (record.run_id, record.finished_at or record.created_at)
            for record in self._records.values()
            if record.state.is_final
        ]
        return sorted(ended, key=lambda end: end[1])

    async def forget(self, run_id: str) -> None:
        if (record := self._records.get(run_id)) and record.state.is_final:
            del self._records[run_id]
            del self._requests[run_id]
            for delivery in await self.deliveries(run_id=run_id, state=DeliveryState.DELIVERED):
                await self.remove_delivery(delivery.delivery_id)

    async def forget_deliveries(self, before: float) -> None:
        for delivery in list(self._deliveries.values()):
            may_go = delivery.state is DeliveryState.DELIVERED or delivery.run_id is None
            if may_go and delivery.ended_at is not None and delivery.ended_at < before:
                await self.remove_delivery(delivery.delivery_id)

    # The account.

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

    async def put_key(self, key: ApiKey) -> None:
        self._keys[key.key_id] = key

    async def note_key_use(self, key_id: str, used_at: float) -> None:
        if key_id in self._keys:
            self._keys[key_id] = replace(self._keys[key_id], last_used_at=used_at)

    async def keys(self) -> Sequence[ApiKey]:
        return list(self._keys.values())

    async def remove_key(self, key_id: str) -> None:
        self._keys.pop(key_id, None)

    # The outbox.

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

    async def signing_secrets(self) -> Sequence[SigningSecret]:
        return self._signing_secrets

    async def put_signing_secrets(self, secrets: Sequence[SigningSecret]) -> None:
        self._signing_secrets = list(secrets)

    def _planned(self) -> Sequence[tuple[float, Delivery]]:
        """Every delivery with attempts to come and when the next is due, the earliest first."""
        planned = [
            (delivery.next_at, delivery)
            for delivery in self._deliveries.values()
            if delivery.state is DeliveryState.PENDING and delivery.next_at is not None
        ]
        return sorted(planned, key=lambda item: item[0])
