"""What both sides leave out of what they show."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast
from urllib.parse import urlsplit

from .callbacks import HERE


def without_password(line: str) -> str:
    """A line as it may be shown: what lets its writer in at an address is left out of it."""
    # Up to the last @ before the path: by mistake a password may hold one.
    return re.sub(r"://[^/\s]*@", "://...@", line)


def origin_of(url: str) -> str:
    """A URL as it may be shown: what comes behind the host is often the secret that lets the
    sender in."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."


class HiddenText(str):
    """A text whose repr tells nothing of it: tracebacks with values show that."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'...'"


class HiddenUrl(str):
    """A URL whose repr is its scheme and host alone: tracebacks with values show that."""

    __slots__ = ()

    def __repr__(self) -> str:
        if self == HERE:
            return repr(HERE)
        try:
            return repr(origin_of(self))
        except ValueError:  # it is no URL
            return "'...'"


def hidden_urls(urls: str | Iterable[str]) -> list[str]:
    """One URL or several, each hidden; what is no text stays for others to refuse."""
    is_one = isinstance(urls, str | bytes) or not isinstance(urls, Iterable)
    several = [cast(str, urls)] if is_one else list(urls)
    return [HiddenUrl(url) if isinstance(url, str) else url for url in several]
