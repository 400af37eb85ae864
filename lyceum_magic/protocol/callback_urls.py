"""How the URL of a callback may read, for who gives one and for who sends to it.

This is about its text. Where it may lead is decided by the address that is really connected to,
see `server.callbacks.targets`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from .addresses import is_loopback
from .redaction import origin_of

FORM = "a callback goes to https://HOST/..., or to http://127.0.0.1:PORT/... on this machine"

#: A secret of the account, which the sender fills in: `https://host/?token=${NAME}`.
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def problem_of_url(url: str) -> str | None:
    """Why a text cannot be the URL of a callback, in one sentence; None if it can.

    The sentence holds no more of it than scheme and host: a secret may be in the rest.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if (
        host is None
        or port == 0
        or parts.scheme not in ("https", "http")
        or re.search(r"[\s\0-\x1f\x7f\\]", url)
    ):
        return f"What was given as a callback URL is none: {FORM}."
    if "@" in parts.netloc:
        return (
            "A callback URL cannot hold a user or a password before its host; put a secret behind "
            "it, as https://HOST/?token=${NAME}."
        )
    if "$" in parts.netloc or "{" in parts.netloc:
        return f"A reference to a secret, ${{NAME}}, stands behind a callback URL's host alone: {FORM}."
    if parts.scheme == "http" and not is_loopback(host):
        return f"{origin_of(url)} is not encrypted: {FORM}."
    return None


def references(url: str) -> frozenset[str]:
    """The names of the secrets that a URL refers to."""
    return frozenset(_REFERENCE.findall(url))


def fill_in(url: str, secrets: Mapping[str, str]) -> str:
    """The URL with its references replaced by values, each quoted so that it stays one piece.

    Raises:
        KeyError: the name of a secret that there is none of.
    """
    return _REFERENCE.sub(lambda found: quote(secrets[found[1]], safe=""), url)
