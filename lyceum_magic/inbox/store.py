"""The callbacks for this user's notebooks, and the addresses they came to, in one SQLite file.

The kernels that wait and the Jupyter servers that receive share it, several processes at once. The
file has the digests of the addresses' secrets: reading it does not enable anyone to send.
"""

from __future__ import annotations

import errno
import hmac
import logging
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from ..callbacks.events import CallbackEvent, read
from ..exceptions import InvalidCallback
from ..own_files import own_database, own_folder

logger = logging.getLogger(__name__)

KEEP_DAYS = 30
#: Maximum number of callbacks kept for one address, so that its sender cannot fill the disk.
KEEP_CALLBACKS = 1000
#: Seconds that a process waits for the write lock of another one before it gives up.
WAIT_S = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS addresses (
    digest BLOB PRIMARY KEY,
    locator BLOB NOT NULL,     -- the digest's first bytes, by which it is looked up
    session TEXT NOT NULL,     -- the process; earlier versions, which share the file, say so
    tag TEXT,
    created_at REAL NOT NULL,  -- seconds since 1970
    poke_port INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS addresses_by_locator ON addresses (locator);
CREATE INDEX IF NOT EXISTS addresses_by_tag ON addresses (tag);
CREATE TABLE IF NOT EXISTS callbacks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL REFERENCES addresses ON DELETE CASCADE,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    received_at REAL NOT NULL,
    UNIQUE (digest, id)
);
"""
_LOCATOR_BYTES = 8


@dataclass(frozen=True)
class Address:
    """An address for callbacks.

    Attributes:
        digest: the digest of its secret.
        process: the process that waits for them; see `Workspace.process_id`.
        tag: the tag of the run that they are about; None for callbacks about any run.
        poke_port: the port of 127.0.0.1 at which that process wants an empty datagram after each
            new callback.
    """

    digest: bytes
    process: str
    tag: str | None
    poke_port: int


@dataclass(frozen=True)
class Arrival:
    """A callback that came in.

    Attributes:
        number: larger than that of each earlier one.
        tag: see `Address`.
        received_at: seconds since 1970.
    """

    number: int
    tag: str | None
    event: CallbackEvent
    received_at: float


def digest_of(secret: str) -> bytes:
    """Return the digest that the file has in place of a secret."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


class InboxStore:
    """The addresses and callbacks in one folder, for any number of threads and processes.

    Raises:
        OSError, sqlite3.Error: the folder cannot be used. The methods raise the same.
    """

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._path = folder / "callbacks.db"
        own_folder(folder)
        own_database(self._path)
        with self._connection() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_SCHEMA)

    def register(self, secret: str, *, process: str, tag: str | None, poke_port: int) -> None:
        """Add an address; see `Address`."""
        digest = digest_of(secret)
        with self._connection() as db:
            db.execute(
                "INSERT INTO addresses VALUES (?, ?, ?, ?, ?, ?)",
                [digest, digest[:_LOCATOR_BYTES], process, tag, self._now(), poke_port],
            )

    def adopt(self, tag: str, *, process: str, poke_port: int) -> bool:
        """Give a run's callbacks to another process; False if the run has no address."""
        with self._connection() as db:
            return bool(
                db.execute(
                    "UPDATE addresses SET session = ?, poke_port = ? WHERE tag = ?",
                    [process, poke_port, tag],
                ).rowcount
            )

    def retire(self, process: str) -> None:
        """Remove the addresses of a process that ends, but for those of its runs.

        Another process may adopt those.
        """
        with self._connection() as db:
            db.execute("DELETE FROM addresses WHERE session = ? AND tag IS NULL", [process])

    def find(self, secret: str) -> Address | None:
        """Return the address with a secret; None if there is none."""
        digest = digest_of(secret)
        query = "SELECT digest, session, tag, poke_port FROM addresses WHERE locator = ?"
        with self._connection() as db:
            near = db.execute(query, [digest[:_LOCATOR_BYTES]]).fetchall()
        # An index compares byte by byte; what is compared so is a part of a digest alone.
        return next((Address(*row) for row in near if hmac.compare_digest(row[0], digest)), None)

    def add(self, address: Address, event: CallbackEvent, body: bytes) -> bool:
        """Keep a callback, and return when it is on the disk; False if it has come before."""
        with self._connection() as db:
            known = db.execute("SELECT 1 FROM addresses WHERE digest = ?", [address.digest])
            if known.fetchone() is None:
                return False  # pruned a moment ago
            is_new = db.execute(
                "INSERT OR IGNORE INTO callbacks (digest, id, body, received_at) "
                "VALUES (?, ?, ?, ?)",
                [address.digest, event.id, body, self._now()],
            ).rowcount
            if is_new:
                db.execute(
                    "DELETE FROM callbacks WHERE digest = ? AND number <= (SELECT number FROM "
                    "callbacks WHERE digest = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                    [address.digest, address.digest, KEEP_CALLBACKS],
                )
        return bool(is_new)

    def arrivals(self, process: str, *, after: int = 0) -> list[Arrival]:
        """Return the callbacks for a process with numbers larger than `after`, oldest first."""
        return self._arrivals("addresses.session = ? AND number > ?", process, after)

    def arrivals_of_run(self, tag: str) -> list[Arrival]:
        """Return the callbacks about a run, oldest first."""
        return self._arrivals("addresses.tag = ?", tag)

    def _arrivals(self, condition: str, *values: object) -> list[Arrival]:
        query = (
            "SELECT number, tag, id, body, received_at FROM callbacks JOIN addresses USING (digest)"
            f" WHERE {condition} ORDER BY number"
        )
        with self._connection() as db:
            rows = db.execute(query, values).fetchall()
        return [arrival for row in rows if (arrival := _arrival(*row)) is not None]

    def forget(self, tags: Iterable[str]) -> None:
        """Remove the addresses of runs, with their callbacks."""
        with self._connection() as db:
            db.executemany("DELETE FROM addresses WHERE tag = ?", ([tag] for tag in tags))

    def prune(self, *, keep_days: float = KEEP_DAYS) -> None:
        """Remove old addresses at which no process waits, with their callbacks."""
        before = self._now() - keep_days * 86400
        with self._connection() as db:
            ports = db.execute(
                "SELECT DISTINCT poke_port FROM addresses WHERE created_at < ?", [before]
            ).fetchall()
            db.executemany(
                "DELETE FROM addresses WHERE created_at < ? AND poke_port = ?",
                [(before, port) for (port,) in ports if not is_taken(port)],
            )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction on a connection of its own.

        So no thread waits for another's connection, and none survives a fork.
        """
        db = sqlite3.connect(self._path, timeout=WAIT_S)
        try:
            # A callback answered with 2xx does not come again: it must survive a power cut.
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA foreign_keys=ON")
            with db:
                yield db
        finally:
            db.close()


def _arrival(
    number: int, tag: str | None, callback_id: str, body: bytes, received_at: float
) -> Arrival | None:
    """Return the callback in a row; None if this version cannot read what another one kept."""
    try:
        event = read(body)
    except InvalidCallback as exc:
        logger.warning("callback %d that came in is left out: %s", number, exc)
        return None
    return Arrival(number, tag, replace(event, id=callback_id), received_at)


def is_taken(port: int) -> bool:
    """Return whether a program, perhaps not the one that is meant, has a UDP port of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            return exc.errno == errno.EADDRINUSE
    return False
