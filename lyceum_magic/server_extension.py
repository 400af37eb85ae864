"""The former name of `lyceum_magic.jupyter`, which installed configuration may still use."""

from __future__ import annotations

from .jupyter import _jupyter_server_extension_points, _load_jupyter_server_extension

__all__ = ["_jupyter_server_extension_points", "_load_jupyter_server_extension"]
