"""Which callbacks have come before: an event in, whether it is new out, at most once.

A sender that got no answer sends again, so that a callback may come twice: after your answer was
lost, after your program was killed, or because somebody asked for it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from .events import CallbackEvent

_TABLE = """
CREATE TABLE IF NOT EXISTS lyceum_callbacks_seen (
    id TEXT PRIMARY KEY,
    seen_at REAL NOT NULL  -- seconds since 1970
) WITHOUT ROWID
"""


class Seen(Protocol):
    """Remembers callbacks; `SqliteSeen` does, and what you write for another database may."""

    def once(self, event: CallbackEvent) -> AbstractContextManager[bool]:
        """Whether the event is new, for as long as the block lasts.

        The event counts as seen when the block has ended, and not if it raised or its process was
        killed. Of several blocks for one event at once, in whatever thread or process, one gets
        True, and the others get False when that one has ended well.
        """
        ...


class SqliteSeen:
    """`Seen` in a SQLite database: in a file of its own, or in yours.

    ::

        with seen.once(event) as is_new:
            if is_new:
                ...  # what must happen once

    The block holds the database's write lock, so that it should note what is to be done rather
    than do it. With your own connection, what the block writes through it is committed together
    with the event: both are there after a crash, or neither. With a path, a crash in the block
    means that it runs again, so that what it does elsewhere may happen twice, and never not.

    Args:
        database: a file's path, for any number of threads and processes; or a connection of yours
            that is in no transaction (the default of Python's sqlite3, not `autocommit=False`).
        wait_s: how long to wait for the write lock, where `database` is a path. A connection has
            a `timeout` of its own.
        now: seconds since 1970.

    Raises:
        sqlite3.Error: the database cannot be used; so do its methods. Let it become a 500: the
            sender tries again.
    """

    def __init__(
        self,
        database: str | os.PathLike[str] | sqlite3.Connection,
        *,
        wait_s: float = 30,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(database, sqlite3.Connection) and str(database) in ("", ":memory:"):
            raise ValueError("a database in memory has one connection: give that, not its name")
        if not isinstance(database, sqlite3.Connection):
            database = os.path.abspath(database)  # it stays where it is, wherever the program goes
        self._database = database
        self._wait_s = wait_s
        self._now = now
        self._turn = threading.RLock()  # of the threads that share your connection
        if not isinstance(database, sqlite3.Connection):
            with self._transaction():
                pass  # a path that cannot be used is seen at once

    @contextmanager
    def once(self, event: CallbackEvent) -> Iterator[bool]:
        """See `Seen.once`."""
        with self._transaction() as connection:
            marked = connection.execute(
                "INSERT OR IGNORE INTO lyceum_callbacks_seen VALUES (?, ?)",
                (event.id, self._now()),
            )
            yield marked.rowcount == 1

    def forget(self, older_than_s: float) -> int:
        """Forgets what was seen longer ago than that; returns how many.

        The embedded server tries for three days, and a person may send again later: a month is a
        good age.
        """
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM lyceum_callbacks_seen WHERE seen_at < ?",
                (self._now() - older_than_s,),
            ).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # The table is made in the transaction that needs it: with a connection for each request,
        # the constructor is part of the request too, and one write transaction is enough for both.
        if isinstance(self._database, sqlite3.Connection):
            with self._turn, _write(self._database):
                yield self._database
            return
        # One connection for each block: no thread waits for another's, and none survives a fork.
        connection = sqlite3.connect(
            self._database, timeout=self._wait_s, isolation_level=None, check_same_thread=False
        )
        try:
            with _write(connection):
                yield connection
        finally:
            connection.close()


@contextmanager
def _write(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that is committed after the block, and rolled back where it raised."""
    if connection.in_transaction:
        raise RuntimeError("the connection is in a transaction: commit it before you ask")
    # The lock is taken at once: with a lock taken later, two could both believe to be first.
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_TABLE)
        yield
        if not connection.in_transaction:
            raise RuntimeError("the block ended the transaction; leave the commit to `once`")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself ends it on a full disk, for one
            connection.execute("ROLLBACK")
        raise
