"""What both sides leave out of what they show."""

from __future__ import annotations

import re
from urllib.parse import urlsplit


def without_password(line: str) -> str:
    """A line as it may be shown: what lets its writer in at an address is left out of it."""
    # Up to the last @ before the path: by mistake a password may hold one.
    return re.sub(r"://[^/\s]*@", "://...@", line)


def origin_of(url: str) -> str:
    """A URL as it may be shown: what comes behind the host is often the secret that lets the
    sender in."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."
