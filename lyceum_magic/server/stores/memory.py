"""A store that forgets: for tests, and for servers whose runs need not outlive them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .base import HistoryPage, RunRecord


class MemoryStore:
    """Keeps records in a dictionary, in the order in which they came."""

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to let go of: a test may open the same store again."""

    async def add(self, record: RunRecord) -> None:
        self._records[record.run_id] = record

    async def update(self, record: RunRecord) -> None:
        self._records[record.run_id] = record

    async def finish(self, record: RunRecord) -> None:
        self._records[record.run_id] = record

    async def get(self, run_id: str) -> RunRecord | None:
        return self._records.get(run_id)

    async def unfinished(self) -> Sequence[RunRecord]:
        return [record for record in self._records.values() if not record.state.is_final]

    async def history(self, *, limit: int, offset: int) -> HistoryPage:
        newest_first = list(reversed(self._records.values()))
        counts = Counter(record.state for record in newest_first)
        return HistoryPage(newest_first[offset : offset + limit], len(newest_first), counts)
