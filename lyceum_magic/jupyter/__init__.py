"""What Jupyter Server loads: it takes callbacks for the kernels of its user.

Switched on by `jupyter-config/`, which is installed with the package.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "lyceum_magic.jupyter"}]


def _load_jupyter_server_extension(app: Any) -> None:
    from .receiver import load

    load(app)
