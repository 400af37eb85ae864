"""Run notebook cells on Lyceum Cloud, or on the Lyceum server that comes with this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# The package `runs` is imported before other modules can import it: a later import would replace
# the function `runs` by the package.
from . import runs as _room  # noqa: F401

del runs  # noqa: F821

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import (
        attach,
        nest_loops,
        on_finish,
        runs,
        signing_secret,
        submit,
        submit_async,
        submit_compose,
        submit_compose_async,
        submit_image,
        submit_image_async,
    )
    from .client.api import Client
    from .exceptions import (
        LyceumError,
        RunAborted,
        RunFailed,
        RunLost,
        RunTimedOut,
        TransferError,
    )
    from .runs.run import Run
    from .sessions.session import Session

# The module of each public name that is not in `api`. They are imported at their first use, so that
# loading the extension costs next to nothing.
_HOMES = {
    "Client": "client.api",
    "Run": "runs.run",
    "Session": "sessions.session",
    **dict.fromkeys(
        ["LyceumError", "RunAborted", "RunFailed", "RunLost", "RunTimedOut", "TransferError"],
        "exceptions",
    ),
}

__all__ = [
    "Client",
    "LyceumError",
    "Run",
    "RunAborted",
    "RunFailed",
    "RunLost",
    "RunTimedOut",
    "Session",
    "TransferError",
    "attach",
    "nest_loops",
    "on_finish",
    "runs",
    "signing_secret",
    "submit",
    "submit_async",
    "submit_compose",
    "submit_compose_async",
    "submit_image",
    "submit_image_async",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES.get(name, 'api')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: Any) -> None:
    """Load the magics, for `%load_ext lyceum_magic`."""
    from .magic.magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Remove the magics, for `%unload_ext lyceum_magic`; runs, hooks and imports stay."""
    from .magic.magics import unload

    unload(shell)
