"""The extension of Jupyter Server: it receives callbacks for the kernels of its user.

`jupyter-config/`, which is installed with the package, enables it.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "lyceum_magic.jupyter"}]


def _load_jupyter_server_extension(app: Any) -> None:
    from .receiver import load

    load(app)
