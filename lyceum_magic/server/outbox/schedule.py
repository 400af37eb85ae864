"""The times of a callback's attempts: a plain table, and the receiver's wishes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

_MINUTE_S = 60.0
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Schedule:
    """The waits before each attempt.

    Attributes:
        waits_s: Before the first attempt, the second, and so on; after the last attempt the
            callback is given up.
        jitter: Each wait is made longer or shorter by up to this fraction of it.
        max_retry_after_s: The longest wait that a receiver may ask for.
    """

    waits_s: tuple[float, ...] = (
        0.0,
        5.0,
        30.0,
        5 * _MINUTE_S,
        30 * _MINUTE_S,
        2 * _HOUR_S,
        5 * _HOUR_S,
        10 * _HOUR_S,
        14 * _HOUR_S,
        20 * _HOUR_S,
        24 * _HOUR_S,
    )
    jitter: float = 0.1
    max_retry_after_s: float = _HOUR_S
    uniform: Callable[[float, float], float] = random.uniform

    def next_at(self, tries: int, now: float, retry_after_s: float | None) -> float | None:
        """Return when to try again after `tries` attempts, in seconds since 1970; None to give up.

        The receiver's wish can make a wait longer, never shorter.
        """
        if tries >= len(self.waits_s):
            return None
        wait_s = self.waits_s[tries] * self.uniform(1 - self.jitter, 1 + self.jitter)
        return now + max(wait_s, min(retry_after_s or 0.0, self.max_retry_after_s))
