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
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..exceptions import ConfigError, JournalUnavailable, UnknownRun
from ..protocol.events import Output
from ..protocol.money import cost_of
from ..protocol.states import State

KEEP_DAYS = 30
KEEP_BYTES = 2 * 1024**3

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    tag TEXT PRIMARY KEY,
    run_id TEXT,
    base_url TEXT NOT NULL,
    is_embedded INTEGER NOT NULL,
    server_folder TEXT NOT NULL,
    streaming_url TEXT,
    machine TEXT NOT NULL,
    name TEXT NOT NULL,
    timeout_s INTEGER NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL,
    state TEXT NOT NULL,
    return_code INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    timed_out INTEGER NOT NULL DEFAULT 0,
    price_per_hour REAL,
    billed REAL,
    session TEXT NOT NULL DEFAULT '',
    started_at REAL
);
CREATE INDEX IF NOT EXISTS runs_by_id ON runs (run_id);
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (created_at);
"""


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


_COLUMNS = [column.name for column in fields(Entry)]


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
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = _open(path)
        except OSError as exc:
            raise ConfigError(
                f"The journal of your runs cannot be kept in {folder} ({exc.strerror}); set "
                "LYCEUM_MAGIC_HOME to a folder that can be written to."
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
        marks = ", ".join("?" for _ in _COLUMNS)
        try:
            self._db.execute(
                f"INSERT OR REPLACE INTO runs ({', '.join(_COLUMNS)}) VALUES ({marks})",
                [getattr(entry, name) for name in _COLUMNS],
            )
        except sqlite3.OperationalError as exc:
            raise JournalUnavailable(
                f"The journal {self._folder / 'journal.db'} cannot be written ({exc}); end what "
                "holds it, or make room."
            ) from exc

    def entries(self, *, limit: int = -1) -> list[Entry]:
        """The runs, newest first."""
        query = "SELECT * FROM runs ORDER BY created_at DESC LIMIT ?"
        return [_entry(row) for row in self._db.execute(query, [limit])]

    def find(self, run_id: str, session: str = "") -> Entry:
        """The run with this id or tag, a unique beginning of its id, or the newest for "last".

        Args:
            session: whose runs "last" means, as long as it has any.

        Raises:
            UnknownRun: none, or more than one.
        """
        if run_id == "last":
            query = "SELECT * FROM runs ORDER BY session = ? DESC, created_at DESC LIMIT 1"
            newest = self._db.execute(query, [session]).fetchone()
            if newest is None:
                raise UnknownRun("There is no run yet: start one with a %%lyceum cell.")
            return _entry(newest)
        query = "SELECT * FROM runs WHERE substr(run_id, 1, ?) = ? OR tag = ? LIMIT 3"
        found = [_entry(row) for row in self._db.execute(query, [len(run_id), run_id, run_id])]
        exact = [entry for entry in found if run_id in (entry.run_id, entry.tag)]
        if exact or len(found) == 1:
            return (exact or found)[0]
        if found:
            raise UnknownRun(f"More than one run begins with {run_id!r}: give more of the id.")
        raise UnknownRun(f"No run of yours begins with {run_id!r}; see `%lyceum list --all`.")

    def open_log(self, tag: str) -> EventLog:
        """The events of a run, to read and to append to."""
        return EventLog(self._log_path(tag))

    def forget(self, tag: str) -> None:
        """Removes a run from the journal, with its output."""
        self._log_path(tag).unlink(missing_ok=True)
        self._db.execute("DELETE FROM runs WHERE tag = ?", [tag])

    def prune(
        self, *, now: float, keep_days: float = KEEP_DAYS, keep_bytes: int = KEEP_BYTES
    ) -> int:
        """Forgets ended runs that are too old, then the oldest until the rest is small enough.

        Returns:
            How many were forgotten.
        """
        ended = [entry for entry in self.entries() if entry.is_final]
        sizes = {entry.tag: self._size(entry.tag) for entry in ended}
        total, forgotten = sum(sizes.values()), 0
        for entry in reversed(ended):
            if entry.created_at > now - keep_days * 86400 and total <= keep_bytes:
                break
            total -= sizes[entry.tag]
            self.forget(entry.tag)
            forgotten += 1
        return forgotten

    def _size(self, tag: str) -> int:
        try:
            return self._log_path(tag).stat().st_size
        except FileNotFoundError:
            return 0

    def _log_path(self, tag: str) -> Path:
        return self._folder / f"{tag}.jsonl"


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
        _add_missing_columns(db)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _add_missing_columns(db: sqlite3.Connection) -> None:
    """Gives a journal that an earlier version began the columns that it lacks."""
    with sqlite3.connect(":memory:") as model:
        model.executescript(_SCHEMA)
        wanted = _columns(model)
    model.close()
    for name, declaration in wanted.items():
        if name not in _columns(db):
            try:
                db.execute(f"ALTER TABLE runs ADD COLUMN {name} {declaration}")
            except sqlite3.OperationalError:
                if name not in _columns(db):  # else another process was first
                    raise


def _columns(db: sqlite3.Connection) -> dict[str, str]:
    """The columns of the table -> how each is declared."""
    return {
        name: f"{kind}{' NOT NULL' * needed}{f' DEFAULT {default}' if default is not None else ''}"
        for _, name, kind, needed, default, _ in db.execute("PRAGMA table_info(runs)")
    }


def _entry(row: sqlite3.Row) -> Entry:
    values: dict[str, Any] = {name: row[name] for name in _COLUMNS}
    for name in ("is_embedded", "timed_out"):
        values[name] = bool(values[name])
    return Entry(**values)


class EventLog:
    """The output events of one run in a file: a JSON array of stream, time, text, event id a line.

    A line is written by one `write`, so that a killed process leaves at most one torn line, at the
    end; readers leave it out and the next writer cuts it off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if not _lock(descriptor):
                os.close(descriptor)
                self._go_on_apart()
                return False
            os.truncate(descriptor, _line_start(self.path, self.path.stat().st_size))
            self._descriptor = descriptor
        return True

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
        if self._descriptor is None:
            return
        stamp = event.timestamp if event.timestamp is not None else time.time()
        line = json.dumps([event.stream, round(stamp, 6), event.text, event_id])
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        if self._apart is not None:
            self._apart.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def leave_to_parent(self) -> None:
        """Close it in a forked child, which would keep the parent's lock, and remove its file."""
        if self._removal is not None:
            self._removal.detach()
        self.close()

    def size(self) -> int:
        """How much of the log is whole, in bytes."""
        if self._apart is not None:
            return self._shared_bytes + self._apart.size()
        try:
            return _line_start(self.path, self.path.stat().st_size)
        except FileNotFoundError:
            return 0

    def read(self, end: int | None = None) -> Iterator[tuple[Output, str | None]]:
        """The events with their ids, oldest first, up to the offset `end`.

        Reads as it goes, whatever the size.
        """
        left = self.size() if end is None else end
        if self._apart is not None and left > self._shared_bytes:
            yield from self.read(self._shared_bytes)
            yield from self._apart.read(left - self._shared_bytes)
            return
        if not left:
            return
        with open(self.path, "rb") as file:
            while left > 0 and (line := file.readline()):
                left -= len(line)
                stream, stamp, text, event_id = json.loads(line)
                yield Output(text, stream, stamp), event_id

    def last_event_id(self) -> str | None:
        """The id of the last whole line; None where there is no line, or no id in it."""
        end = self.size()
        if not end:
            return None
        if self._apart is not None and end > self._shared_bytes:
            return self._apart.last_event_id()
        with open(self.path, "rb") as file:
            file.seek(_line_start(self.path, end - 1))
            event_id = json.loads(file.readline())[3]
        return str(event_id) if event_id is not None else None


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
    with open(path, "rb") as file:
        while end > 0:
            begin = max(0, end - 65536)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0
