"""What a store is: the narrow face that the service sees of memory and SQLite alike.

A store keeps records of runs, and what must happen because of them, and beside them what belongs
to the account: secrets and API keys. No output byte passes through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...exceptions import EmbeddedServerError
from ...protocol.requests import Start
from ...protocol.states import State


class StoreUnavailable(EmbeddedServerError):
    """The records cannot be read or written now: the disk is full, or fails."""


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
class ApiKey:
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

    async def finish(self, record: RunRecord) -> None:
        """Replaces the record by its final one, together with all that follows from the end.

        What was asked for stays as it is, but for the credentials, which are forgotten.
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

    async def spools_since(self, moment: float) -> Mapping[str, Path]:
        """Id and output of every run that ended at `moment` or later."""
        ...

    async def ended(self) -> Sequence[tuple[str, float]]:
        """Id and end of every run that is over, the oldest end first."""
        ...

    async def forget(self, run_id: str) -> None:
        """Removes a run that is over, with all that followed from its end; others stay."""
        ...


class AccountStore(Protocol):
    """Keeps what belongs to the account."""

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

    async def put_key(self, key: ApiKey) -> None:
        """Writes a key down, in place of the one of its id where there is one."""
        ...

    async def keys(self) -> Sequence[ApiKey]:
        """All keys, oldest first."""
        ...

    async def remove_key(self, key_id: str) -> None:
        """Forgets a key."""
        ...


class WholeStore(Store, AccountStore, Protocol):
    """All that a server keeps."""
