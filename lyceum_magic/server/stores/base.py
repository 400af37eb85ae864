"""The store's interface and its records. SQLite and memory implement it alike.

A store keeps the records of runs, the callbacks that follow from their ends, and the account's
secrets and API keys. No output byte passes through it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...exceptions import EmbeddedServerError
from ...protocol.callbacks import DeliveryState
from ...protocol.requests import Start
from ...protocol.states import State


class StoreUnavailable(EmbeddedServerError):
    """The records cannot be read or written now: the disk is full, read-only, or fails."""


class RecordRefused(StoreUnavailable):
    """A record does not fit its table. This says nothing about the disk."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as the store has it: a row. Times in seconds since 1970.

    Attributes:
        request: The start request. A record from a store lacks the sealed fields, see
            `Store.request`.
        timed_out: Whether the time limit ended the run; the state is `failed` then.
        return_code: The exit code, 128 + n for signal n; None without one.
        error: One sentence for every end other than `completed`, else empty.
        started_at: When the program itself began.
        spool: The path of the run's output; None until a runner has taken the run.
    """

    run_id: str
    request: Start
    created_at: float
    state: State = State.PENDING
    timed_out: bool = False
    return_code: int | None = None
    error: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    spool: Path | None = None

    @property
    def job_type(self) -> str:
        """The kind of program, in the wire's words."""
        return self.request.work_type


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of records, newest first, and the counts of all records."""

    records: Sequence[RunRecord]
    total: int
    counts_by_state: Mapping[State, int]


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that is over, as the retention sees it.

    Attributes:
        sequence: Its place in the order in which runs were added.
        ended_at: Seconds since 1970.
        kept_from: The moment from which its age counts, see `protocol.ages`.
        size_bytes: The size of its record, its callbacks and its folder; None: not measured yet.
        spool: The path of its output; None if it never had any.
    """

    run_id: str
    sequence: int
    ended_at: float
    kept_from: float
    size_bytes: int | None
    spool: Path | None


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """One secret without its value. Times in seconds since 1970.

    Attributes:
        name: The name of the variable; unique.
        is_secret: The account's own mark, for lists.
        size_bytes: The size of the value as UTF-8.
    """

    secret_id: str
    name: str
    is_secret: bool
    size_bytes: int
    updated_at: float


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One API key without the key itself. Times in seconds since 1970.

    Attributes:
        prefix: The first characters of the key, to tell keys apart in a list.
        digest: SHA-256 of the key.
        expires_at: None: never.
    """

    key_id: str
    name: str
    prefix: str
    digest: bytes = field(repr=False)
    created_at: float
    expires_at: float | None = None
    is_active: bool = True
    last_used_at: float | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One callback to one URL. Times in seconds since 1970.

    Attributes:
        delivery_id: The same in every attempt.
        run_id: None for a test that a user asked for.
        url: The URL as it was given, with its references to secrets. It is stored encrypted. None
            unless the record comes from `due`, and if it cannot be decrypted.
        shown_url: Scheme and host, `https://host/...`.
        endpoint: Scheme, host and port in lower case. Deliveries to one endpoint share its slots.
        body: The bytes that every attempt sends; empty unless the record comes from `due`.
        state: `dead` on the wire is "given up" in messages: no attempt follows by itself.
        attempts: The number of all attempts; the log has each.
        tries: The number of attempts since the callback was last sent by hand: its place in the
            schedule.
        planned_at: When `next_at` was decided.
        next_at: When the next attempt is due; None if none is planned.
        ended_at: When it was delivered or given up.
        error: The error of the last attempt, in one sentence.
        redeliveries: How often it was sent again by hand. An attempt carries the number that it
            read, so that a plan made during the attempt is noticed.
    """

    delivery_id: str
    run_id: str | None
    url: str | None = field(repr=False)
    shown_url: str
    endpoint: str
    body: bytes = field(repr=False)
    created_at: float
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    tries: int = 0
    planned_at: float | None = None
    next_at: float | None = None
    ended_at: float | None = None
    error: str = ""
    redeliveries: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a delivery.

    Attributes:
        number: 1 for the delivery's first attempt.
        started_at: Seconds since 1970.
        address: The address of the connection, `203.0.113.5` or `2001:db8::1`; None without one.
        status_code: The status of the answer; None without one.
        error: The reason of the failure, in one sentence; empty after a success.
        next_at: When the next attempt is due; None if none is planned.
    """

    delivery_id: str
    number: int
    started_at: float
    took_s: float
    address: str | None
    status_code: int | None
    error: str
    next_at: float | None


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """The numbers of deliveries: with attempts to come, failing ones among these, and dead ones.

    A test that failed does not count as dead: the user who asked for it has seen the result.
    """

    pending: int
    failing: int
    dead: int


@dataclass(frozen=True, slots=True)
class StoredSigningSecret:
    """A secret that callbacks are signed with. Times in seconds since 1970.

    Attributes:
        value: `whsec_...`.
        retires_at: When it stops signing; None for the current secret.
    """

    value: str = field(repr=False)
    created_at: float
    retires_at: float | None = None


class Store(Protocol):
    """The records of runs. A server uses one store; its methods may be awaited concurrently.

    Each method may raise StoreUnavailable.
    """

    async def open(self) -> None:
        """Make the store ready.

        Raises:
            EmbeddedServerError: This version cannot use what is there.
        """
        ...

    async def close(self) -> None:
        """Close the store, which keeps everything written. No other call may follow."""
        ...

    async def add(self, record: RunRecord) -> None:
        """Add a new run."""
        ...

    async def update(self, record: RunRecord) -> None:
        """Replace the record of a live run; the request stays as it is."""
        ...

    async def finish(self, record: RunRecord, deliveries: Sequence[Delivery] = ()) -> None:
        """Replace the record by its final one, and add the deliveries, in one transaction.

        A reader of the final state can rely on the deliveries, and the other way round. The
        credentials and the program are removed from the request, see `Start.when_over`. With
        deliveries, the change is on the disk, not only with the system, when this returns. A second
        call with the same deliveries changes nothing.
        """
        ...

    async def get(self, run_id: str) -> RunRecord | None:
        """Return the record of a run, or None."""
        ...

    async def request(self, run_id: str) -> Start:
        """Return the whole request of a run, with its sealed fields.

        Raises:
            EmbeddedServerError: They cannot be decrypted.
        """
        ...

    async def unfinished(self) -> Sequence[RunRecord]:
        """Return the runs without a final state, oldest first."""
        ...

    async def history(self, *, limit: int, offset: int) -> HistoryPage:
        """Return a page of all runs, newest first."""
        ...

    async def ended_since(
        self, moment: float, *, limit: int, before: EndedRun | None = None
    ) -> Sequence[EndedRun]:
        """Return runs that ended at `moment` or later and have output, the newest end first.

        Args:
            before: The last run of the page before.
        """
        ...

    async def oldest_ended(
        self, *, limit: int, after: EndedRun | None = None
    ) -> Sequence[EndedRun]:
        """Return runs that are over, the oldest first, see `EndedRun.kept_from`.

        Args:
            after: The last run of the page before.
        """
        ...

    async def unmeasured(self, *, limit: int) -> Sequence[str]:
        """Return the ids of runs that are over and have no size yet, oldest first."""
        ...

    async def note_sizes(self, folders: Mapping[str, int]) -> None:
        """Note the sizes of ended runs.

        Args:
            folders: Run id -> bytes of the run's folder. The store adds the size of the record.
        """
        ...

    async def ended_bytes(self) -> int:
        """Return the known sizes of all ended runs, added up."""
        ...

    async def unknown(self, run_ids: Sequence[str]) -> Collection[str]:
        """Return those ids that belong to no run."""
        ...

    async def move_mark(self, now: float) -> float:
        """Return the time by which ages are measured, given the clock's, see `ages.Mark`."""
        ...

    async def catch_up(self) -> bool:
        """Bring a few records of an earlier version up to date; return whether more are left."""
        ...

    async def forget(self, run_id: str) -> None:
        """Remove a run that is over, and its callbacks that were delivered.

        Live runs stay, and so do callbacks with attempts to come and dead ones.
        """
        ...

    async def forget_deliveries(self, before: float, *, limit: int) -> int:
        """Remove callbacks that were delivered before a moment, and tests that failed before it.

        A callback may belong to a run, to a removed run, or to none (a test).

        Args:
            before: Seconds since 1970.

        Returns:
            The number of removed callbacks. If it is `limit`, more may be left.
        """
        ...


class AccountStore(Protocol):
    """The account's secrets and API keys.

    A change is on the disk, not only with the system, when a method returns: after a power cut no
    revoked key and no removed secret is back. Only the time of a key's last use may be lost.
    """

    async def put_secrets(self, secrets: Sequence[tuple[SecretRecord, str]]) -> None:
        """Set secrets with their values, all of them or none.

        A secret of a known name replaces the one before, and takes its id.
        """
        ...

    async def secrets(self) -> Sequence[SecretRecord]:
        """Return all secrets without their values, by name."""
        ...

    async def secret_values(self) -> Mapping[str, str]:
        """Return the values of all secrets, name -> value.

        Raises:
            EmbeddedServerError: The values cannot be decrypted.
        """
        ...

    async def remove_secret(self, secret_id: str) -> bool:
        """Remove a secret; return False if no secret has the id."""
        ...

    async def remove_all_secrets(self) -> None:
        """Remove every secret."""
        ...

    async def put_key(self, key: KeyRecord) -> None:
        """Add a key, or replace the one with its id."""
        ...

    async def note_key_use(self, key_id: str, used_at: float) -> None:
        """Note when a key was used; do nothing if it was removed in the meantime."""
        ...

    async def keys(self) -> Sequence[KeyRecord]:
        """Return all keys, oldest first."""
        ...

    async def remove_key(self, key_id: str) -> None:
        """Remove a key."""
        ...


class OutboxStore(Protocol):
    """The callbacks that are to be sent, and the results of their attempts.

    A change is on the disk, not only with the system, when a method returns.
    """

    async def add_delivery(self, delivery: Delivery) -> None:
        """Add a delivery that belongs to no run's end; do nothing if its id is known."""
        ...

    async def endpoints(self, due_by: float = math.inf) -> Mapping[str, float]:
        """Return the endpoints with attempts due by a moment, endpoint -> when the earliest is due.

        The time this takes grows with the number of these endpoints (with the number of all
        endpoints if much is due), and not with the number of deliveries.
        """
        ...

    async def next_at(self, after: float = -math.inf) -> float | None:
        """Return when the earliest attempt after a moment is due; None if none is planned."""
        ...

    async def due(
        self, endpoint: str, now: float, *, limit: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        """Return due deliveries of one endpoint: those never tried first, then others.

        Within each group the longest due come first.

        Args:
            without: Ids of deliveries to leave out, since they are under way.
        """
        ...

    async def write_attempts(self, attempts: Sequence[tuple[Attempt, Delivery]]) -> Collection[str]:
        """Log attempts, and update their deliveries, in one transaction.

        Each delivery is the one that was read, with the changes of its attempt. URL and body are
        not written. A second call with the same attempts changes nothing.

        A change by hand during the attempt wins. A delivery that was removed stays removed, and
        nothing is logged. A delivery that was sent again (its `redeliveries` have changed) stays
        due at the beginning of its schedule: the attempt is logged and counted and its error noted,
        but it plans and ends nothing.

        Returns:
            The ids of the deliveries that took over the changes of their attempts.
        """
        ...

    async def replan(self, now: float) -> None:
        """Keep the length of every wait after the clock was set back.

        A delivery whose wait was decided at a future time waits from now on.
        """
        ...

    async def redeliver(self, delivery_id: str, now: float) -> Delivery | None:
        """Make a delivery due now, at the beginning of its schedule; return None without one."""
        ...

    async def remove_delivery(self, delivery_id: str) -> bool:
        """Remove a delivery and its attempts; return False if the id is unknown."""
        ...

    async def delivery(self, delivery_id: str) -> Delivery | None:
        """Return a delivery without its URL and body, or None."""
        ...

    async def deliveries(
        self, *, run_id: str | None = None, state: DeliveryState | None = None,
        limit: int = 100, offset: int = 0,
    ) -> Sequence[Delivery]:  # fmt: skip
        """Return a page of deliveries without URLs and bodies, newest first.

        Args:
            run_id: Only deliveries of this run.
            state: Only deliveries in this state.
        """
        ...

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        """Return all attempts of one delivery, oldest first."""
        ...

    async def outbox_counts(self) -> OutboxCounts:
        """Return the numbers of deliveries by what is to become of them."""
        ...

    async def signing_secrets(self) -> Sequence[StoredSigningSecret]:
        """Return the secrets that callbacks are signed with, newest first.

        Raises:
            EmbeddedServerError: They cannot be decrypted.
        """
        ...

    async def put_signing_secrets(self, secrets: Sequence[StoredSigningSecret]) -> None:
        """Replace all signing secrets by these, newest first. The order counts, not their times."""
        ...


class WholeStore(Store, AccountStore, OutboxStore, Protocol):
    """Everything that a server stores."""
