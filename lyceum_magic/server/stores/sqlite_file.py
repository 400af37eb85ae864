"""One SQLite file. The stores that use it know its tables.

It has one connection, used on a thread of its own: the event loop never waits for the disk, and two
transactions of one server cannot collide.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ...disks import shortage
from ...exceptions import EmbeddedServerError
from ...own_files import own_database, transaction
from .base import RecordRefused, StoreUnavailable

_T = TypeVar("_T")

#: A file is packed at its end if more pages are free, and fewer in use.
_MIN_FREE_PAGES, _MAX_USED_PAGES = 4_000, 64_000


#: SQLite's codes for a file of another kind, and for a broken one.
_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


class SqliteFile:
    """The SQLite file at `path`, which is made with mode 0600 if it is missing.

    Every method may raise StoreUnavailable.

    Args:
        migrations: Scripts, each of which takes the file from one `user_version` to the next.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self._path = path
        self._migrations = migrations
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lyceum-store")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, and bring its tables up to this version.

        Raises:
            EmbeddedServerError: A newer version wrote the file.
        """
        self._connection = await self._on_thread(self._connect)

    async def close(self) -> None:
        """Close the file and end the thread."""
        if self._connection is not None:
            with contextlib.suppress(StoreUnavailable):  # packing needs room
                await self.run(_pack)
            await self._on_thread(self._connection.close)
            self._connection = None
        self._thread.shutdown()

    async def execute(
        self,
        statement: str,
        values: Sequence[Any] | Mapping[str, Any] = (),
        *,
        durable: bool = False,
    ) -> list[sqlite3.Row]:
        """Run one statement as a transaction of its own; return all its rows."""

        def execute(connection: sqlite3.Connection) -> list[sqlite3.Row]:
            return connection.execute(statement, values).fetchall()

        return await (self.transact(execute, durable=True) if durable else self.run(execute))

    async def run(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return the result of a function that reads, or that runs one statement."""
        return await self._on_thread(lambda: function(self._opened()))

    async def transact(
        self, function: Callable[[sqlite3.Connection], _T], *, durable: bool = False
    ) -> _T:
        """Return the result of a function, whose changes are kept unless it raises.

        Args:
            durable: Whether the changes are on the disk, not only with the system, when this
                returns.
        """

        def transact() -> _T:
            connection = self._opened()
            with _synchronous(connection, durable), transaction(connection):
                return function(connection)

        return await self._on_thread(transact)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the store is used before open() or after close()")
        return self._connection

    async def _on_thread(self, function: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError) as exc:
            raise RecordRefused(f"The server's records refuse what is written ({exc}).") from exc
        except (sqlite3.DatabaseError, OSError) as exc:
            # The disk is full, read-only or failing, or has damaged the file; OSError is about the
            # vault's key.
            raise StoreUnavailable(self._explanation(exc)) from exc

    def _explanation(self, error: Exception) -> str:
        """Return why the records cannot be used, and what to do."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            return (
                f"The server's records in {self._path} are damaged ({error}). Restore that file "
                "from a copy, or move it away to begin with empty records."
            )
        is_full = code == sqlite3.SQLITE_FULL
        why = (
            shortage(self._path, is_full=is_full) or f"{error}; look after the disk of {self._path}"
        )
        return f"The server's records cannot be read or written: {why}, then try again."

    def _connect(self) -> sqlite3.Connection:
        own_database(self._path)
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            # In WAL mode NORMAL loses nothing when this process is killed. A power cut may take
            # the last records, but it takes the runs themselves as well.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise EmbeddedServerError(
                f"{self._path} was written by a newer lyceum-magic (format {version}, this one "
                f"knows {len(self._migrations)}). Upgrade, or set LYCEUM_MAGIC_HOME to another "
                "folder."
            )
        for number, script in enumerate(self._migrations[version:], start=version + 1):
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT")


@contextmanager
def _synchronous(connection: sqlite3.Connection, durable: bool) -> Iterator[None]:
    """Make the commit of the transaction in the block wait for the disk, if it is to be durable.

    Receivers of callbacks rely on what the server promises. A power cut that took the result of an
    attempt would send it twice, and one that took the plan would never send it, although a client
    has read the run's final state. Other records carry no such promise, so they do not wait
    (`NORMAL`).
    """
    if not durable:
        yield
        return
    connection.execute("PRAGMA synchronous = FULL")  # of no effect inside a transaction
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous = NORMAL")


def _pack(connection: sqlite3.Connection) -> None:
    """Give unused space back to the disk, if it is the larger part of the file.

    A server that ends is not waited for; a file that would take seconds stays as it is.
    """
    ((free,),) = connection.execute("PRAGMA freelist_count")
    ((pages,),) = connection.execute("PRAGMA page_count")
    if free > max(_MIN_FREE_PAGES, pages - free) and pages - free < _MAX_USED_PAGES:
        connection.execute("VACUUM")
