"""The tables of the journal, and the steps by which a file of an earlier version gets them.

Several versions may use one journal at a time, each in an environment of its own. So no column of
the table `runs` is ever renamed or dropped, and a new one has a default. What later versions know
of a run is in tables of their own, keyed by the run's tag. Triggers keep both right, whatever
version writes.

A process was called a session at first, and earlier versions still say so: they read and write
`session` where this one reads `process`. Both columns hold the same. This version writes both, and
triggers copy what an earlier one writes. (A renamed or a generated column would be neater. But the
one breaks earlier versions, and the other needs SQLite 3.31, which some systems with a supported
Python lack.)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ..own_files import transaction
from ..protocol.states import FINAL

_RUNS = """
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

IS_FINAL = "state IN (" + ", ".join(f"'{state}'" for state in sorted(FINAL)) + ")"

# An earlier version changes a row by INSERT OR REPLACE. To triggers that is an insertion without a
# deletion, and it applies to their own insertions too: so they check for existing rows first.
_CHANGED = """
    DELETE FROM changes WHERE tag = {row}.tag;
    INSERT INTO changes (tag, is_gone) VALUES ({row}.tag, {is_gone});
"""
_NOTE_END = """
    INSERT INTO ended_runs (tag, kept_from)
    SELECT NEW.tag, max(
        ifnull(NEW.ended_at, NEW.created_at), ifnull((SELECT max(time) FROM marks), 0)
    )
    WHERE NEW.{is_final} AND NOT EXISTS (SELECT 1 FROM ended_runs WHERE tag = NEW.tag);
"""
_NEWS = _CHANGED.format(row="NEW", is_gone=0) + _NOTE_END.format(is_final=IS_FINAL)
_NOTE_CHANGE = f"CREATE TRIGGER runs_changed AFTER UPDATE ON runs BEGIN {_NEWS} END"


def _process_columns() -> Iterator[str]:
    """Yield what adds the column `process` to both tables that have a column `session`."""
    yield "DROP TRIGGER runs_changed"  # the migration is no news of any run
    for table, key in (("runs", "tag"), ("notebooks", "session")):
        yield f"ALTER TABLE {table} ADD COLUMN process TEXT NOT NULL DEFAULT ''"
        yield f"UPDATE {table} SET process = session"
        for name, event in (("added", "INSERT"), ("changed", "UPDATE OF session")):
            yield f"""CREATE TRIGGER {table}_process_{name} AFTER {event} ON {table}
                WHEN NEW.process <> NEW.session BEGIN
                    UPDATE {table} SET process = NEW.session WHERE {key} = NEW.{key};
                END"""
    yield "DROP INDEX runs_by_session"
    yield "CREATE INDEX runs_by_process ON runs (process, created_at)"
    yield "CREATE INDEX notebooks_by_process ON notebooks (process)"
    yield _NOTE_CHANGE


#: Each takes a journal from one `user_version` to the next, in one transaction. Earlier versions
#: do not look at that number.
_STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE INDEX runs_by_session ON runs (session, created_at)",
        f"CREATE INDEX runs_unfinished ON runs (created_at) WHERE NOT {IS_FINAL}",
        # Ages begin at `kept_from`, see `protocol.ages`; a size is NULL until it was measured.
        """CREATE TABLE ended_runs (
            tag TEXT PRIMARY KEY, kept_from REAL NOT NULL, size_bytes INTEGER
        ) WITHOUT ROWID""",
        "CREATE INDEX ended_runs_by_age ON ended_runs (kept_from)",
        "CREATE INDEX ended_runs_unmeasured ON ended_runs (tag) WHERE size_bytes IS NULL",
        "CREATE TABLE marks (time REAL NOT NULL, clock REAL NOT NULL)",
        "CREATE TABLE notebooks (session TEXT PRIMARY KEY, notebook TEXT NOT NULL) WITHOUT ROWID",
        "CREATE INDEX notebooks_by_name ON notebooks (notebook)",
        # The last change of each run, for followers of the journal. A rowid of `runs` would not do:
        # SQLite uses it again after the newest run was forgotten.
        """CREATE TABLE changes (
            number INTEGER PRIMARY KEY AUTOINCREMENT, tag TEXT NOT NULL UNIQUE,
            is_gone INTEGER NOT NULL
        )""",
        "CREATE INDEX changes_gone ON changes (number) WHERE is_gone",
        f"""INSERT INTO ended_runs (tag, kept_from)
            SELECT tag, ifnull(ended_at, created_at) FROM runs WHERE {IS_FINAL}""",
        "INSERT INTO changes (tag, is_gone) SELECT tag, 0 FROM runs ORDER BY created_at",
        f"CREATE TRIGGER runs_added AFTER INSERT ON runs BEGIN {_NEWS} END",
        _NOTE_CHANGE,
        f"""CREATE TRIGGER runs_forgotten AFTER DELETE ON runs BEGIN
            DELETE FROM ended_runs WHERE tag = OLD.tag;
            {_CHANGED.format(row="OLD", is_gone=1)}
        END""",
    ),
    tuple(_process_columns()),
    (
        # See `snapshots`. Earlier versions know nothing of it, and leave it alone.
        """CREATE TABLE snapshots (
            id TEXT PRIMARY KEY, server TEXT NOT NULL, session TEXT NOT NULL, sha256 TEXT NOT NULL,
            tag TEXT NOT NULL, carried TEXT NOT NULL, noted_at REAL NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX snapshots_by_age ON snapshots (noted_at)",
    ),
)


def open_database(path: Path) -> sqlite3.Connection:
    """Open a journal's file and give it the tables that it lacks.

    Raises:
        sqlite3.Error: it is no journal, or cannot be used.
    """
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        if _version(db) < len(_STEPS):
            db.executescript(_RUNS)
            _add_missing_columns(db)
            with transaction(db):  # another process may have been first: it is asked again
                for number in range(_version(db), len(_STEPS)):
                    for statement in _STEPS[number]:
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {number + 1}")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection) -> int:
    ((version,),) = db.execute("PRAGMA user_version")
    return int(version)


def _add_missing_columns(db: sqlite3.Connection) -> None:
    """Give a journal of an earlier version the columns that it lacks."""
    with sqlite3.connect(":memory:") as model:
        model.executescript(_RUNS)
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
    """Return the columns of the table `runs`: name -> declaration."""
    return {
        name: f"{kind}{' NOT NULL' * needed}{f' DEFAULT {default}' if default is not None else ''}"
        for _, name, kind, needed, default, _ in db.execute("PRAGMA table_info(runs)")
    }
