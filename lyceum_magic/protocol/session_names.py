"""The names of sessions: which texts are one, and the key of a notebook's own session."""

from __future__ import annotations

import hashlib
import re

from .sessions import KEY_PATTERN, MAX_PICKLE_BYTES, MAX_SESSION_BYTES, SAVE_S

_OF_NOTEBOOK = re.compile(r"nb-[0-9a-f]{16}")


def is_session_name(text: object) -> bool:
    """Return whether a text may name a session or a branch."""
    return isinstance(text, str) and re.fullmatch(KEY_PATTERN, text) is not None


def key_of_notebook(host: str, path: str) -> str:
    """Return the key of a notebook's own session, so that a copy elsewhere begins its own.

    Args:
        path: absolute.
    """
    digest = hashlib.sha256(f"{host}\0{path}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"nb-{digest[:16]}"


def is_of_notebook(key: str) -> bool:
    """Return whether a key is that of a notebook's own session, which has no name."""
    return _OF_NOTEBOOK.fullmatch(key) is not None


def save_limits() -> dict[str, float]:
    """Return the limits that travel with a cell of a session."""
    return {
        "state_bytes": MAX_SESSION_BYTES,
        "pickle_bytes": MAX_PICKLE_BYTES,
        "save_s": SAVE_S,
    }
