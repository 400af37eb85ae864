"""A clock that a test sets."""

from __future__ import annotations

from .waiting import Tally


class Clock:
    """Seconds, which stand still until the test changes `now`.

    Attributes:
        looks: how many times the clock was read.
    """

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.looks = Tally()

    def __call__(self) -> float:
        self.looks.add()
        return self.now
