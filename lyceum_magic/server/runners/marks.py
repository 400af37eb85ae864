"""Processes that a variable of their environment tells from all others."""

from __future__ import annotations

import contextlib

import psutil

_MOST_ROUNDS = 500


def kill_marked(variable: str, value: str) -> None:
    """Kill all processes whose environment holds this variable, until there are none.

    Except for those that not even SIGKILL ends, because they wait for a disk. Blocks.
    """
    for _ in range(_MOST_ROUNDS):
        found = False
        for process in psutil.process_iter():
            # Other users' processes do not show their environment, and are not ours to kill.
            with contextlib.suppress(psutil.Error):
                if process.environ().get(variable) == value:
                    process.kill()
                    found = True
        if not found:
            return
