"""Callbacks in a SQLite file: those that are to be sent, and the results of their attempts."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields

from ...exceptions import EmbeddedServerError
from ...protocol.callbacks import DeliveryState
from ..vault import Vault
from .base import Attempt, Delivery, OutboxCounts, StoredSigningSecret
from .sqlite_file import SqliteFile

#: `sealed` is the URL. A pending row without a time would never be sent. The body is last, since
#: SQLite reads through a body of 64 kB to reach a column after it.
OUTBOX_SCHEMA = """
    CREATE TABLE deliveries (
        sequence INTEGER PRIMARY KEY,
        delivery_id TEXT NOT NULL UNIQUE,
        run_id TEXT,
        sealed BLOB,
        shown_url TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        created_at REAL NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        planned_at REAL,
        next_at REAL,
        ended_at REAL,
        error TEXT NOT NULL,
        redeliveries INTEGER NOT NULL,
        body BLOB NOT NULL,
        CHECK (state <> 'pending' OR next_at IS NOT NULL)
    );
    CREATE INDEX deliveries_planned ON deliveries (endpoint, next_at) WHERE state = 'pending';
    CREATE INDEX deliveries_done ON deliveries (ended_at) WHERE state = 'delivered';
    CREATE INDEX deliveries_by_run ON deliveries (run_id, state);
    CREATE INDEX deliveries_by_state ON deliveries (state);
    CREATE TABLE attempts (
        delivery_id TEXT NOT NULL REFERENCES deliveries (delivery_id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        started_at REAL NOT NULL,
        took_s REAL NOT NULL,
        address TEXT,
        status_code INTEGER,
        error TEXT NOT NULL,
        next_at REAL,
        PRIMARY KEY (delivery_id, number)
    ) WITHOUT ROWID;
    CREATE TABLE signing_secrets (
        sequence INTEGER PRIMARY KEY,
        sealed BLOB NOT NULL,
        created_at REAL NOT NULL,
        retires_at REAL
    );
"""

#: Indexes for planned deliveries by their time, and for those never tried.
DUE_SCHEMA = """
    CREATE INDEX deliveries_due ON deliveries (next_at, endpoint) WHERE state = 'pending';
    CREATE INDEX deliveries_first ON deliveries (endpoint, next_at)
    WHERE state = 'pending' AND tries = 0
"""

_NAMES = [item.name for item in fields(Delivery) if item.name != "url"]
_COLUMNS = ", ".join(_NAMES)
_SHOWN = ", ".join("x'' AS body" if name == "body" else name for name in _NAMES)
_ATTEMPT_COLUMNS = ", ".join(item.name for item in fields(Attempt))

_INSERT = (
    f"INSERT INTO deliveries ({_COLUMNS}, sealed) "
    f"VALUES ({', '.join(f':{name}' for name in _NAMES)}, :sealed) "
    "ON CONFLICT (delivery_id) DO NOTHING"
)

# A loose index scan, which SQLite does not have itself: this seeks from each endpoint to the next
# one, so ten thousand deliveries to one endpoint are one step. The index is named because SQLite
# might take the one by state, and walk through all pending rows.
_PLANNED = "deliveries INDEXED BY deliveries_planned WHERE state = 'pending'"
_ENDPOINTS = f"""
    WITH RECURSIVE planned (endpoint) AS (
        SELECT min(endpoint) FROM {_PLANNED}
        UNION ALL
        SELECT (SELECT min(endpoint) FROM {_PLANNED} AND endpoint > planned.endpoint)
        FROM planned WHERE planned.endpoint IS NOT NULL
    )
    SELECT endpoint, (
        SELECT min(next_at) FROM {_PLANNED} AND endpoint = planned.endpoint
    ) AS next_at
    FROM planned WHERE endpoint IS NOT NULL
"""

# If little is due, a walk through that is faster than one through all endpoints. More than can be
# under way, since those deliveries are due too.
_LITTLE = 512
_BY_TIME = "deliveries INDEXED BY deliveries_due WHERE state = 'pending'"
_EARLIEST = f"""
    SELECT endpoint, next_at FROM {_BY_TIME} AND next_at <= ? ORDER BY next_at LIMIT {_LITTLE}
"""
_NEXT = f"SELECT min(next_at) AS next_at FROM {_BY_TIME} AND next_at > ?"

# First attempts come before others.
_FIRST = "deliveries INDEXED BY deliveries_first WHERE state = 'pending' AND tries = 0"
_DUE = f"""
    SELECT {_COLUMNS}, sealed FROM {{}} AND endpoint = :endpoint
    AND next_at <= :now AND delivery_id NOT IN (SELECT value FROM json_each(:without))
    ORDER BY next_at, sequence LIMIT :limit
"""

_LOG = (
    f"INSERT INTO attempts ({_ATTEMPT_COLUMNS}) "
    f"SELECT {', '.join(f':{item.name}' for item in fields(Attempt))} "
    "WHERE EXISTS (SELECT 1 FROM deliveries WHERE delivery_id = :delivery_id) "
    "ON CONFLICT (delivery_id, number) DO NOTHING"
)
_COUNT_ATTEMPTS = (
    "UPDATE deliveries SET attempts = :attempts, error = :error WHERE delivery_id = :delivery_id"
)
_CARRY_ON = (
    "UPDATE deliveries SET state = :state, tries = :tries, planned_at = :planned_at, "
    "next_at = :next_at, ended_at = :ended_at "
    "WHERE delivery_id = :delivery_id AND redeliveries = :redeliveries"
)

_REDELIVER = """
    UPDATE deliveries SET state = 'pending', tries = 0, planned_at = :now, next_at = :now,
    ended_at = NULL, redeliveries = redeliveries + 1
    WHERE delivery_id = :delivery_id
"""
_READ = f"SELECT {_SHOWN} FROM deliveries WHERE delivery_id = :delivery_id"


class SqliteOutbox:
    """The part of the SQLite store that keeps callbacks.

    Args:
        file: Its migrations include `OUTBOX_SCHEMA`.
        vault: Encrypts the URLs and the signing secrets.
    """

    def __init__(self, file: SqliteFile, vault: Vault) -> None:
        self._file = file
        self._vault = vault

    async def add_delivery(self, delivery: Delivery) -> None:
        def add(connection: sqlite3.Connection) -> None:
            self._insert_deliveries(connection, [delivery])

        await self._file.transact(add, durable=True)

    async def endpoints(self, due_by: float = math.inf) -> Mapping[str, float]:
        rows = await self._file.execute(_EARLIEST, (due_by,))
        if len(rows) == _LITTLE:
            rows = await self._file.execute(_ENDPOINTS)
        earliest: dict[str, float] = {}
        for row in rows:
            if row["next_at"] <= due_by:
                earliest.setdefault(row["endpoint"], row["next_at"])
        return earliest

    async def next_at(self, after: float = -math.inf) -> float | None:
        ((next_at,),) = await self._file.execute(_NEXT, (after,))
        return None if next_at is None else float(next_at)

    async def due(
        self, endpoint: str, now: float, *, limit: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        def read(connection: sqlite3.Connection) -> Sequence[Delivery]:
            values = {
                "endpoint": endpoint,
                "now": now,
                "without": json.dumps(list(without)),
                "limit": limit,
            }
            rows = connection.execute(_DUE.format(_FIRST), values).fetchall()
            if len(rows) < limit:
                values["limit"] = limit - len(rows)
                again = f"{_PLANNED} AND tries > 0"
                rows += connection.execute(_DUE.format(again), values)
            return [_to_delivery(row, self._opened_url(row["sealed"])) for row in rows]

        return await self._file.run(read)

    async def write_attempts(self, attempts: Sequence[tuple[Attempt, Delivery]]) -> Collection[str]:
        logged = [asdict(attempt) for attempt, _ in attempts]
        after = [_row(delivery) for _, delivery in attempts]

        def write(connection: sqlite3.Connection) -> Collection[str]:
            connection.executemany(_LOG, logged)
            connection.executemany(_COUNT_ATTEMPTS, after)
            carried_on = [row for row in after if connection.execute(_CARRY_ON, row).rowcount]
            return {str(row["delivery_id"]) for row in carried_on}

        return await self._file.transact(write, durable=True)

    async def replan(self, now: float) -> None:
        await self._file.execute(
            "UPDATE deliveries SET next_at = :now + (next_at - planned_at), planned_at = :now "
            "WHERE state = 'pending' AND planned_at > :now",
            {"now": now},
            durable=True,
        )

    async def redeliver(self, delivery_id: str, now: float) -> Delivery | None:
        def redeliver(connection: sqlite3.Connection) -> Delivery | None:
            values = {"delivery_id": delivery_id, "now": now}
            connection.execute(_REDELIVER, values)
            row = connection.execute(_READ, values).fetchone()
            return row and _to_delivery(row)

        return await self._file.transact(redeliver, durable=True)

    async def remove_delivery(self, delivery_id: str) -> bool:
        removed = await self._file.execute(
            "DELETE FROM deliveries WHERE delivery_id = ? RETURNING delivery_id",
            (delivery_id,),
            durable=True,
        )
        return bool(removed)

    async def delivery(self, delivery_id: str) -> Delivery | None:
        rows = await self._file.execute(_READ, {"delivery_id": delivery_id})
        return _to_delivery(rows[0]) if rows else None

    async def deliveries(
        self, *, run_id: str | None = None, state: DeliveryState | None = None,
        limit: int = 100, offset: int = 0,
    ) -> Sequence[Delivery]:  # fmt: skip
        wanted = {"run_id": run_id, "state": state and state.value}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        condition = " AND ".join(["TRUE", *(f"{name} = :{name}" for name in wanted)])
        rows = await self._file.execute(
            f"SELECT {_SHOWN} FROM deliveries WHERE {condition} "
            "ORDER BY sequence DESC LIMIT :limit OFFSET :offset",
            {**wanted, "limit": limit, "offset": offset},
        )
        return [_to_delivery(row) for row in rows]

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        rows = await self._file.execute(
            f"SELECT {_ATTEMPT_COLUMNS} FROM attempts WHERE delivery_id = ? ORDER BY number",
            (delivery_id,),
        )
        return [Attempt(**row) for row in rows]

    async def outbox_counts(self) -> OutboxCounts:
        (row,) = await self._file.execute(
            "SELECT count(*) AS pending, count(nullif(error, '')) AS failing, "
            "(SELECT count(run_id) FROM deliveries WHERE state = 'dead') AS dead "
            "FROM deliveries WHERE state = 'pending'"
        )
        return OutboxCounts(**row)

    async def signing_secrets(self) -> Sequence[StoredSigningSecret]:
        def read(connection: sqlite3.Connection) -> Sequence[StoredSigningSecret]:
            rows = connection.execute(
                "SELECT sealed, created_at, retires_at FROM signing_secrets "
                "ORDER BY sequence"  # not by time: the clock may have gone back
            )
            return [
                StoredSigningSecret(self._vault.open(sealed), created_at, retires_at)
                for sealed, created_at, retires_at in rows
            ]

        return await self._file.run(read)

    async def put_signing_secrets(self, secrets: Sequence[StoredSigningSecret]) -> None:
        def put(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM signing_secrets")
            connection.executemany(
                "INSERT INTO signing_secrets (sealed, created_at, retires_at) VALUES (?, ?, ?)",
                [(self._vault.seal(s.value), s.created_at, s.retires_at) for s in secrets],
            )

        await self._file.transact(put, durable=True)

    # On the file's thread

    def _insert_deliveries(
        self, connection: sqlite3.Connection, deliveries: Iterable[Delivery]
    ) -> None:
        """Add the deliveries whose ids are not known yet."""
        rows = [
            _row(delivery)
            | {"sealed": None if delivery.url is None else self._vault.seal(delivery.url)}
            for delivery in deliveries
        ]
        connection.executemany(_INSERT, rows)

    def _opened_url(self, sealed: bytes | None) -> str | None:
        try:
            return None if sealed is None else self._vault.open(sealed)
        except EmbeddedServerError:
            return None  # the others must be sent all the same


def _row(delivery: Delivery) -> dict[str, object]:
    return {name: getattr(delivery, name) for name in _NAMES}


def _to_delivery(row: sqlite3.Row, url: str | None = None) -> Delivery:
    members = {name: row[name] for name in _NAMES}
    return Delivery(**members | {"url": url, "state": DeliveryState(row["state"])})
