"""What both sides leave out of what they show."""

from __future__ import annotations

import re


def without_password(line: str) -> str:
    """A line as it may be shown: what lets its writer in at an address is left out of it."""
    # Up to the last @ before the path: by mistake a password may hold one.
    return re.sub(r"://[^/\s]*@", "://...@", line)
