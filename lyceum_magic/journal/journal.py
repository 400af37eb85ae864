"""Every run of this user on disk, so that a run outlives its kernel, its tab and its cell.

One row for a run in SQLite, written before the run is started, and one file of events beside it,
appended to as they come. All of it is 0600 in a folder that is 0700.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..disks import reason, shortage
from ..exceptions import ConfigError, JournalUnavailable, UnknownRun
from ..own_files import own_database, own_folder, transaction
from ..protocol.ages import DAY_S, Mark
from ..protocol.limits import MARK_CHARACTERS
from ..protocol.money import cost_of
from ..protocol.states import State
from .event_log import EventLog
from .schema import IS_FINAL, open_database
from .snapshots import Snapshots

KEEP_DAYS = 30
KEEP_BYTES = 2 * 1024**3

#: Maximum number of runs that one step forgets or measures.
STEP_RUNS = 200
#: Approximate bytes that a run takes in the database.
ROW_BYTES = 600
#: Number of the latest changes that keep the tags of forgotten runs. A follower of the journal that
#: has missed more changes is told that its list is incomplete.
KEPT_CHANGES = 10_000

#: The last of all characters in the order of SQLite.
_LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True)
class Entry:
    """A run as the journal knows it.

    Attributes:
        tag: the client tag that travels in the run's metadata; the journal's own key.
        run_id: None until the server answered the start.
        server_folder: the embedded server's state folder; empty for a run elsewhere.
        state: as last seen; a value of `protocol.states.State`.
        created_at, ended_at: seconds since 1970.
        started_at: when it left the queue, as far as is known here.
        price_per_hour: of the machine, in dollars; None where it is free or unknown.
        billed: what the server says it cost, in dollars; None where it does not say.
        process: tells the runs of one process from those of others; see `Workspace.process_id`.
    """

    tag: str
    run_id: str | None
    base_url: str
    is_embedded: bool
    server_folder: str
    streaming_url: str | None = field(repr=False)  # it holds the stream's secret
    machine: str
    name: str
    timeout_s: int
    created_at: float
    ended_at: float | None = None
    state: str = State.PENDING.value
    return_code: int | None = None
    reason: str = ""
    timed_out: bool = False
    price_per_hour: float | None = None
    billed: float | None = None
    process: str = ""
    started_at: float | None = None

    @property
    def mark(self) -> str:
        """The characters that tell the frames of this run from other text."""
        return self.tag[:MARK_CHARACTERS]

    @property
    def elapsed_s(self) -> float:
        """Seconds from sending it to its end, or to now."""
        return (self.ended_at or time.time()) - self.created_at

    @property
    def waited_s(self) -> float | None:
        """Seconds from sending it to its leaving the queue; None while it is there."""
        return None if self.started_at is None else max(0.0, self.started_at - self.created_at)

    def cost(self, now: float) -> float | None:
        """Return its cost in dollars: as billed, else by its time up to `now`.

        None where it is free, unknown, or has not left the queue.
        """
        if self.billed is not None:
            return self.billed
        if not self.price_per_hour or self.started_at is None:
            return None
        return cost_of(self.price_per_hour, (self.ended_at or now) - self.started_at)

    @property
    def is_final(self) -> bool:
        return State(self.state).is_final


_NAMES = [column.name for column in fields(Entry)]
_COLUMNS = ", ".join(f"runs.{name}" for name in _NAMES)
# `session` is what earlier versions read for `process`; see `schema`.
_WRITTEN = [*_NAMES, "session"]
# Not INSERT OR REPLACE: that empties what a later version has added to the row.
_WRITE = (
    f"INSERT INTO runs ({', '.join(_WRITTEN)}) VALUES ({', '.join('?' for _ in _WRITTEN)}) "
    f"ON CONFLICT (tag) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in _WRITTEN[1:])}"
)
_IN_NOTEBOOK = (
    "WHERE process IN (SELECT process FROM notebooks WHERE notebook = "
    "(SELECT notebook FROM notebooks WHERE process = ?) UNION ALL SELECT ?)"
)


@dataclass(frozen=True)
class Changes:
    """The changes of a journal since a follower last asked.

    Attributes:
        number: the argument `after` of the next call.
        entries: the runs that were added or changed, as they are now, each once.
        forgotten: the tags of the runs that were removed.
        is_complete: False if the follower was away for too long, so that removed runs may be
            missing: it must read all entries again.
    """

    number: int
    entries: list[Entry]
    forgotten: list[str]
    is_complete: bool


class Journal:
    """The journal in one folder. Several processes may use it at once.

    Not for several threads: the owner opens it on one thread and stays there.

    Attributes:
        snapshots: those of sessions that this machine knows.

    Raises:
        ConfigError: the folder cannot have a journal, or the file in it is no journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / "journal.db"
        try:
            own_folder(folder)
            own_database(path)
            self._db = open_database(path)
        except OSError as exc:
            raise ConfigError(
                f"The journal of your runs cannot be kept in {folder} ({exc.filename or folder}: "
                f"{reason(exc, folder)}); set LYCEUM_MAGIC_HOME to a folder of yours that can be "
                "written to."
            ) from None
        except sqlite3.Error as exc:
            raise ConfigError(
                f"The journal of your runs, {path}, cannot be used ({exc}); move it away, and a "
                "new one is begun."
            ) from None
        self.snapshots = Snapshots(self._db, self._writing)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def write(self, entry: Entry) -> None:
        """Write a run's row, new or changed.

        Raises:
            JournalUnavailable: the database cannot be written.
        """
        with self._writing():
            values = [getattr(entry, name) for name in _NAMES]
            self._db.execute(_WRITE, [*values, entry.process])

    def write_notebook(self, process: str, notebook: str) -> None:
        """Write down which notebook the runs of a process belong to.

        Raises:
            JournalUnavailable: the database cannot be written.
        """
        with self._writing():
            self._db.execute(
                "INSERT INTO notebooks (process, session, notebook) VALUES (?1, ?1, ?2) "
                "ON CONFLICT (session) DO UPDATE SET notebook = excluded.notebook",
                [process, notebook],
            )

    def entries(self, *, limit: int = -1) -> list[Entry]:
        """Return the runs, newest first."""
        return self._entries("ORDER BY created_at DESC LIMIT ?", limit)

    def of_notebook(self, process: str, *, limit: int = -1) -> list[Entry]:
        """Return the runs of the notebook that a process belongs to, newest first."""
        # The index alone says which they are; only these rows are read.
        newest = f"SELECT rowid FROM runs {_IN_NOTEBOOK} ORDER BY created_at DESC LIMIT ?"
        condition = f"WHERE rowid IN ({newest}) ORDER BY created_at DESC"
        return self._entries(condition, process, process, limit)

    def unfinished(self) -> list[Entry]:
        """Return the runs whose end is not known here, newest first."""
        return self._entries(f"WHERE NOT {IS_FINAL} ORDER BY created_at DESC")

    def ended_before(self, moment: float) -> list[Entry]:
        """Return the ended runs that were sent at a moment or earlier, newest first."""
        condition = f"WHERE created_at <= ? AND {IS_FINAL} ORDER BY created_at DESC"
        return self._entries(condition, moment)

    def paid(self, process: str) -> list[Entry]:
        """Return the runs of a process that cost money, newest first."""
        return self._entries(
            "WHERE process = ? AND (price_per_hour > 0 OR billed IS NOT NULL) "
            "ORDER BY created_at DESC",
            process,
        )

    def count(self, process: str | None = None) -> int:
        """Return the number of runs: all, or those of the notebook that a process belongs to."""
        if process is None:
            ((number,),) = self._db.execute("SELECT count(*) FROM runs")
        else:
            query = f"SELECT count(*) FROM runs {_IN_NOTEBOOK}"
            ((number,),) = self._db.execute(query, [process, process])
        return int(number)

    def find(self, run_id: str, process: str = "") -> Entry:
        """Return the run with an id or tag, with a unique beginning of its id, or the "last".

        Args:
            process: the process whose newest run "last" means, if it has any run.

        Raises:
            UnknownRun: no run, or more than one.
        """
        if run_id == "last":
            newest = self._entries(
                "WHERE process = ? ORDER BY created_at DESC LIMIT 1", process
            ) or self.entries(limit=1)
            if not newest:
                raise UnknownRun("There is no run yet: start one with a %%lyceum cell.")
            return newest[0]
        found = self._entries(
            "WHERE (run_id >= ? AND run_id < ?) OR tag = ? LIMIT 3",
            run_id,
            f"{run_id}{_LAST_CHARACTER}",
            run_id,
        )
        exact = [entry for entry in found if run_id in (entry.run_id, entry.tag)]
        if exact or len(found) == 1:
            return (exact or found)[0]
        if found:
            raise UnknownRun(f"More than one run begins with {run_id!r}: give more of the id.")
        raise UnknownRun(f"No run of yours begins with {run_id!r}; see `%lyceum list --all`.")

    def changes(self, after: int = 0, *, limit: int = 1000) -> Changes:
        """Return the changes, by any process, since a follower last asked.

        Args:
            after: the `number` of the last answer; 0 for a follower that knows nothing yet.
            limit: the most changes in one answer; ask again until there is nothing new.
        """
        rows = self._db.execute(
            f"SELECT number, is_gone, changes.tag AS changed, {_COLUMNS} "
            "FROM changes LEFT JOIN runs ON runs.tag = changes.tag "
            "WHERE number > ? ORDER BY number LIMIT ?",
            [after, limit],
        ).fetchall()
        ((last,),) = self._db.execute("SELECT max(number) FROM changes")
        return Changes(
            rows[-1]["number"] if rows else after,
            [_entry(row) for row in rows if not row["is_gone"]],
            [row["changed"] for row in rows if row["is_gone"]],
            is_complete=not after or (last or 0) - after <= KEPT_CHANGES,
        )

    def open_log(self, tag: str) -> EventLog:
        """Return the log of a run, to read and to append to."""
        return EventLog(self._log_path(tag))

    def forget(self, tags: Iterable[str]) -> None:
        """Remove runs from the journal, with their output.

        Raises:
            JournalUnavailable: the database cannot be written.
        """
        tags = list(tags)
        for tag in tags:
            self._log_path(tag).unlink(missing_ok=True)
        with self._writing(), transaction(self._db):
            self._db.executemany("DELETE FROM runs WHERE tag = ?", [[tag] for tag in tags])

    def prune(
        self, *, now: float, keep_days: float = KEEP_DAYS, keep_bytes: int = KEEP_BYTES
    ) -> Iterator[int]:
        """Forget ended runs that are too old, then the oldest until the rest is small enough.

        Ages are measured by the journal's mark, which a wrong clock moves by a day at most.

        Yields:
            The number of runs forgotten in a step, which takes some milliseconds.

        Raises:
            JournalUnavailable: the database cannot be written.
        """
        mark = self._move_mark(now)
        self.snapshots.forget_before(mark)
        too_old = mark - keep_days * DAY_S
        while old := self._oldest("WHERE kept_from <= ?", too_old):
            self.forget(old)
            yield len(old)
        while unmeasured := self._unmeasured():
            with self._writing(), transaction(self._db):
                self._db.executemany(
                    "UPDATE ended_runs SET size_bytes = ? WHERE tag = ?",
                    [[self._size(tag), tag] for tag in unmeasured],
                )
            yield 0
        ((total,),) = self._db.execute("SELECT ifnull(sum(size_bytes), 0) FROM ended_runs")
        while total > keep_bytes and (oldest := self._oldest()):
            leaving: list[str] = []
            for tag, size in oldest.items():
                if total <= keep_bytes:
                    break
                total -= size
                leaving.append(tag)
            self.forget(leaving)
            yield len(leaving)
        with self._writing():
            self._db.execute(
                "DELETE FROM changes WHERE is_gone "
                "AND number <= (SELECT max(number) FROM changes) - ?",
                [KEPT_CHANGES],
            )

    # Helpers.

    def _entries(self, condition: str, *values: object) -> list[Entry]:
        query = f"SELECT {_COLUMNS} FROM runs {condition}"
        return [_entry(row) for row in self._db.execute(query, values)]

    def _oldest(self, condition: str = "", *values: object) -> dict[str, int]:
        """Return some of the oldest ended runs, the oldest first: tag -> bytes."""
        query = f"SELECT tag, size_bytes FROM ended_runs {condition} ORDER BY kept_from LIMIT ?"
        rows = self._db.execute(query, [*values, STEP_RUNS])
        return {row["tag"]: row["size_bytes"] or 0 for row in rows}

    def _unmeasured(self) -> list[str]:
        query = "SELECT tag FROM ended_runs WHERE size_bytes IS NULL LIMIT ?"
        return [row["tag"] for row in self._db.execute(query, [STEP_RUNS])]

    def _move_mark(self, now: float) -> float:
        with self._writing(), transaction(self._db):
            row = self._db.execute("SELECT time, clock FROM marks").fetchone()
            if row is None:
                ((newest,),) = self._db.execute("SELECT max(kept_from) FROM ended_runs")
                mark = Mark.first(now, newest)
                self._db.execute("INSERT INTO marks (time, clock) VALUES (0, 0)")
            else:
                mark = Mark(row["time"], row["clock"]).moved(now)
            self._db.execute("UPDATE marks SET time = ?, clock = ?", [mark.time, mark.clock])
            return mark.time

    def _size(self, tag: str) -> int:
        try:
            return ROW_BYTES + self._log_path(tag).stat().st_size
        except FileNotFoundError:
            return ROW_BYTES

    def _log_path(self, tag: str) -> Path:
        return self._folder / f"{tag}.jsonl"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as exc:
            why = shortage(self._folder) or f"{exc}; end what holds it, or move it away"
            raise JournalUnavailable(
                f"The journal {self._folder / 'journal.db'} cannot be written: {why}."
            ) from exc


def _entry(row: sqlite3.Row) -> Entry:
    values: dict[str, Any] = {name: row[name] for name in _NAMES}
    for name in ("is_embedded", "timed_out"):
        values[name] = bool(values[name])
    return Entry(**values)
