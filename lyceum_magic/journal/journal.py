"""Every run of this user on disk, so that a run outlives its kernel, its tab and its cell.

One row for a run in SQLite, written before the run is started, and one file of events beside it,
appended to as they come. All of it is 0600 in a folder that is 0700.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from ..disks import reason, shortage
from ..exceptions import ConfigError, JournalUnavailable, UnknownRun
from ..own_files import open_own, own_database, own_folder
from ..protocol.ages import DAY_S, Mark
from ..protocol.events import Output
from ..protocol.money import cost_of
from ..protocol.states import State
from .schema import IS_FINAL, open_database, transaction

KEEP_DAYS = 30
KEEP_BYTES = 2 * 1024**3

#: How much of a log is read at a time. The memory of larger blocks goes back to the system after
#: each, and getting it again takes twice as long as all that is done with them.
_BLOCK_BYTES = 1 << 17
#: How many runs are forgotten or measured in one step.
STEP_RUNS = 200
#: Bytes that a run takes in the database, about.
ROW_BYTES = 600
#: How many changes back a follower of the journal hears of what was forgotten.
KEPT_CHANGES = 10_000

#: Seconds between two tries to write what a full disk has refused.
SAVE_AGAIN_S = 5.0
#: Maximum size of the output that waits for room on the disk.
MAX_UNSAVED_BYTES = 64 << 20
_NOT_KEPT = (
    "\nThe rest of this output is not kept here, since the journal's disk takes nothing: make room "
    "on it, and `%lyceum attach` in another kernel brings all of it.\n"
)

#: Sorts behind every other one.
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
        session: tells the runs of one process from those of others.
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
    session: str = ""
    started_at: float | None = None

    def cost(self, now: float) -> float | None:
        """What it has cost, in dollars: as billed, else by its time up to `now`.

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
# Not INSERT OR REPLACE: that empties what a later version has added to the row.
_WRITE = (
    f"INSERT INTO runs ({', '.join(_NAMES)}) VALUES ({', '.join('?' for _ in _NAMES)}) "
    f"ON CONFLICT (tag) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in _NAMES[1:])}"
)
_IN_NOTEBOOK = (
    "WHERE session IN (SELECT session FROM notebooks WHERE notebook = "
    "(SELECT notebook FROM notebooks WHERE session = ?) UNION ALL SELECT ?)"
)


@dataclass(frozen=True)
class Changes:
    """The news of a journal since a follower has asked last.

    Attributes:
        number: to ask with the next time.
        entries: the runs that were added or changed, as they are now, each once.
        forgotten: the tags of those that are gone.
        is_complete: False where the follower was away for too long to hear of all that is gone:
            it reads all entries again.
    """

    number: int
    entries: list[Entry]
    forgotten: list[str]
    is_complete: bool


class Journal:
    """The journal in one folder. Several processes may use it at once.

    Not for several threads: the owner opens it on one thread and stays there.
    """

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            ConfigError: there can be no journal in this folder, or what lies there is none.
        """
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

    def close(self) -> None:
        self._db.close()

    def write(self, entry: Entry) -> None:
        """Writes a run's row, new or changed.

        Raises:
            JournalUnavailable: the database cannot be written.
        """
        with self._writing():
            self._db.execute(_WRITE, [getattr(entry, name) for name in _NAMES])

    def write_session(self, session: str, notebook: str) -> None:
        """Notes which notebook the runs of a process belong to.

        Raises:
            JournalUnavailable: the database cannot be written.
        """
        with self._writing():
            self._db.execute(
                "INSERT INTO notebooks (session, notebook) VALUES (?, ?) "
                "ON CONFLICT (session) DO UPDATE SET notebook = excluded.notebook",
                [session, notebook],
            )

    def entries(self, *, limit: int = -1) -> list[Entry]:
        """The runs, newest first."""
        return self._entries("ORDER BY created_at DESC LIMIT ?", limit)

    def of_notebook(self, session: str, *, limit: int = -1) -> list[Entry]:
        """The runs of the notebook that a process belongs to, newest first."""
        # The index alone says which they are; only these rows are read.
        newest = f"SELECT rowid FROM runs {_IN_NOTEBOOK} ORDER BY created_at DESC LIMIT ?"
        condition = f"WHERE rowid IN ({newest}) ORDER BY created_at DESC"
        return self._entries(condition, session, session, limit)

    def unfinished(self) -> list[Entry]:
        """The runs that have not ended as far as is known here, newest first."""
        return self._entries(f"WHERE NOT {IS_FINAL} ORDER BY created_at DESC")

    def ended_before(self, moment: float) -> list[Entry]:
        """The runs that have ended and were sent at a moment or earlier, newest first."""
        condition = f"WHERE created_at <= ? AND {IS_FINAL} ORDER BY created_at DESC"
        return self._entries(condition, moment)

    def paid(self, session: str) -> list[Entry]:
        """The runs of a process that cost money, newest first."""
        return self._entries(
            "WHERE session = ? AND (price_per_hour > 0 OR billed IS NOT NULL) "
            "ORDER BY created_at DESC",
            session,
        )

    def count(self, session: str | None = None) -> int:
        """How many runs there are, of all or of the notebook that a process belongs to."""
        if session is None:
            ((number,),) = self._db.execute("SELECT count(*) FROM runs")
        else:
            query = f"SELECT count(*) FROM runs {_IN_NOTEBOOK}"
            ((number,),) = self._db.execute(query, [session, session])
        return int(number)

    def find(self, run_id: str, session: str = "") -> Entry:
        """The run with this id or tag, a unique beginning of its id, or the newest for "last".

        Args:
            session: whose runs "last" means, as long as it has any.

        Raises:
            UnknownRun: none, or more than one.
        """
        if run_id == "last":
            newest = self._entries(
                "WHERE session = ? ORDER BY created_at DESC LIMIT 1", session
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
        """What has changed since a follower has asked last, whichever process did it.

        Args:
            after: the `number` of its last answer; 0 for one that knows nothing yet.
            limit: of one answer; ask again until there is nothing new.
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
        """The events of a run, to read and to append to."""
        return EventLog(self._log_path(tag))

    def forget(self, tags: Iterable[str]) -> None:
        """Removes runs from the journal, with their output.

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
        """Forgets ended runs that are too old, then the oldest until the rest is small enough.

        Ages are measured by the journal's mark, which a wrong clock moves by a day at most.

        Yields:
            How many were forgotten in a step, which takes some milliseconds.

        Raises:
            JournalUnavailable: the database cannot be written.
        """
        too_old = self._move_mark(now) - keep_days * DAY_S
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

    # Underneath.

    def _entries(self, condition: str, *values: object) -> list[Entry]:
        query = f"SELECT {_COLUMNS} FROM runs {condition}"
        return [_entry(row) for row in self._db.execute(query, values)]

    def _oldest(self, condition: str = "", *values: object) -> dict[str, int]:
        """Some ended runs, those first whose age is greatest: tag -> bytes."""
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


class _Unsaved:
    """The end of a log whose disk takes nothing: it follows the first `start` bytes of the file."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.lines = bytearray()
        self.is_full = False
        self.tried_at = time.monotonic()

    def add(self, line: bytes) -> None:
        if not self.is_full and len(self.lines) + len(line) > MAX_UNSAVED_BYTES:
            self.is_full = True
            self.lines += _line(Output(_NOT_KEPT, "stderr"), None)
        if not self.is_full:
            self.lines += line


class EventLog:
    """The output events of one run in a file: a JSON array of stream, time, text, event id a line.

    A line is written by one `write`, so that a killed process leaves at most one torn line, at the
    end; readers leave it out and the next writer cuts it off.

    What the disk refuses stays in memory, and is read from there, until the disk takes it.

    Attributes:
        problem: why the disk took something not, in one sentence; empty if it took everything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._unsaved: _Unsaved | None = None
        self._descriptor: int | None = None
        self._shared_bytes = 0
        self._apart: EventLog | None = None
        self._removal: weakref.finalize[..., EventLog] | None = None

    def claim(self) -> bool:
        """Makes this the one writer of the log, until `close`; False if another process is.

        Two kernels may follow one run; what one of them writes is enough. The other one then goes
        on from what is there now in a file of its own: it hears of each event later or earlier
        than the first, and would otherwise read some of them twice, or not at all.
        """
        if self._apart is not None:
            return False
        if self._descriptor is None:
            try:
                return self._claim()
            except OSError as exc:
                where = exc.filename or self.path
                raise JournalUnavailable(
                    f"The journal's file {where} cannot be made: {reason(exc, where)}."
                ) from exc
        return True

    def _claim(self) -> bool:
        descriptor = open_own(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            if _lock(descriptor):
                os.truncate(descriptor, _line_start(self.path, self.path.stat().st_size))
                self._descriptor, descriptor = descriptor, -1
                return True
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        self._go_on_apart()
        return False

    def keep_in_memory(self) -> None:
        """Goes on without a file of its own, for a log that cannot be claimed."""
        self._unsaved = _Unsaved(self.size())

    def _go_on_apart(self) -> None:
        self._shared_bytes = self.size()
        descriptor, name = tempfile.mkstemp(prefix="lyceum-magic-", suffix=".jsonl")
        os.close(descriptor)
        self._apart = EventLog(Path(name))
        self._apart.claim()
        self._removal = weakref.finalize(self, Path(name).unlink, missing_ok=True)

    def append(self, event: Output, event_id: str | None) -> None:
        """Adds an event, if this is a writer."""
        if self._apart is not None:
            self._apart.append(event, event_id)
        if self._unsaved is not None:
            self._unsaved.add(_line(event, event_id))
            if time.monotonic() >= self._unsaved.tried_at + SAVE_AGAIN_S:
                self.save()
        elif self._descriptor is not None:
            self._write(self._descriptor, _line(event, event_id))

    def _write(self, descriptor: int, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(descriptor, data[written:])
        except OSError as exc:
            self._note_problem(exc)
            unsaved = _Unsaved(os.fstat(descriptor).st_size - written)
            unsaved.add(data)
            self._unsaved = unsaved

    def save(self) -> bool:
        """Writes what only this process has; returns whether all of it is on disk.

        The bytes of the log and their offsets stay the same.
        """
        if self._apart is not None:
            return self._apart.save()
        if self._unsaved is None or self._descriptor is None:
            return self._unsaved is None
        if self._unsaved.is_full:  # a file without the rest would pass for all of it
            return False
        self._unsaved.tried_at = time.monotonic()
        lines = bytes(self._unsaved.lines)
        try:
            # A part of them may be there, from the last time.
            os.ftruncate(self._descriptor, self._unsaved.start)
            while lines:
                lines = lines[os.write(self._descriptor, lines) :]
        except OSError as exc:
            self._note_problem(exc)
            return False
        self._unsaved = None
        return True

    def _note_problem(self, exc: OSError) -> None:
        why = reason(exc, self.path)
        self.problem = f"The journal's file {self.path} cannot be written: {why}."

    def close(self) -> None:
        self.save()
        self._let_go()

    def _let_go(self) -> None:
        if self._apart is not None:
            self._apart._let_go()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def leave_to_parent(self) -> None:
        """Close it in a forked child, which would keep the parent's lock, and remove its file."""
        if self._removal is not None:
            self._removal.detach()
        self._let_go()

    def size(self) -> int:
        """How much of the log is whole, in bytes."""
        if self._apart is not None:
            return self._shared_bytes + self._apart.size()
        if (unsaved := self._unsaved) is not None:
            return unsaved.start + len(unsaved.lines)
        try:
            return _line_start(self.path, self.path.stat().st_size)
        except FileNotFoundError:
            return 0

    def read(self, end: int | None = None) -> Iterator[tuple[Output, str | None]]:
        """The events with their ids, oldest first, up to the offset `end`.

        Reads as it goes, whatever the size.
        """
        for events in self._blocks(end):
            for stream, stamp, text, event_id in events:
                yield Output(text, stream, stamp), event_id

    def read_text(self, end: int | None = None) -> Iterator[Output]:
        """As `read`, for whom the text is enough: events of one stream in a row are one.

        Takes the time of one for every block, however small the events are.
        """
        for events in self._blocks(end):
            for stream, some in groupby(events, itemgetter(0)):
                first, *others = some
                yield Output("".join([first[2], *map(itemgetter(2), others)]), stream, first[1])

    def _blocks(self, end: int | None) -> Iterator[list[Any]]:
        """The events up to the offset `end`, a block of lines at a time."""
        left = self.size() if end is None else end
        if self._apart is not None and left > self._shared_bytes:
            yield from self._blocks(self._shared_bytes)
            yield from self._apart._blocks(left - self._shared_bytes)
            return
        # Taken before the file is read: what is saved meanwhile is in both, at the same offset.
        unsaved, lines = self._unsaved, b""
        if unsaved is not None and left > unsaved.start:
            lines = bytes(unsaved.lines[: left - unsaved.start])
            left = unsaved.start
        yield from self._blocks_of_file(left)
        if lines:
            yield _events(lines[:-1])

    def _blocks_of_file(self, left: int) -> Iterator[list[Any]]:
        if not left:
            return
        with open(open_own(self.path, os.O_RDONLY), "rb", buffering=0) as file:
            begun = b""
            while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
                left -= len(block)
                lines, feed, rest = block.rpartition(b"\n")
                if feed:
                    yield _events(begun + lines)
                    begun = rest
                else:
                    begun += block

    def last_event_id(self) -> str | None:
        """The id of the last whole line; None where there is no line, or no id in it."""
        end = self.size()
        if not end:
            return None
        if self._apart is not None and end > self._shared_bytes:
            return self._apart.last_event_id()
        if self._unsaved is not None and self._unsaved.lines:
            last = bytes(self._unsaved.lines).splitlines()[-1]
        else:
            with open(open_own(self.path, os.O_RDONLY), "rb") as file:
                file.seek(_line_start(self.path, end - 1))
                last = file.readline()
        event_id = json.loads(last)[3]
        return str(event_id) if event_id is not None else None


def _line(event: Output, event_id: str | None) -> bytes:
    stamp = event.timestamp if event.timestamp is not None else time.time()
    text = json.dumps([event.stream, round(stamp, 6), event.text, event_id])
    return text.encode() + b"\n"


def _events(lines: bytes) -> list[Any]:
    """What some whole lines say; no line feed is inside of one."""
    text = b"[%b]" % lines.replace(b"\n", b",")
    try:
        events = from_json(text, cache_strings="none")
    except ValueError:  # half of a surrogate pair, which the standard library alone lets pass
        events = json.loads(text)
    return list(events)


def _lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: one kernel follows a run there
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _line_start(path: Path, end: int) -> int:
    """The offset behind the last line feed before `end`; 0 if there is none."""
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        while end > 0:
            begin = max(0, end - 65536)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0
