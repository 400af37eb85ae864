"""Settings of the magics (`c.LyceumMagics`), as they are when a line or a cell is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    """

    machine: str = "cpu"
    timeout_s: int = 600
    max_lines: int = 10_000
    max_bytes: int = 1_200_000
    callback_urls: tuple[str, ...] = ()
    callback_base_url: str = ""
