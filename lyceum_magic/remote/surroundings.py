"""What is around a program: packages, a shell if it has asked for one, and nobody to ask."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PACKAGE = __name__.rpartition(".")[0]


def is_installed(package: str) -> bool:
    """Whether a package can be imported; asked without the import system, for it is dear."""
    return package in sys.modules or any(
        os.path.isfile(os.path.join(folder, package, "__init__.py")) for folder in sys.path
    )


def shell_made() -> Any:
    """IPython's shell, if the cell has asked for it, else None."""
    module = sys.modules.get(f"{PACKAGE}.shell")
    return module and module.shell_of_ipython()


def refuse_input(prompt: object = "", *_more: object, **_options: object) -> str:
    raise EOFError(
        "There is nobody to ask where this cell runs: send a value with --in NAME instead."
    )
