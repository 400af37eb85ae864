"""The store in one SQLite file, which the embedded server uses."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...exceptions import EmbeddedServerError
from ...protocol.ages import Mark, kept_from
from ...protocol.requests import STARTS, Start
from ...protocol.states import FINAL, State
from ..vault import Vault
from .base import (
    Delivery,
    EndedRun,
    HistoryPage,
    KeyRecord,
    RunRecord,
    SecretRecord,
)
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
    # A table beside `runs`, since an index over columns after the long requests of older rows would
    # read gigabytes. `catch_up` fills it, some rows at a time.
    """
    CREATE TABLE ended_runs (
        sequence INTEGER PRIMARY KEY REFERENCES runs (sequence) ON DELETE CASCADE,
        ended_at REAL NOT NULL,
        kept_from REAL NOT NULL,
        size_bytes INTEGER
    );
    CREATE INDEX ended_runs_by_end ON ended_runs (ended_at);
    CREATE INDEX ended_runs_by_age ON ended_runs (kept_from);
    CREATE INDEX ended_runs_unmeasured ON ended_runs (sequence) WHERE size_bytes IS NULL;
    CREATE TABLE marks (time REAL NOT NULL, clock REAL NOT NULL);
    CREATE TABLE behind AS SELECT max(sequence) AS sequence FROM runs;
    """,
)

#: Approximate seconds of a step of `catch_up`, for which other users of the store wait.
_STEP_S = 0.01
#: Number of rows of ended runs that one step adds up, which takes some milliseconds.
_STEP_ROWS = 10_000
#: Approximate bytes of a row in the tables and indexes, without the request.
_ROW_BYTES = 500

_COLUMNS = (
    "run_id, kind, request, job_type, created_at, state, timed_out, return_code, error, "
    "started_at, finished_at, spool"
)
_SECRET_COLUMNS = "secret_id, name, is_secret, size_bytes, updated_at"
_KEY_COLUMNS = "key_id, name, prefix, digest, created_at, expires_at, is_active, last_used_at"
_IS_FINAL = "state IN (" + ", ".join(f"'{state}'" for state in sorted(FINAL)) + ")"
# A list, so that the index by state is used: `NOT IN` walks through all rows.
_IS_LIVE = "state IN (" + ", ".join(f"'{s}'" for s in sorted({*State} - FINAL)) + ")"
_ENDED = (
    "SELECT run_id, sequence, ended_at, kept_from, size_bytes, spool "
    "FROM ended_runs JOIN runs USING (sequence)"
)


class SqliteStore(SqliteOutbox):
    """All records in the file at `path`, which is made with mode 0600 if it is missing.

    Args:
        vault: Encrypts secrets and the sealed fields of requests.
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
            _note_end(connection, record)

        await self._file.transact(add)

    async def update(self, record: RunRecord) -> None:
        def update(connection: sqlite3.Connection) -> None:
            _update(connection, record, _changing(record))

        await self._file.run(update)

    async def finish(self, record: RunRecord, deliveries: Sequence[Delivery] = ()) -> None:
        def finish(connection: sqlite3.Connection) -> None:
            row = _changing(record) | {"request": _open_text(record.request.when_over())}
            if record.request.credentials:
                row["sealed"] = self._sealed_without_credentials(connection, record)
            _update(connection, record, row)
            _note_end(connection, record)
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
        return await self._records(f"WHERE {_IS_LIVE} ORDER BY sequence")

    async def history(self, *, limit: int, offset: int) -> HistoryPage:
        records = await self._records("ORDER BY sequence DESC LIMIT ? OFFSET ?", (limit, offset))
        counted = await self._file.execute("SELECT state, count(*) FROM runs GROUP BY state")
        counts = {State(state): number for state, number in counted}
        return HistoryPage(records, sum(counts.values()), counts)

    async def ended_since(
        self, moment: float, *, limit: int, before: EndedRun | None = None
    ) -> Sequence[EndedRun]:
        place = (math.inf, 0) if before is None else (before.ended_at, before.sequence)
        rows = await self._file.execute(
            f"{_ENDED} WHERE ended_at >= ? AND (ended_at, sequence) < (?, ?) "
            "AND spool IS NOT NULL ORDER BY ended_at DESC, sequence DESC LIMIT ?",
            (moment, *place, limit),
        )
        return [_to_ended(row) for row in rows]

    async def oldest_ended(
        self, *, limit: int, after: EndedRun | None = None
    ) -> Sequence[EndedRun]:
        place = (-math.inf, 0) if after is None else (after.kept_from, after.sequence)
        rows = await self._file.execute(
            f"{_ENDED} WHERE (kept_from, sequence) > (?, ?) ORDER BY kept_from, sequence LIMIT ?",
            (*place, limit),
        )
        return [_to_ended(row) for row in rows]

    async def unmeasured(self, *, limit: int) -> Sequence[str]:
        rows = await self._file.execute(
            "SELECT run_id FROM ended_runs INDEXED BY ended_runs_unmeasured "
            "JOIN runs USING (sequence) WHERE size_bytes IS NULL LIMIT ?",
            (limit,),
        )
        return [row["run_id"] for row in rows]

    async def note_sizes(self, folders: Mapping[str, int]) -> None:
        def note(connection: sqlite3.Connection) -> None:
            # `length` does not read the value itself.
            connection.executemany(
                "UPDATE ended_runs SET size_bytes = :folder + "
                f"{_ROW_BYTES} + length(run.request) + ifnull(length(run.sealed), 0) + "
                "(SELECT ifnull(sum(length(body)), 0) FROM deliveries WHERE run_id = :run_id) "
                "FROM (SELECT * FROM runs WHERE run_id = :run_id) AS run "
                "WHERE ended_runs.sequence = run.sequence",
                [{"run_id": run_id, "folder": size} for run_id, size in folders.items()],
            )

        await self._file.transact(note)

    async def ended_bytes(self) -> int:
        total, last = 0, -1
        while last is not None:
            ((some, last),) = await self._file.execute(
                "SELECT ifnull(sum(size_bytes), 0), max(sequence) FROM (SELECT * FROM ended_runs "
                "WHERE sequence > ? ORDER BY sequence LIMIT ?)",
                (last, _STEP_ROWS),
            )
            total += some
        return total

    async def unknown(self, run_ids: Sequence[str]) -> Collection[str]:
        # By position: a name of a folder that is not Unicode text would not come back.
        rows = await self._file.execute(
            "SELECT key FROM json_each(?) WHERE value NOT IN (SELECT run_id FROM runs)",
            (json.dumps(run_ids),),
        )
        return {run_ids[row["key"]] for row in rows}

    async def move_mark(self, now: float) -> float:
        def move(connection: sqlite3.Connection) -> float:
            mark = _mark(connection)
            if mark is None:
                ((newest,),) = connection.execute("SELECT max(kept_from) FROM ended_runs")
                mark = Mark.first(now, newest)
                connection.execute("INSERT INTO marks (time, clock) VALUES (0, 0)")
            else:
                mark = mark.moved(now)
            connection.execute("UPDATE marks SET time = ?, clock = ?", (mark.time, mark.clock))
            return mark.time

        return await self._file.transact(move)

    async def catch_up(self) -> bool:
        def catch_up(connection: sqlite3.Connection) -> bool:
            ((sequence,),) = connection.execute("SELECT max(sequence) FROM behind")
            until = time.perf_counter() + _STEP_S
            while sequence is not None and time.perf_counter() < until:
                _catch_up(connection, sequence)
                # The newest first: clients ask for them first.
                ((sequence,),) = connection.execute(
                    "SELECT max(sequence) FROM runs WHERE sequence < ?", (sequence,)
                )
            connection.execute("UPDATE behind SET sequence = ?", (sequence,))
            return sequence is not None

        return await self._file.transact(catch_up)

    async def forget(self, run_id: str) -> None:
        def forget(connection: sqlite3.Connection) -> None:
            statement = f"DELETE FROM runs WHERE run_id = ? AND {_IS_FINAL}"
            if connection.execute(statement, (run_id,)).rowcount:
                connection.execute(
                    "DELETE FROM deliveries WHERE run_id = ? AND state = 'delivered'", (run_id,)
                )

        await self._file.transact(forget)

    async def forget_deliveries(self, before: float, *, limit: int) -> int:
        def forget(connection: sqlite3.Connection) -> int:
            gone = 0
            for ended in (
                "INDEXED BY deliveries_done WHERE state = 'delivered'",
                "INDEXED BY deliveries_by_run WHERE run_id IS NULL AND state = 'dead'",
            ):
                some = f"SELECT sequence FROM deliveries {ended} AND ended_at < ? LIMIT ?"
                statement = f"DELETE FROM deliveries WHERE sequence IN ({some})"
                gone += connection.execute(statement, (before, limit - gone)).rowcount
            return gone

        return await self._file.transact(forget)

    # The account

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

    async def put_key(self, key: KeyRecord) -> None:
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

    async def keys(self) -> Sequence[KeyRecord]:
        rows = await self._file.execute(f"SELECT {_KEY_COLUMNS} FROM api_keys ORDER BY sequence")
        return [KeyRecord(**{**row, "is_active": bool(row["is_active"])}) for row in rows]

    async def remove_key(self, key_id: str) -> None:
        await self._file.execute("DELETE FROM api_keys WHERE key_id = ?", (key_id,), durable=True)

    async def _records(self, condition: str, values: Sequence[Any] = ()) -> list[RunRecord]:
        def read(connection: sqlite3.Connection) -> list[RunRecord]:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM runs {condition}", values)
            return [_to_record(row) for row in rows]

        return await self._file.run(read)

    # Sealed fields, on the store's thread

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
            return None  # unreadable, and it may hold credentials
        left = {name: v for name, v in members.items() if name not in record.request.credentials}
        return self._vault.seal(json.dumps(left)) if left else None


def _fixed(record: RunRecord) -> dict[str, Any]:
    request = record.request
    return {
        "run_id": record.run_id,
        "kind": request.kind,
        "request": _open_text(request),
        "job_type": record.job_type,
        "created_at": record.created_at,
    }


def _open_text(request: Start) -> str:
    """Return the fields of a request that need no encryption, as JSON."""
    return request.model_dump_json(exclude=set(request.sealed), exclude_none=True)


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


def _mark(connection: sqlite3.Connection) -> Mark | None:
    row = connection.execute("SELECT time, clock FROM marks").fetchone()
    return row and Mark(row["time"], row["clock"])


def _note_end(connection: sqlite3.Connection, record: RunRecord) -> None:
    if record.state.is_final:
        ended_at = record.created_at if record.finished_at is None else record.finished_at
        connection.execute(
            "INSERT INTO ended_runs (sequence, ended_at, kept_from) "
            "SELECT sequence, ?, ? FROM runs WHERE run_id = ? "
            "ON CONFLICT (sequence) DO NOTHING",
            (ended_at, kept_from(ended_at, _mark(connection)), record.run_id),
        )


def _catch_up(connection: sqlite3.Connection, sequence: int) -> None:
    """Bring one record of an earlier version up to date, if its run was over by then."""
    row = connection.execute(
        f"SELECT kind, request, coalesce(finished_at, created_at) AS ended_at FROM runs "
        f"WHERE sequence = ? AND {_IS_FINAL}",
        (sequence,),
    ).fetchone()
    if row is None:
        return
    # As JSON: an earlier version may have accepted what `Start` refuses now.
    members = json.loads(row["request"])
    program = STARTS[row["kind"]].program
    short = {**members, **{name: v for name, v in program.items() if name in members}}
    connection.execute(
        "UPDATE runs SET request = ? WHERE sequence = ?", (json.dumps(short), sequence)
    )
    connection.execute(
        "INSERT INTO ended_runs (sequence, ended_at, kept_from) VALUES (?, ?, ?) "
        "ON CONFLICT (sequence) DO NOTHING",
        (sequence, row["ended_at"], row["ended_at"]),
    )


def _to_ended(row: sqlite3.Row) -> EndedRun:
    return EndedRun(**{**row, "spool": None if row["spool"] is None else Path(row["spool"])})


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


def relocate(path: Path, old: Path, new: Path) -> list[str]:
    """Prepare the records in the file at `path` for a move of their state folder.

    Afterwards everything is in that one file, and the paths of outputs are those after the move.

    Args:
        old, new: The state folder before and after the move.

    Returns:
        The ids of the runs that are not over.

    Raises:
        sqlite3.DatabaseError: The file is broken, or the disk refuses the change.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prefix = f"{old}/"
        connection.execute(
            "UPDATE runs SET spool = ? || substr(spool, ?) WHERE substr(spool, 1, ?) = ?",
            (f"{new}/", len(prefix) + 1, len(prefix), prefix),
        )
        rows = connection.execute(f"SELECT run_id FROM runs WHERE {_IS_LIVE}").fetchall()
        # Takes the log beside the file into the file.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return [run_id for (run_id,) in rows]
