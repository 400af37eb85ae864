"""What a store is: the narrow face that the service sees of memory and SQLite alike.

A store keeps records of runs, and what must happen because of them (callbacks), and beside them
what belongs to the account: secrets and API keys. No output byte passes through it.
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
    """The records cannot be read or written now: the disk is full, fails, or may not be written."""


class RecordRefused(StoreUnavailable):
    """What was to be written fits no table; nothing says that the disk is not well."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that is known of one run. Times in seconds since 1970.

    Attributes:
        request: what was asked for. In a record that was read from a store it lacks what is sealed,
            see `Store.request`.
        timed_out: whether its time limit ended it; the state is `failed` then.
        return_code: exit code, 128 + n for signal n; None where there is none.
        error: one sentence for every end other than `completed`, else empty.
        started_at: when the program itself began.
        spool: where its output is; None as long as no runner has taken it.
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
        """Which kind of program it is, in the wire's words."""
        return self.request.work_type


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Some records, newest first, and what all records together amount to."""

    records: Sequence[RunRecord]
    total: int
    counts_by_state: Mapping[State, int]


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that is over, as the retention sees it.

    Attributes:
        sequence: its place in the order in which runs were added.
        ended_at: seconds since 1970.
        kept_from: when its age began, see `protocol.ages`.
        size_bytes: of its record, its callbacks and its folder; None: not measured yet.
        spool: where its output is; None where it never had any.
    """

    run_id: str
    sequence: int
    ended_at: float
    kept_from: float
    size_bytes: int | None
    spool: Path | None


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """All that is known of one secret but its value. Times in seconds since 1970.

    Attributes:
        name: of the variable; no two secrets have the same.
        is_secret: what the account said of it, for those who list it.
        size_bytes: of the value, as UTF-8.
    """

    secret_id: str
    name: str
    is_secret: bool
    size_bytes: int
    updated_at: float


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """All that is known of one API key once it was handed out. Times in seconds since 1970.

    Attributes:
        prefix: the first characters of the key, for people to tell keys apart.
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
        delivery_id: the same in every attempt.
        run_id: None for a test that somebody asked for.
        url: as it was given, its references to secrets in place. Kept in encrypted form alone;
            None wherever `due` does not give it, and where it cannot be decrypted any more.
        shown_url: scheme and host, `https://host/...`.
        endpoint: scheme, host and port, lower case: those who share it share its slots.
        body: the bytes that every attempt sends; empty wherever `due` does not give them.
        state: `dead` on the wire is "given up" to people: no attempt follows by itself.
        attempts: how many were made, ever; the log has them all.
        tries: how many of them since it was last sent by hand: its place in the schedule, known
            to nobody outside.
        planned_at: when `next_at` was decided.
        next_at: when the next attempt is due; None where none is planned.
        ended_at: when it was delivered or given up.
        error: of the last attempt, in one sentence.
        redeliveries: how often it was sent again by hand. An attempt carries the number that it
            read, and so is told apart from a plan that was made while it was under way.
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
        number: 1 for the delivery's first one.
        started_at: seconds since 1970.
        address: what was really connected to, `203.0.113.5` or `2001:db8::1`; None where it did
            not get so far.
        status_code: of the answer, None where none came.
        error: why it was no success, in one sentence; empty for a success.
        next_at: when the next one is due; None where none is planned.
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
    """How many deliveries there are: with attempts to come, failed before among those, given up.

    A test that failed is none of those given up: who asked for it has been told.
    """

    pending: int
    failing: int
    dead: int


@dataclass(frozen=True, slots=True)
class StoredSigningSecret:
    """A secret that callbacks are signed with. Times in seconds since 1970.

    Attributes:
        value: `whsec_...`.
        retires_at: when it stops signing; None for the one that signs for good.
    """

    value: str = field(repr=False)
    created_at: float
    retires_at: float | None = None


class Store(Protocol):
    """Keeps records. One server uses one store; its methods may be awaited concurrently.

    Each may raise EmbeddedServerError where the disk is full or gone.
    """

    async def open(self) -> None:
        """Makes ready.

        Raises:
            EmbeddedServerError: what is there cannot be used by this version.
        """
        ...

    async def close(self) -> None:
        """Everything written is kept; nothing else may be called afterwards."""
        ...

    async def add(self, record: RunRecord) -> None:
        """Writes a new run down."""
        ...

    async def update(self, record: RunRecord) -> None:
        """Replaces the record of a run that goes on; what was asked for stays as it is."""
        ...

    async def finish(self, record: RunRecord, deliveries: Sequence[Delivery] = ()) -> None:
        """Replaces the record by its final one, together with all that follows from the end.

        Of what was asked for the credentials and the program are forgotten, see `Start.when_over`.
        With deliveries it is on the disk, not only with the system, when this returns.
        To finish a run again with the same deliveries changes nothing.
        One transaction: whoever can read the final state can rely on the deliveries to the run's
        callback URLs being written down as well, and the other way round.
        """
        ...

    async def get(self, run_id: str) -> RunRecord | None:
        """The record of a run, None where there is none."""
        ...

    async def request(self, run_id: str) -> Start:
        """All that was asked for of a run that there is, what is sealed included.

        Raises:
            EmbeddedServerError: that cannot be decrypted.
        """
        ...

    async def unfinished(self) -> Sequence[RunRecord]:
        """The runs without a final state, oldest first."""
        ...

    async def history(self, *, limit: int, offset: int) -> HistoryPage:
        """A page of all runs, newest first."""
        ...

    async def ended_since(
        self, moment: float, *, limit: int, before: EndedRun | None = None
    ) -> Sequence[EndedRun]:
        """Return runs that ended at a moment or later and have output, the newest end first.

        Args:
            before: the last one of the page before.
        """
        ...

    async def oldest_ended(
        self, *, limit: int, after: EndedRun | None = None
    ) -> Sequence[EndedRun]:
        """Return the runs that are over, those first whose age is greatest.

        Args:
            after: the last one of the page before.
        """
        ...

    async def unmeasured(self, *, limit: int) -> Sequence[str]:
        """Return the ids of runs that are over and whose size is not known yet, oldest first."""
        ...

    async def note_sizes(self, folders: Mapping[str, int]) -> None:
        """Note the bytes that the folders of ended runs take; a run's record counts as well."""
        ...

    async def ended_bytes(self) -> int:
        """Return the sizes of all runs that are over, taken together, as far as they are known."""
        ...

    async def unknown(self, run_ids: Sequence[str]) -> Collection[str]:
        """Return those of some ids that no run has."""
        ...

    async def move_mark(self, now: float) -> float:
        """Look at the clock, and return the time by which ages are measured, see `ages.Mark`."""
        ...

    async def catch_up(self) -> bool:
        """Bring a few records of an earlier version up to date; return whether more are left."""
        ...

    async def forget(self, run_id: str) -> None:
        """Removes a run that is over, and those of its callbacks that were delivered.

        Others stay: runs that are not over, callbacks with attempts to come, and those given up.
        """
        ...

    async def forget_deliveries(self, before: float, *, limit: int) -> int:
        """Removes callbacks that were delivered before a moment, in seconds since 1970.

        Those of runs and the others alike: tests belong to no run, and what is delivered late may
        belong to a run that is forgotten already. Tests that failed go as well.

        Returns:
            How many have gone; where it is `limit`, more may be left.
        """
        ...


class AccountStore(Protocol):
    """Keeps what belongs to the account.

    A change is on the disk, not only with the system, when a method returns: a power cut brings
    back no key that was revoked, and no secret that was removed. Only a key's last use may be lost.
    """

    async def put_secrets(self, secrets: Sequence[tuple[SecretRecord, str]]) -> None:
        """Writes secrets with their values down, all of them or none.

        One whose name is there already takes that one's place, and its id.
        """
        ...

    async def secrets(self) -> Sequence[SecretRecord]:
        """All secrets, by name."""
        ...

    async def secret_values(self) -> Mapping[str, str]:
        """Name -> value of all secrets.

        Raises:
            EmbeddedServerError: the values cannot be decrypted.
        """
        ...

    async def remove_secret(self, secret_id: str) -> bool:
        """Forgets a secret; False where there is none of that id."""
        ...

    async def remove_all_secrets(self) -> None:
        """Forgets every secret."""
        ...

    async def put_key(self, key: KeyRecord) -> None:
        """Writes a key down, in place of the one of its id where there is one."""
        ...

    async def note_key_use(self, key_id: str, used_at: float) -> None:
        """Writes down when a key was used; nothing where it has been removed meanwhile."""
        ...

    async def keys(self) -> Sequence[KeyRecord]:
        """All keys, oldest first."""
        ...

    async def remove_key(self, key_id: str) -> None:
        """Forgets a key."""
        ...


class OutboxStore(Protocol):
    """Keeps the callbacks that are to be sent, and what became of them.

    What it has written is on the disk, not only with the system, when a method returns.
    """

    async def add_delivery(self, delivery: Delivery) -> None:
        """Writes one down that follows from no run's end; nothing where its id is there already."""
        ...

    async def endpoints(self, due_by: float = math.inf) -> Mapping[str, float]:
        """Every endpoint with attempts that are due by a moment -> when the earliest is due.

        Takes time by the number of these endpoints, or of all where much is due, not of deliveries.
        """
        ...

    async def next_at(self, after: float = -math.inf) -> float | None:
        """When the earliest attempt that is due after a moment is due; None where there is none."""
        ...

    async def due(
        self, endpoint: str, now: float, *, limit: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        """Up to `limit` deliveries of one endpoint that are due: those never tried, then others.

        Among either the longest due come first.

        Args:
            without: ids of those that are not wanted: they are under way.
        """
        ...

    async def write_attempts(self, attempts: Sequence[tuple[Attempt, Delivery]]) -> Collection[str]:
        """Adds attempts to the log, each with the delivery as it is after it, in one transaction.

        The delivery is the one that was read with what the attempt has changed. Url and body stay
        as they are. To write the same again changes nothing.

        What somebody did by hand while the attempt was under way prevails. A delivery that was
        removed stays removed, and nothing is logged of it. One that was sent again (its
        `redeliveries` have changed) stays due, at the beginning of its schedule: the attempt is
        logged and counted, and its error told, but it plans and ends nothing.

        Returns:
            Ids of those deliveries that are now as their attempts say.
        """
        ...

    async def replan(self, now: float) -> None:
        """Keeps every wait as long as it was meant where the clock has gone back since.

        A delivery whose wait was decided at a time that is still to come waits from now on.
        """
        ...

    async def redeliver(self, delivery_id: str, now: float) -> Delivery | None:
        """Makes one due now, at the beginning of its schedule; None where there is none."""
        ...

    async def remove_delivery(self, delivery_id: str) -> bool:
        """Forgets a delivery and its attempts; False where there is none of that id."""
        ...

    async def delivery(self, delivery_id: str) -> Delivery | None:
        """One delivery, without its url and body; None where there is none."""
        ...

    async def deliveries(
        self, *, run_id: str | None = None, state: DeliveryState | None = None,
        limit: int = 100, offset: int = 0,
    ) -> Sequence[Delivery]:  # fmt: skip
        """A page of deliveries without urls and bodies, newest first: of one run, in one state."""
        ...

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        """All attempts of one delivery, oldest first."""
        ...

    async def outbox_counts(self) -> OutboxCounts:
        """How many wait, how many of those failed the last time, and how many are given up."""
        ...

    async def signing_secrets(self) -> Sequence[StoredSigningSecret]:
        """Those that callbacks are signed with, newest first.

        Raises:
            EmbeddedServerError: they cannot be decrypted.
        """
        ...

    async def put_signing_secrets(self, secrets: Sequence[StoredSigningSecret]) -> None:
        """Replaces all that there are by these, newest first whatever their times say."""
        ...


class WholeStore(Store, AccountStore, OutboxStore, Protocol):
    """All that a server keeps."""
