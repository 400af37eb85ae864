"""A store that forgets: for tests, and for servers whose runs need not outlive them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...protocol.requests import Start
from .base import ApiKey, HistoryPage, RunRecord, SecretRecord


class MemoryStore:
    """Keeps records in a dictionary, in the order in which they came."""

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}
        self._requests: dict[str, Start] = {}  # whole
        self._secrets: dict[str, tuple[SecretRecord, str]] = {}  # by name
        self._keys: dict[str, ApiKey] = {}

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

    async def finish(self, record: RunRecord) -> None:
        self._requests[record.run_id] = self._requests[record.run_id].without_credentials()
        await self.update(record)

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

    async def keys(self) -> Sequence[ApiKey]:
        return list(self._keys.values())

    async def remove_key(self, key_id: str) -> None:
        self._keys.pop(key_id, None)
