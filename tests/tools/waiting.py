"""Waits for a condition that nothing announces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT_S = 120.0


def eventually(condition: Callable[[], T | None], what: str) -> T:
    """The first true value of the condition."""
    deadline = time.monotonic() + LIMIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it never came to pass: {what}"
        time.sleep(0.02)
    return value
