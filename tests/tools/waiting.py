"""Waiting for a condition that nothing announces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT_S = 120.0
#: Seconds that an HTTP client of a test waits for an answer: httpx gives up after 5, and a busy
#: machine is no failure.
CLIENT_LIMIT_S = LIMIT_S


def eventually(condition: Callable[[], T | None], what: str) -> T:
    """The first true value of the condition."""
    deadline = time.monotonic() + LIMIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it never came to pass: {what}"
        time.sleep(0.02)
    return value
