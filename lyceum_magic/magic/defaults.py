"""Settings of the magics (`c.LyceumMagics`), as they are when a line or a cell is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: A function that puts a value into the user's namespace, under a name.
Bind = Callable[[str, object], None]


@dataclass(frozen=True)
class Defaults:
    """The choices for what a line leaves open.

    Attributes:
        timeout_s: the time limit of a run.
        max_lines, max_bytes: how much text a cell shows before it keeps only the last part.
        callback_urls: told of the end of every run, in addition to those of the line.
        callback_base_url: see `inbox.public_base`.
        session: the session of a cell that names none; empty for no session.
    """

    machine: str = "cpu"
    timeout_s: int = 600
    max_lines: int = 10_000
    max_bytes: int = 1_200_000
    callback_urls: tuple[str, ...] = ()
    callback_base_url: str = ""
    session: str = ""

    def of_run(self) -> dict[str, Any]:
        """Return the options that the configuration gives a run."""
        return {
            "machine": self.machine,
            "timeout_s": self.timeout_s,
            "callback_urls": self.callback_urls,
        }
