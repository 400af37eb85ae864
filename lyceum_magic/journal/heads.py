"""The heads of the sessions on servers that keep none, and the snapshots that are known here.

A cell of a session claims its branch before it starts, and moves the head when it has ended. Each
is one transaction, so of two kernels on this machine one is refused. What other machines do cannot
be seen here; see `sessions.cloud.bucket`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..disks import reason, shortage
from ..exceptions import ConfigError, JournalUnavailable
from ..own_files import own_database, own_folder, transaction

#: Seconds that a process waits for the write lock of another one before it gives up.
WAIT_S = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS heads (
    server TEXT NOT NULL,
    key TEXT NOT NULL,
    branch TEXT NOT NULL,
    id TEXT,                   -- NULL before the branch has its first snapshot
    sha256 TEXT,
    cell INTEGER NOT NULL,
    title TEXT NOT NULL,
    moved_at REAL NOT NULL,    -- seconds since 1970
    PRIMARY KEY (server, key, branch)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    server TEXT NOT NULL,
    key TEXT NOT NULL,
    branch TEXT NOT NULL,
    id TEXT NOT NULL,          -- of the snapshot that the run will save
    parent TEXT,
    made_at REAL NOT NULL,
    PRIMARY KEY (server, key, branch)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots (
    server TEXT NOT NULL,
    key TEXT NOT NULL,
    id TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    packs TEXT NOT NULL,       -- a JSON array of the packs that it needs
    known_at REAL NOT NULL,
    PRIMARY KEY (server, key, id)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Head:
    """The snapshot from which the next cell of a branch goes on.

    Attributes:
        id: None for a branch without a snapshot; then `sha256` is empty and `cell` is 0.
        moved_at: seconds since 1970.
    """

    branch: str
    id: str | None
    sha256: str
    cell: int
    title: str
    moved_at: float


@dataclass(frozen=True)
class Claim:
    """A run that holds a branch until it has ended.

    Attributes:
        id: the snapshot that it will save.
        parent: the snapshot from which it goes on; None for the first cell.
        made_at: seconds since 1970.
    """

    branch: str
    id: str
    parent: str | None
    made_at: float


@dataclass(frozen=True)
class Known:
    """A snapshot that this machine has written, or has taken with its user's consent."""

    id: str
    sha256: str
    packs: tuple[str, ...]


class HeadMoved(Exception):
    """Raised if a branch's head is not the expected one; `head` is None for a new branch."""

    def __init__(self, head: Head | None) -> None:
        super().__init__("the head has moved")
        self.head = head


class Claimed(Exception):
    """Raised if a run holds the branch."""

    def __init__(self, claim: Claim) -> None:
        super().__init__("a run holds the branch")
        self.claim = claim


class SessionHeads:
    """The heads, claims and known snapshots of one server, for any number of processes.

    Args:
        folder: the journal's folder; the file is `sessions.db` in it.
        server: names the account's bucket on its server.

    Raises:
        ConfigError: the folder cannot have the file.
        JournalUnavailable (every method): the file cannot be used.
    """

    def __init__(self, folder: Path, server: str, *, now: Callable[[], float] = time.time) -> None:
        self._path = folder / "sessions.db"
        self._server = server
        self._now = now
        try:
            own_folder(folder)
            own_database(self._path)
        except OSError as exc:
            raise ConfigError(
                f"The heads of sessions cannot be kept in {folder} ({reason(exc, folder)}); set "
                "LYCEUM_MAGIC_HOME to a folder of yours that can be written to."
            ) from None
        with self._connection() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_SCHEMA)

    def keys(self) -> list[str]:
        """Return the keys of the sessions that have a head here, in order."""
        with self._connection() as db:
            rows = db.execute(
                "SELECT DISTINCT key FROM heads WHERE server = ? ORDER BY key", [self._server]
            )
            return [key for (key,) in rows]

    def heads(self, key: str) -> dict[str, Head]:
        """Return the heads of a session: branch -> head."""
        with self._connection() as db:
            rows = db.execute(
                "SELECT branch, id, sha256, cell, title, moved_at FROM heads "
                "WHERE server = ? AND key = ? ORDER BY branch",
                [self._server, key],
            )
            return {row[0]: _head(row) for row in rows}

    def claims(self, key: str) -> dict[str, Claim]:
        """Return the runs that hold branches of a session: branch -> claim."""
        with self._connection() as db:
            rows = db.execute(
                "SELECT branch, id, parent, made_at FROM claims WHERE server = ? AND key = ?",
                [self._server, key],
            )
            return {row[0]: Claim(*row) for row in rows}

    def claim(self, key: str, branch: str, snapshot: str, *, parent: str | None) -> None:
        """Let a run hold a branch.

        Args:
            snapshot: the id of the snapshot that the run will save.
            parent: the id that the head must have; None for a branch without a snapshot.

        Raises:
            Claimed: another run holds it.
            HeadMoved: the head is another one.
        """
        with self._connection() as db, transaction(db):
            self._check(db, key, branch, parent)
            db.execute(
                "INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?)",
                [self._server, key, branch, snapshot, parent, self._now()],
            )

    def release(self, key: str, branch: str, snapshot: str) -> None:
        """End the claim of the run that was to save a snapshot, if it still holds the branch."""
        with self._connection() as db:
            self._release(db, key, branch, snapshot)

    def settle(self, key: str, branch: str, saved: Known, *, cell: int, title: str) -> Head | None:
        """Move the head to the snapshot of the run that holds the branch, and end its claim.

        Returns:
            The new head; None if the run no longer holds the branch, so that the head stays.
        """
        with self._connection() as db, transaction(db):
            if not self._release(db, key, branch, saved.id):
                return None
            self._learn(db, key, saved)
            head = Head(branch, saved.id, saved.sha256, cell, title, self._now())
            self._write(db, key, head)
            return head

    def move(
        self, key: str, branch: str, *, expected: str | None, to: Known | None, cell: int = 0,
        title: str = "", moved_at: float | None = None,
    ) -> Head:  # fmt: skip
        """Move a head, if it is the expected one and no run holds the branch.

        Args:
            expected: the id of the present head; None for a branch without a snapshot.
            to: None for a branch that starts empty.
            title: that of before if empty.
            moved_at: another machine's time, for a move that is taken over from it.

        Raises:
            Claimed, HeadMoved: see `claim`.
        """
        with self._connection() as db, transaction(db):
            before = self._check(db, key, branch, expected)
            if to is not None:
                self._learn(db, key, to)
            head = Head(
                branch,
                to.id if to else None,
                to.sha256 if to else "",
                cell,
                title or (before.title if before else ""),
                self._now() if moved_at is None else moved_at,
            )
            self._write(db, key, head)
            return head

    def remove(self, key: str, branch: str | None = None) -> None:
        """Remove a branch, or the session with all that is known of it.

        Raises:
            Claimed: a run holds the branch, or a branch of the session.
        """
        tables = ("heads", "claims", "snapshots") if branch is None else ("heads",)
        with self._connection() as db, transaction(db):
            condition, values = "server = ? AND key = ?", [self._server, key]
            if branch is not None:
                condition, values = f"{condition} AND branch = ?", [*values, branch]
            if claim := self._claim(db, condition, values):
                raise Claimed(claim)
            for table in tables:
                db.execute(f"DELETE FROM {table} WHERE {condition}", values)

    def known(self, key: str) -> dict[str, Known]:
        """Return the snapshots of a session that are known here: id -> snapshot."""
        with self._connection() as db:
            rows = db.execute(
                "SELECT id, sha256, packs FROM snapshots WHERE server = ? AND key = ?",
                [self._server, key],
            )
            return {row[0]: Known(row[0], row[1], tuple(json.loads(row[2]))) for row in rows}

    def learn(self, key: str, snapshot: Known) -> None:
        """Remember a snapshot."""
        with self._connection() as db:
            self._learn(db, key, snapshot)

    def forget(self, key: str, ids: Iterable[str]) -> None:
        """Remove snapshots from those that are known."""
        rows = [[self._server, key, snapshot] for snapshot in ids]
        with self._connection() as db, transaction(db):
            db.executemany("DELETE FROM snapshots WHERE server = ? AND key = ? AND id = ?", rows)

    # Helpers.

    def _check(
        self, db: sqlite3.Connection, key: str, branch: str, expected: str | None
    ) -> Head | None:
        where, values = "server = ? AND key = ? AND branch = ?", [self._server, key, branch]
        if claim := self._claim(db, where, values):
            raise Claimed(claim)
        row = db.execute(
            f"SELECT branch, id, sha256, cell, title, moved_at FROM heads WHERE {where}", values
        ).fetchone()
        head = _head(row) if row else None
        if (head.id if head else None) != expected:
            raise HeadMoved(head)
        return head

    def _claim(self, db: sqlite3.Connection, where: str, values: list[str]) -> Claim | None:
        row = db.execute(
            f"SELECT branch, id, parent, made_at FROM claims WHERE {where}", values
        ).fetchone()
        return Claim(*row) if row else None

    def _release(self, db: sqlite3.Connection, key: str, branch: str, snapshot: str) -> bool:
        return bool(
            db.execute(
                "DELETE FROM claims WHERE server = ? AND key = ? AND branch = ? AND id = ?",
                [self._server, key, branch, snapshot],
            ).rowcount
        )

    def _learn(self, db: sqlite3.Connection, key: str, snapshot: Known) -> None:
        db.execute(
            "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?)",
            [self._server, key, snapshot.id, snapshot.sha256, json.dumps(snapshot.packs),
             self._now()],
        )  # fmt: skip

    def _write(self, db: sqlite3.Connection, key: str, head: Head) -> None:
        db.execute(
            "INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [self._server, key, head.branch, head.id, head.sha256 or None, head.cell, head.title,
             head.moved_at],
        )  # fmt: skip

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection of its own, so that none is shared by threads or survives a fork."""
        try:
            db = sqlite3.connect(self._path, timeout=WAIT_S, isolation_level=None)
            try:
                yield db
            finally:
                db.close()
        except sqlite3.DatabaseError as exc:
            why = shortage(self._path.parent) or f"{exc}; end what holds it, or move it away"
            raise JournalUnavailable(
                f"The heads of sessions, {self._path}, cannot be used: {why}."
            ) from exc


def _head(row: tuple[str, str | None, str | None, int, str, float]) -> Head:
    branch, snapshot, sha256, cell, title, moved_at = row
    return Head(branch, snapshot, sha256 or "", cell, title, moved_at)
