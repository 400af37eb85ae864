"""Points in time on the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload


@overload
def iso(time_s: float) -> str: ...
@overload
def iso(time_s: None) -> None: ...
@overload
def iso(time_s: float | None) -> str | None: ...
def iso(time_s: float | None) -> str | None:
    """Return seconds since 1970 as ISO 8601 in UTC."""
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat()
