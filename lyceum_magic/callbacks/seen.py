"""A memory of callbacks: an event in, True out the first time, False after that.

A sender that got no answer sends again. So a callback may come twice: after your answer was lost,
after your program was killed, or because a user asked for it.
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
    """A memory of callbacks: `SqliteSeen`, or your own class for another database."""

    def once(self, event: CallbackEvent) -> AbstractContextManager[bool]:
        """Return a context manager that gives True if the event is new.

        The event counts as seen after the block has ended, and not if it raised or its process was
        killed. Of several blocks for one event at once, in any thread or process, one gets True.
        The others get False after that one has ended without an error.
        """
        ...


class SqliteSeen:
    """`Seen` in a SQLite database: in a file of its own, or in yours.

    ::

        with seen.once(event) as is_new:
            if is_new:
                ...  # what must happen once

    The block holds the database's write lock, so let it note the work rather than do it. With your
    own connection, the block's writes through it are committed together with the event: after a
    crash both are there, or neither. With a path, the block runs again after a crash, so its work
    elsewhere may happen twice, but is never left out.

    Args:
        database: a file's path, for any number of threads and processes; or a connection of yours
            that is in no transaction (the default of Python's sqlite3, not `autocommit=False`).
        wait_s: how long to wait for the write lock, where `database` is a path. A connection has
            a `timeout` of its own.
        now: seconds since 1970.

    Raises:
        sqlite3.Error: the database cannot be used; the methods raise it too. Let it become a 500:
            the sender tries again.
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
        """Give True if the event is new; see `Seen.once`."""
        with self._transaction() as connection:
            marked = connection.execute(
                "INSERT OR IGNORE INTO lyceum_callbacks_seen VALUES (?, ?)",
                (event.id, self._now()),
            )
            yield marked.rowcount == 1

    def forget(self, older_than_s: float) -> int:
        """Forget events that were seen longer ago, and return their number.

        The embedded server tries for three days, and a user may send again later: a month is a good
        age.
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
    """Run the block in a transaction, which is rolled back if it raises."""
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
