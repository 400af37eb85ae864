"""Wait until a condition is true, or until a count has reached a number."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from lyceum_magic.server.bell import Bell

T = TypeVar("T")

LIMIT_S = 120.0
#: Seconds that an HTTP client of a test waits for an answer: httpx gives up after 5, and a busy
#: machine is no failure.
CLIENT_LIMIT_S = LIMIT_S


def eventually(condition: Callable[[], T | None], what: str) -> T:
    """Return the first true value of the condition."""
    deadline = time.monotonic() + LIMIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"this never happened: {what}"
        time.sleep(0.02)
    return value


class Tally:
    """A count that a test can wait for."""

    def __init__(self) -> None:
        self.count = 0
        self._grown = Bell()

    def add(self) -> None:
        self.count += 1
        self._grown.ring()

    async def reaches(self, number: int) -> None:
        """Return once the count is at least `number`."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                grown = self._grown.listen()
                if self.count >= number:
                    return
                await grown.wait()
