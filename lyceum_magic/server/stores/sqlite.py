"""A store in one SQLite file: what the embedded server uses.

One connection, used on one thread of its own: the event loop never waits for the disk, and no two
transactions of ours can meet.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from ...exceptions import EmbeddedServerError
from ...protocol.requests import STARTS, Start
from ...protocol.states import FINAL, State
from ..vault import Vault
from .base import ApiKey, HistoryPage, RunRecord, SecretRecord, StoreUnavailable

_T = TypeVar("_T")

#: Each step takes the file from one `user_version` to the next. Steps are only ever added.
_MIGRATIONS = (
    """
    CREATE TABLE runs (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL UNIQUE,
        request TEXT NOT NULL,
        job_type TEXT NOT NULL,
        created_at REAL NOT NULL,
        state TEXT NOT NULL,
        timed_out INTEGER NOT NULL,
        return_code INTEGER,
        error TEXT NOT NULL,
        started_at REAL,
        finished_at REAL,
        spool TEXT
    );
    CREATE INDEX runs_by_state ON runs (state);
    """,
    """
    ALTER TABLE runs ADD COLUMN kind TEXT NOT NULL DEFAULT 'python';
    ALTER TABLE runs ADD COLUMN sealed BLOB;
    """,
    """
    CREATE TABLE secrets (
        secret_id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        is_secret INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        updated_at REAL NOT NULL,
        sealed BLOB NOT NULL
    );
    CREATE TABLE api_keys (
        sequence INTEGER PRIMARY KEY,
        key_id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        prefix TEXT NOT NULL,
        digest BLOB NOT NULL UNIQUE,
        created_at REAL NOT NULL,
        expires_at REAL,
        is_active INTEGER NOT NULL,
        last_used_at REAL
    );
    """,
)

_COLUMNS = (
    "run_id, kind, request, job_type, created_at, state, timed_out, return_code, error, "
    "started_at, finished_at, spool"
)
_SECRET_COLUMNS = "secret_id, name, is_secret, size_bytes, updated_at"
_KEY_COLUMNS = "key_id, name, prefix, digest, created_at, expires_at, is_active, last_used_at"
_IS_FINAL = "state IN (" + ", ".join(f"'{state}'" for state in sorted(FINAL)) + ")"


class SqliteStore:
    """Keeps records in the file at `path`, which is made with mode 0600 where it is missing.

    Args:
        vault: encrypts what may not lie open in the file.
    """

    def __init__(self, path: Path, vault: Vault) -> None:
        self._path = path
        self._vault = vault
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lyceum-store")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        self._connection = await self._on_thread(self._connect)

    async def close(self) -> None:
        if self._connection is not None:
            await self._on_thread(self._connection.close)
            self._connection = None
        self._thread.shutdown()

    async def add(self, record: RunRecord) -> None:
        def add() -> None:
            row = _fixed(record) | _changing(record) | {"sealed": self._sealed(record.request)}
            places = ", ".join(f":{name}" for name in row)
            statement = f"INSERT INTO runs ({', '.join(row)}) VALUES ({places})"
            self._opened().execute(statement, row)

        await self._on_thread(add)

    async def update(self, record: RunRecord) -> None:
        def update() -> None:
            _update(self._opened(), record, _changing(record))

        await self._on_thread(update)

    async def finish(self, record: RunRecord) -> None:
        def finish() -> None:
            with self._transaction() as connection:
                row = _changing(record)
                if record.request.credentials:
                    row["sealed"] = self._sealed_without_credentials(connection, record)
                _update(connection, record, row)

        await self._on_thread(finish)

    async def get(self, run_id: str) -> RunRecord | None:
        records = await self._records("WHERE run_id = ?", (run_id,))
        return records[0] if records else None

    async def request(self, run_id: str) -> Start:
        def read() -> Start:
            statement = "SELECT kind, request, sealed FROM runs WHERE run_id = ?"
            (row,) = self._opened().execute(statement, (run_id,))
            members = json.loads(row["request"]) | self._unsealed(row["sealed"])
            return STARTS[row["kind"]].model_validate(members)

        return await self._on_thread(read)

    async def unfinished(self) -> Sequence[RunRecord]:
        return await self._records(f"WHERE NOT {_IS_FINAL} ORDER BY sequence")

    async def history(self, *, limit: int, offset: int) -> HistoryPage:
        records = await self._records("ORDER BY sequence DESC LIMIT ? OFFSET ?", (limit, offset))
        counted = await self._execute("SELECT state, count(*) FROM runs GROUP BY state")
        counts = {State(state): number for state, number in counted}
        return HistoryPage(records, sum(counts.values()), counts)

    async def spools_since(self, moment: float) -> Mapping[str, Path]:
        rows = await self._execute(
            "SELECT run_id, spool FROM runs WHERE finished_at >= ? AND spool IS NOT NULL", (moment,)
        )
        return {row["run_id"]: Path(row["spool"]) for row in rows}

    async def ended(self) -> Sequence[tuple[str, float]]:
        rows = await self._execute(
            "SELECT run_id, coalesce(finished_at, created_at) AS ended_at FROM runs "
            f"WHERE {_IS_FINAL} ORDER BY ended_at, sequence"
        )
        return [(row["run_id"], row["ended_at"]) for row in rows]

    async def forget(self, run_id: str) -> None:
        await self._execute(f"DELETE FROM runs WHERE run_id = ? AND {_IS_FINAL}", (run_id,))

    # The account.

    async def put_secrets(self, secrets: Sequence[tuple[SecretRecord, str]]) -> None:
        def put() -> None:
            rows = [{**asdict(r), "sealed": self._vault.seal(value)} for r, value in secrets]
            with self._transaction() as connection:
                connection.executemany(
                    f"INSERT INTO secrets ({_SECRET_COLUMNS}, sealed) VALUES "
                    "(:secret_id, :name, :is_secret, :size_bytes, :updated_at, :sealed) "
                    "ON CONFLICT (name) DO UPDATE SET is_secret = :is_secret, "
                    "size_bytes = :size_bytes, updated_at = :updated_at, sealed = :sealed",
                    rows,
                )

        await self._on_thread(put)

    async def secrets(self) -> Sequence[SecretRecord]:
        rows = await self._execute(f"SELECT {_SECRET_COLUMNS} FROM secrets ORDER BY name")
        return [SecretRecord(**{**row, "is_secret": bool(row["is_secret"])}) for row in rows]

    async def secret_values(self) -> Mapping[str, str]:
        def read() -> Mapping[str, str]:
            rows = self._opened().execute("SELECT name, sealed FROM secrets ORDER BY name")
            return {row["name"]: self._vault.open(row["sealed"]) for row in rows}

        return await self._on_thread(read)

    async def remove_secret(self, secret_id: str) -> bool:
        removed = await self._execute(
            "DELETE FROM secrets WHERE secret_id = ? RETURNING name", (secret_id,)
        )
        return bool(removed)

    async def remove_all_secrets(self) -> None:
        await self._execute("DELETE FROM secrets")

    async def put_key(self, key: ApiKey) -> None:
        row = asdict(key)
        names = _KEY_COLUMNS.split(", ")
        places = ", ".join(f":{name}" for name in names)
        assignments = ", ".join(f"{name} = :{name}" for name in names)
        await self._execute(
            f"INSERT INTO api_keys ({_KEY_COLUMNS}) VALUES ({places}) "
            f"ON CONFLICT (key_id) DO UPDATE SET {assignments}",
            row,
        )

    async def keys(self) -> Sequence[ApiKey]:
        rows = await self._execute(f"SELECT {_KEY_COLUMNS} FROM api_keys ORDER BY sequence")
        return [ApiKey(**{**row, "is_active": bool(row["is_active"])}) for row in rows]

    async def remove_key(self, key_id: str) -> None:
        await self._execute("DELETE FROM api_keys WHERE key_id = ?", (key_id,))

    # Underneath.

    async def _execute(
        self, statement: str, values: Sequence[Any] | dict[str, Any] = ()
    ) -> list[sqlite3.Row]:
        """Runs one statement, which is a transaction of its own; returns all its rows."""

        def execute() -> list[sqlite3.Row]:
            return self._opened().execute(statement, values).fetchall()

        return await self._on_thread(execute)

    async def _records(self, condition: str, values: Sequence[Any] = ()) -> list[RunRecord]:
        def read() -> list[RunRecord]:
            rows = self._opened().execute(f"SELECT {_COLUMNS} FROM runs {condition}", values)
            return [_to_record(row) for row in rows]

        return await self._on_thread(read)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """On the store's thread: all that the block does, or nothing of it."""
        connection = self._opened()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the store is used before open() or after close()")
        return self._connection

    async def _on_thread(self, function: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except sqlite3.OperationalError as exc:  # a full disk, or one that fails
            raise StoreUnavailable(
                f"The server's records cannot be read or written ({exc}); look after the disk of "
                f"{self._path}, then try again."
            ) from exc

    def _connect(self) -> sqlite3.Connection:
        # SQLite gives its -wal and -shm files the mode of the main file, so this covers all three.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
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
        if version > len(_MIGRATIONS):
            raise EmbeddedServerError(
                f"{self._path} was written by a newer lyceum-magic (format {version}, this one "
                f"knows {len(_MIGRATIONS)}); upgrade, or set LYCEUM_MAGIC_HOME to another folder."
            )
        for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT")

    # What is sealed; on the store's thread.

    def _sealed(self, request: Start) -> bytes | None:
        text = request.model_dump_json(include=set(request.sealed), exclude_none=True)
        return None if text == "{}" else self._vault.seal(text)

    def _unsealed(self, sealed: bytes | None) -> dict[str, Any]:
        members: dict[str, Any] = {} if sealed is None else json.loads(self._vault.open(sealed))
        return members

    def _sealed_without_credentials(
        self, connection: sqlite3.Connection, record: RunRecord
    ) -> bytes | None:
        statement = "SELECT sealed FROM runs WHERE run_id = ?"
        ((sealed,),) = connection.execute(statement, (record.run_id,))
        try:
            members = self._unsealed(sealed)
        except EmbeddedServerError:
            return None  # nobody can read it, and there may be credentials in it
        left = {name: v for name, v in members.items() if name not in record.request.credentials}
        return self._vault.seal(json.dumps(left)) if left else None


def _fixed(record: RunRecord) -> dict[str, Any]:
    request = record.request
    return {
        "run_id": record.run_id,
        "kind": request.kind,
        "request": request.model_dump_json(exclude=set(request.sealed), exclude_none=True),
        "job_type": record.job_type,
        "created_at": record.created_at,
    }


def _changing(record: RunRecord) -> dict[str, Any]:
    return {
        "state": record.state.value,
        "timed_out": record.timed_out,
        "return_code": record.return_code,
        "error": record.error,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "spool": None if record.spool is None else str(record.spool),
    }


def _update(connection: sqlite3.Connection, record: RunRecord, row: Mapping[str, Any]) -> None:
    assignments = ", ".join(f"{name} = :{name}" for name in row)
    statement = f"UPDATE runs SET {assignments} WHERE run_id = :run_id"
    connection.execute(statement, {**row, "run_id": record.run_id})


def _to_record(row: sqlite3.Row) -> RunRecord:
    return RunRecord(
        run_id=row["run_id"],
        request=STARTS[row["kind"]].model_validate_json(row["request"]),
        created_at=row["created_at"],
        state=State(row["state"]),
        timed_out=bool(row["timed_out"]),
        return_code=row["return_code"],
        error=row["error"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        spool=None if row["spool"] is None else Path(row["spool"]),
    )
