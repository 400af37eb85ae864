"""httpx without its command line, which would double the time that loading httpx takes.

httpx loads it, with rich and pygments, wherever they are installed. Here it is loaded when it is
called. Nothing changes if the notebook has imported httpx before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_COMMAND_LINE = "httpx._main"


def _main() -> None:
    from httpx._main import main

    main()


@contextmanager
def _without_command_line() -> Iterator[None]:
    """Let a module of one function stand in for the command line during the block."""
    stand_in = ModuleType(_COMMAND_LINE)
    stand_in.main = _main  # type: ignore[attr-defined]
    if sys.modules.setdefault(_COMMAND_LINE, stand_in) is not stand_in:
        yield
        return
    try:
        yield
    finally:
        sys.modules.pop(_COMMAND_LINE, None)


with _without_command_line():
    import httpx as httpx
