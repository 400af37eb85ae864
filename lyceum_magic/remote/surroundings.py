"""The surroundings of a program: its packages, its shell, and no user to ask."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PACKAGE = __name__.rpartition(".")[0]


def is_installed(package: str) -> bool:
    """Return whether a package can be imported; looks without the slow import system."""
    return package in sys.modules or any(
        os.path.isfile(os.path.join(folder, package, "__init__.py")) for folder in sys.path
    )


def shell_made() -> Any:
    """Return IPython's shell, if the cell has asked for it, else None."""
    module = sys.modules.get(f"{PACKAGE}.shell")
    return module and module.shell_of_ipython()


def refuse_input(prompt: object = "", *_more: object, **_options: object) -> str:
    raise EOFError(
        "The user cannot be asked where this cell runs: send a value with --in NAME instead."
    )
