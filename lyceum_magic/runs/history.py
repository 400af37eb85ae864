"""The journal of this user's runs, as any thread of this process reads it.

The journal itself lives on the loop thread, and is opened when it is first needed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

import anyio

from ..client import debug_log
from ..exceptions import JournalUnavailable, LyceumError
from ..folders import journal_folder
from ..journal.journal import Entry, Journal
from ..journal.snapshots import KnownSnapshot
from .loop import LoopThread
from .once import Once

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The pause between two steps of removing old runs: cells come first.
PRUNE_PAUSE_S = 1.0

#: The variable in which Jupyter's servers say which notebook a kernel belongs to.
NOTEBOOK_VARIABLE = "JPY_SESSION_NAME"


class History:
    """Every run of this user, from this process and others.

    Args:
        process_id: marks the runs of this process in the journal.
    """

    def __init__(self, loop: LoopThread, process_id: str) -> None:
        self.process_id = process_id
        self._loop = loop
        self._journals: Once[None, Journal] = Once()
        self._pruning: asyncio.Task[None] | None = None

    @property
    def journal(self) -> Journal:
        """The journal, for use on the loop thread alone.

        Opened lazily, so that `%lyceum doctor` works on a full disk.
        """
        return self._journals.get(None, lambda: self._loop.ask(self._open))

    async def _open(self) -> Journal:
        journal = Journal(journal_folder())
        debug_log.begin(journal_folder())
        if notebook := os.environ.get(NOTEBOOK_VARIABLE):
            try:
                journal.write_notebook(self.process_id, notebook)
            except JournalUnavailable as exc:  # runs can still be listed, and followed
                logger.warning("%s Each kernel of this notebook lists its own runs.", exc)
        self._pruning = asyncio.create_task(_prune(journal))
        return journal

    async def close(self) -> None:
        """Close the journal if it was opened."""
        if self._pruning is not None:
            self._pruning.cancel()
            await asyncio.wait([self._pruning])
        for journal in self._journals.made():
            journal.close()

    def entries(self, limit: int = -1) -> list[Entry]:
        """Return the runs, newest first."""
        return self._ask(lambda journal: journal.entries(limit=limit))

    def of_notebook(self, limit: int = -1) -> list[Entry]:
        """Return the runs of this notebook, newest first."""
        return self._ask(lambda journal: journal.of_notebook(self.process_id, limit=limit))

    def unfinished(self) -> list[Entry]:
        """Return the runs whose end is not known here, newest first."""
        return self._ask(Journal.unfinished)

    def ended_before(self, moment: float) -> list[Entry]:
        """Return the ended runs that were sent at a moment or earlier, newest first."""
        return self._ask(lambda journal: journal.ended_before(moment))

    def paid(self) -> list[Entry]:
        """Return the runs of this process that cost money, newest first."""
        return self._ask(lambda journal: journal.paid(self.process_id))

    def count(self, *, is_of_notebook: bool) -> int:
        """Return the number of runs, of this notebook or of all."""
        process = self.process_id if is_of_notebook else None
        return self._ask(lambda journal: journal.count(process))

    def find(self, run_id: str) -> Entry:
        """Return the entry of a run, by its id, a unique beginning of it, its tag, or "last".

        "last" is the newest run of this process, or of all where this one has none.

        Raises:
            UnknownRun: no run, or more than one.
        """
        return self._ask(lambda journal: journal.find(run_id, self.process_id))

    def snapshot(self, snapshot_id: str) -> KnownSnapshot | None:
        """Return a session's snapshot by its id; None if this machine does not know it."""
        return self._ask(lambda journal: journal.snapshots.find(snapshot_id))

    def write_snapshot(self, snapshot: KnownSnapshot) -> None:
        """Write down a session's snapshot.

        Raises:
            JournalUnavailable: the journal cannot be written.
        """
        self._ask(lambda journal: journal.snapshots.write(snapshot))

    def forget(self, tags: list[str]) -> None:
        """Remove runs from the journal, with their output."""
        self._ask(lambda journal: journal.forget(tags))

    def _ask(self, question: Callable[[Journal], T]) -> T:
        journal = self.journal  # opened before the visit to the loop thread, which opens it
        return self._loop.call(question, journal)


async def _prune(journal: Journal) -> None:
    """Remove old runs from the journal, a step at a time."""
    try:
        for _forgotten in journal.prune(now=time.time()):
            await anyio.sleep(PRUNE_PAUSE_S)
    except (LyceumError, OSError, sqlite3.Error) as exc:
        # The next kernel tries again, and a run that needs the journal says what is wrong with it.
        logger.info("old runs could not be removed from the journal: %s", exc)
