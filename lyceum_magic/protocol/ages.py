"""The time by which the ages of kept runs are measured: a wrong clock moves it by a day at most.

The server's records and the notebook's journal each keep a `Mark` on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

DAY_S = 86_400.0
#: Maximum speed of the mark while it catches up, in seconds for each second of the clock.
CATCH_UP = 24.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment that follows the clock, and does not believe its jumps. Seconds since 1970.

    A clock that is wrong at one start (a laptop without a battery, a restored virtual machine)
    would otherwise make every run look old at once, and all of them would be removed.

    Attributes:
        time: the moment itself; it never goes back.
        clock: what the clock said when the mark was moved last.
    """

    time: float
    clock: float

    @classmethod
    def first(cls, now: float, newest: float | None) -> Mark:
        """Return the mark of records that have none yet.

        Args:
            newest: the end of the newest of them, None without any. It is the only sign of whether
                the clock is right.
        """
        return cls(now if newest is None else min(now, newest + DAY_S), now)

    def moved(self, now: float) -> Mark:
        """Return the mark after another look at the clock.

        It moves by a day at most, and by at most `CATCH_UP` times the time since the last look. So
        after days without any look it catches up by a day each hour.
        """
        step_s = min(DAY_S, CATCH_UP * max(0.0, now - self.clock))
        return Mark(max(self.time, min(now, self.time + step_s)), now)


def kept_from(ended_at: float, mark: Mark | None) -> float:
    """Return the moment from which the age of a run that has just ended counts.

    That is its end by the clock, but not before the mark: the clock may have been set back.
    """
    return ended_at if mark is None else max(ended_at, mark.time)
