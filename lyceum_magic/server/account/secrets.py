"""The account's secrets: variables that every run gets, and that no client can read back.

Their values are encrypted at rest, and masked in the output of runs.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...exceptions import LyceumError
from ..stores.base import AccountStore, SecretRecord

NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
MAX_NAME = 255
#: The limits of one value and of all values: each is looked for in everything that runs print.
MAX_VALUE_BYTES = 32 * 1024
MAX_ALL_BYTES = 64 * 1024

#: Names that no secret may have. The server sets them for each run, or they decide which programs
#: and libraries every run of the account loads, so that they would break runs in other images.
RESERVED = frozenset(
    {
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LYCEUM_RUN_ID",
        "LYCEUM_SECRET_NAMES",
        "LYCEUM_SUPERVISOR_ID",
        "PATH",
        "PYTHONHOME",
    }
)


class SecretsTooLarge(LyceumError):
    """All secrets together would be too large to look for in each run's output."""


class UnknownSecret(LyceumError):
    """No secret has the id."""


@dataclass(frozen=True)
class NewSecret:
    """A secret to be set; see `problem_of_name` and `problem_of_value` for what is allowed."""

    name: str
    value: str = field(repr=False)
    is_secret: bool = True


def problem_of_name(name: str) -> str | None:
    """Return why no secret can have a name of the right form; None if it is allowed."""
    if name in RESERVED:
        return f"{name} is set by the server or the machine for each run; choose another name"
    return None


def problem_of_value(value: str) -> str | None:
    """Return why a text cannot be a secret, without quoting it; None if it is allowed."""
    if "\0" in value:
        return "a value must not contain a NUL character: no environment can hold it"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "a value must be Unicode text; this one holds half of a surrogate pair"
    if size > MAX_VALUE_BYTES:
        return f"a value may have {MAX_VALUE_BYTES} bytes as UTF-8; this one has {size}"
    return None


class AccountSecrets:
    """The secrets of the account."""

    def __init__(self, store: AccountStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    async def put(self, secrets: Sequence[NewSecret]) -> Sequence[SecretRecord]:
        """Set secrets, and return their records. A secret of the same name is replaced.

        Raises:
            SecretsTooLarge: Nothing was set.
        """
        sizes = {record.name: record.size_bytes for record in await self._store.secrets()}
        sizes |= {secret.name: len(secret.value.encode()) for secret in secrets}
        if (size := sum(sizes.values())) > MAX_ALL_BYTES:
            raise SecretsTooLarge(
                f"All secrets together may have {MAX_ALL_BYTES} bytes, and would have {size}. "
                "Remove one first, or keep large texts in the storage."
            )
        now = self._clock()
        await self._store.put_secrets(
            [
                (
                    SecretRecord(
                        str(uuid.uuid4()), secret.name, secret.is_secret, sizes[secret.name], now
                    ),
                    secret.value,
                )
                for secret in secrets
            ]
        )
        names = {secret.name for secret in secrets}
        return [record for record in await self._store.secrets() if record.name in names]

    async def list(self) -> Sequence[SecretRecord]:
        """Return all secrets without their values, by name."""
        return await self._store.secrets()

    async def values(self) -> Mapping[str, str]:
        """Return the values of all secrets, name -> value.

        Raises:
            EmbeddedServerError: They cannot be decrypted.
        """
        return await self._store.secret_values()

    async def remove(self, secret_id: str) -> None:
        """Remove one secret.

        Raises:
            UnknownSecret: No secret has the id.
        """
        if not await self._store.remove_secret(secret_id):
            raise UnknownSecret(f"No environment variable has the id {secret_id!r}.")

    async def remove_all(self) -> None:
        """Remove every secret."""
        await self._store.remove_all_secrets()
