"""Text with secrets in it -> text that may be shown; for both sides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast
from urllib.parse import urlsplit

from .callbacks import HERE


def without_password(line: str) -> str:
    """Return a line that may be shown: a user and password in an address are left out."""
    # Up to the last @ before the path: by mistake a password may hold one.
    return re.sub(r"://[^/\s]*@", "://...@", line)


def origin_of(url: str) -> str:
    """Return the part of a URL that may be shown: what follows the host is often a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."


class HiddenText(str):
    """A text whose repr hides it, since tracebacks with values show reprs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'...'"


class HiddenUrl(str):
    """A URL whose repr is its scheme and host alone, since tracebacks with values show reprs."""

    __slots__ = ()

    def __repr__(self) -> str:
        if self == HERE:
            return repr(HERE)
        try:
            return repr(origin_of(self))
        except ValueError:  # it is no URL
            return "'...'"


def hidden_urls(urls: str | Iterable[str]) -> list[str]:
    """Return one URL or several as a list, each hidden; anything but text is left as it is."""
    is_one = isinstance(urls, str | bytes) or not isinstance(urls, Iterable)
    several = [cast(str, urls)] if is_one else list(urls)
    return [HiddenUrl(url) if isinstance(url, str) else url for url in several]
