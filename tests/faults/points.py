"""The points at which a server can be made to die."""

from __future__ import annotations

import os
import signal

#: Reached once, by a server that starts.
START_UP_POINTS = ("opening", "opened", "reading unfinished runs", "reading endpoints")
#: Reached again and again.
POINTS = (
    "before the finish", "inside the finish", "after the finish",
    "before sending", "after sending",
    "before the group write", "inside the group write", "after the group write",
    "before reading due rows", "after reading due rows",
)  # fmt: skip


class FailPoint:
    """End this process where it is reached for the nth time; do nothing where it has no name."""

    def __init__(self, name: str | None, nth: int) -> None:
        self.name = name
        self._left = nth

    def reach(self, name: str) -> None:
        if name == self.name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
