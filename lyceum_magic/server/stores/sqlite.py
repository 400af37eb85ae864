"""A store in one SQLite file: what the embedded server uses."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...exceptions import EmbeddedServerError
from ...protocol.requests import STARTS, Start
from ...protocol.states import FINAL, State
from ..vault import Vault
from .base import ApiKey, Delivery, HistoryPage, RunRecord, SecretRecord
from .sqlite_file import SqliteFile
from .sqlite_outbox import DUE_SCHEMA, OUTBOX_SCHEMA, SqliteOutbox

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
    OUTBOX_SCHEMA,
    DUE_SCHEMA,
)

_COLUMNS = (
    "run_id, kind, request, job_type, created_at, state, timed_out, return_code, error, "
    "started_at, finished_at, spool"
)
_SECRET_COLUMNS = "secret_id, name, is_secret, size_bytes, updated_at"
_KEY_COLUMNS = "key_id, name, prefix, digest, created_at, expires_at, is_active, last_used_at"
_IS_FINAL = "state IN (" + ", ".join(f"'{state}'" for state in sorted(FINAL)) + ")"


class SqliteStore(SqliteOutbox):
    """Keeps records in the file at `path`, which is made with mode 0600 where it is missing.

    Args:
        vault: encrypts what may not lie open in the file.
    """

    def __init__(self, path: Path, vault: Vault) -> None:
        super().__init__(SqliteFile(path, _MIGRATIONS), vault)

    async def open(self) -> None:
        await self._file.open()

    async def close(self) -> None:
        await self._file.close()

    async def add(self, record: RunRecord) -> None:
        def add(connection: sqlite3.Connection) -> None:
            row = _fixed(record) | _changing(record) | {"sealed": self._sealed(record.request)}
            places = ", ".join(f":{name}" for name in row)
            statement = f"INSERT INTO runs ({', '.join(row)}) VALUES ({places})"
            connection.execute(statement, row)

        await self._file.run(add)

    async def update(self, record: RunRecord) -> None:
        def update(connection: sqlite3.Connection) -> None:
            _update(connection, record, _changing(record))

        await self._file.run(update)

    async def finish(self, record: RunRecord, deliveries: Sequence[Delivery] = ()) -> None:
        def finish(connection: sqlite3.Connection) -> None:
            row = _changing(record)
            if record.request.credentials:
                row["sealed"] = self._sealed_without_credentials(connection, record)
            _update(connection, record, row)
            self._insert_deliveries(connection, deliveries)

        await self._file.transact(finish, durable=bool(deliveries))

    async def get(self, run_id: str) -> RunRecord | None:
        records = await self._records("WHERE run_id = ?", (run_id,))
        return records[0] if records else None

    async def request(self, run_id: str) -> Start:
        def read(connection: sqlite3.Connection) -> Start:
            statement = "SELECT kind, request, sealed FROM runs WHERE run_id = ?"
            (row,) = connection.execute(statement, (run_id,))
            members = json.loads(row["request"]) | self._unsealed(row["sealed"])
            return STARTS[row["kind"]].model_validate(members)

        return await self._file.run(read)

    async def unfinished(self) -> Sequence[RunRecord]:
        return await self._records(f"WHERE NOT {_IS_FINAL} ORDER BY sequence")

    async def history(self, *, limit: int, offset: int) -> HistoryPage:
        records = await self._records("ORDER BY sequence DESC LIMIT ? OFFSET ?", (limit, offset))
        counted = await self._file.execute("SELECT state, count(*) FROM runs GROUP BY state")
        counts = {State(state): number for state, number in counted}
        return HistoryPage(records, sum(counts.values()), counts)

    async def spools_since(self, moment: float) -> Mapping[str, Path]:
        rows = await self._file.execute(
            "SELECT run_id, spool FROM runs WHERE finished_at >= ? AND spool IS NOT NULL", (moment,)
        )
        return {row["run_id"]: Path(row["spool"]) for row in rows}

    async def ended(self) -> Sequence[tuple[str, float]]:
        rows = await self._file.execute(
            "SELECT run_id, coalesce(finished_at, created_at) AS ended_at FROM runs "
            f"WHERE {_IS_FINAL} ORDER BY ended_at, sequence"
        )
        return [(row["run_id"], row["ended_at"]) for row in rows]

    async def forget(self, run_id: str) -> None:
        def forget(connection: sqlite3.Connection) -> None:
            statement = f"DELETE FROM runs WHERE run_id = ? AND {_IS_FINAL}"
            if connection.execute(statement, (run_id,)).rowcount:
                connection.execute(
                    "DELETE FROM deliveries WHERE run_id = ? AND state = 'delivered'", (run_id,)
                )

        await self._file.transact(forget)

    async def forget_deliveries(self, before: float) -> None:
        def forget(connection: sqlite3.Connection) -> None:
            for ended in (
                "INDEXED BY deliveries_done WHERE state = 'delivered'",
                "INDEXED BY deliveries_by_run WHERE run_id IS NULL AND state = 'dead'",
            ):
                connection.execute(f"DELETE FROM deliveries {ended} AND ended_at < ?", (before,))

        await self._file.transact(forget)

    # The account.

    async def put_secrets(self, secrets: Sequence[tuple[SecretRecord, str]]) -> None:
        def put(connection: sqlite3.Connection) -> None:
            connection.executemany(
                f"INSERT INTO secrets ({_SECRET_COLUMNS}, sealed) VALUES "
                "(:secret_id, :name, :is_secret, :size_bytes, :updated_at, :sealed) "
                "ON CONFLICT (name) DO UPDATE SET is_secret = :is_secret, "
                "size_bytes = :size_bytes, updated_at = :updated_at, sealed = :sealed",
                [{**asdict(r), "sealed": self._vault.seal(value)} for r, value in secrets],
            )

        await self._file.transact(put, durable=True)

    async def secrets(self) -> Sequence[SecretRecord]:
        rows = await self._file.execute(f"SELECT {_SECRET_COLUMNS} FROM secrets ORDER BY name")
        return [SecretRecord(**{**row, "is_secret": bool(row["is_secret"])}) for row in rows]

    async def secret_values(self) -> Mapping[str, str]:
        def read(connection: sqlite3.Connection) -> Mapping[str, str]:
            rows = connection.execute("SELECT name, sealed FROM secrets ORDER BY name")
            return {row["name"]: self._vault.open(row["sealed"]) for row in rows}

        return await self._file.run(read)

    async def remove_secret(self, secret_id: str) -> bool:
        removed = await self._file.execute(
            "DELETE FROM secrets WHERE secret_id = ? RETURNING name", (secret_id,), durable=True
        )
        return bool(removed)

    async def remove_all_secrets(self) -> None:
        await self._file.execute("DELETE FROM secrets", durable=True)

    async def put_key(self, key: ApiKey) -> None:
        row = asdict(key)
        names = _KEY_COLUMNS.split(", ")
        places = ", ".join(f":{name}" for name in names)
        assignments = ", ".join(f"{name} = :{name}" for name in names)
        await self._file.execute(
            f"INSERT INTO api_keys ({_KEY_COLUMNS}) VALUES ({places}) "
            f"ON CONFLICT (key_id) DO UPDATE SET {assignments}",
            row,
            durable=True,
        )

    async def note_key_use(self, key_id: str, used_at: float) -> None:
        await self._file.execute(
            "UPDATE api_keys SET last_used_at = ? WHERE key_id = ?", (used_at, key_id)
        )

    async def keys(self) -> Sequence[ApiKey]:
        rows = await self._file.execute(f"SELECT {_KEY_COLUMNS} FROM api_keys ORDER BY sequence")
        return [ApiKey(**{**row, "is_active": bool(row["is_active"])}) for row in rows]

    async def remove_key(self, key_id: str) -> None:
        await self._file.execute("DELETE FROM api_keys WHERE key_id = ?", (key_id,), durable=True)

    # Underneath.

    async def _records(self, condition: str, values: Sequence[Any] = ()) -> list[RunRecord]:
        def read(connection: sqlite3.Connection) -> list[RunRecord]:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM runs {condition}", values)
            return [_to_record(row) for row in rows]

        return await self._file.run(read)

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
