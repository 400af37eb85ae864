"""Savings in unit tests: each client would otherwise read the system's authorities in 40 ms."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def authorities_are_read_once() -> Iterator[None]:
    """Give clients with equal settings one TLS context."""
    from httpx import _config
    from httpx._transports import default

    made: dict[object, ssl.SSLContext] = {}

    def context(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        files = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        key = (args, tuple(sorted(kwargs.items())), files)
        if key not in made:
            made[key] = _config.create_ssl_context(*args, **kwargs)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default, "create_ssl_context", context)
        yield
