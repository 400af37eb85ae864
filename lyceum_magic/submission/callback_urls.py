"""The URLs to be told of a run's end, checked before anything travels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from ..exceptions import OptionError
from ..protocol.addresses import is_loopback
from ..protocol.redaction import origin_of

_FORM = "a callback goes to https://HOST/..., or to http://127.0.0.1:PORT/... on this machine"


def check_callback_urls(urls: Iterable[str]) -> list[str]:
    """The URLs, each once.

    Raises:
        OptionError: one that no callback may go to. It is not shown whole, since a secret may be
            in it.
    """
    urls = list(dict.fromkeys(urls))
    for url in urls:
        if not isinstance(url, str):
            raise OptionError(f"callback URLs are texts, not a {type(url).__name__}: {_FORM}.")
        try:
            parts = urlsplit(url)
            host = parts.hostname
            _ = parts.port  # ValueError where it is no number
        except ValueError:
            host = None
        # `${NAME}`, a secret that the server fills in, may stand anywhere behind the host.
        if host is None or parts.scheme not in ("https", "http") or re.search(r"[\s\0]", url):
            raise OptionError(f"What was given as a callback URL is none: {_FORM}.")
        if parts.scheme == "http" and not is_loopback(host):
            raise OptionError(f"{origin_of(url)} is not encrypted: {_FORM}.")
    return urls
