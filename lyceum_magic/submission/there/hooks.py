"""What a notebook puts into a program: `display`, the display of results, figures that show."""

from __future__ import annotations

import builtins
import sys


def install_hooks() -> None:
    sys.displayhook = show_result
    builtins.display = display  # type: ignore[attr-defined]


def show_result(value: object) -> None:
    """As `sys.displayhook`: the value of the cell's last expression."""
    if value is None:
        return
    builtins._ = value  # type: ignore[attr-defined]
    from .display import send_result

    send_result(value)


def display(*objects: object, **options: object) -> object:
    from .display import display as real

    return real(*objects, **options)
