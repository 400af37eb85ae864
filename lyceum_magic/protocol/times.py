"""Points in time on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
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


def moment_of(said: object) -> float | None:
    """Return a time on the wire, seconds or ISO 8601, in seconds since 1970; None for another.

    A text without a zone is in UTC.
    """
    if isinstance(said, int | float) and not isinstance(said, bool):
        return float(said)
    try:
        moment = datetime.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def day_and_time(text: str, now: datetime | None = None) -> str:
    """Return a point in time as a reader here says it: `today 18:02`, `yesterday 18:02`.

    Args:
        text: ISO 8601; empty or anything else gives an empty text.
        now: the present moment.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone()
    today = (now or datetime.now(UTC)).astimezone().date()
    day = moment.date()
    if day == today:
        said = "today"
    elif day == today - timedelta(days=1):
        said = "yesterday"
    else:
        said = f"{day.day} {moment:%b}" if day.year == today.year else str(day)
    return f"{said} {moment:%H:%M}"
