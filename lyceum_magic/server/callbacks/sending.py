"""One attempt: a URL, headers and a body in, what came of it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt.

    Attributes:
        address: what was really connected to; None where it did not get so far.
        status_code: of the answer; None where none came.
        error: why it was no success, in one sentence that holds nothing of the URL but scheme and
            host; empty for a success.
        retry_after_s: seconds that the receiver asked to wait, if it did.
    """

    address: str | None
    status_code: int | None
    error: str
    retry_after_s: float | None = None


class Sender(Protocol):
    """Makes attempts; several at once."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """POSTs `body` to `url`, whose references are filled in. Whatever fails is an outcome."""
        ...

    async def close(self) -> None:
        """Lets go of its connections."""
        ...
