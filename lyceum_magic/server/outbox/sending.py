"""One attempt at a callback: a URL, headers and a body in, the outcome out."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Protocol

import anyio
import anyio.to_thread

from ... import __version__
from ...protocol.callbacks import CONTENT_TYPE
from .results import Outcome
from .targets import TargetRefused, Targets

#: Maximum seconds to connect, and for a whole attempt.
_CONNECT_S = 5.0
_TOTAL_S = 15.0

_USER_AGENT = f"lyceum-magic/{__version__}"


class CallbackSender(Protocol):
    """A client that makes attempts to deliver callbacks, also several at once."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """POST `body` to `url`, whose references are filled in. Every failure is an outcome."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class HttpSender:
    """A sender of callbacks over HTTP; only an answer of 2xx is a success.

    It ignores proxy variables, `.netrc` and cookies, and follows no redirect.

    Args:
        targets: Where it may send to.
        connect_s: The longest time to connect, and the longest for a TLS handshake.
        total_s: The longest time for an attempt, with the look-up of the name.
    """

    def __init__(
        self, targets: Targets, *, connect_s: float = _CONNECT_S, total_s: float = _TOTAL_S
    ) -> None:
        self._targets = targets
        self._connect_s = connect_s
        self._total_s = total_s
        self._tls: ssl.SSLContext | None = None
        self._tls_lock = anyio.Lock()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """POST `body` to `url`; see `CallbackSender`. The names of `headers` are in lower case."""
        try:
            read = self._targets.read(url)
        except TargetRefused as exc:
            return Outcome(None, None, str(exc))
        # Imported late, which takes 40 ms: most servers send nothing.
        from .posting import post

        return await post(
            self._targets,
            read,
            {"content-type": CONTENT_TYPE, "user-agent": _USER_AGENT, **headers},
            body,
            tls=await self._authorities() if read.scheme == "https" else None,
            connect_s=self._connect_s,
            total_s=self._total_s,
        )

    async def close(self) -> None:
        """Do nothing: a connection ends with its attempt."""

    async def _authorities(self) -> ssl.SSLContext:
        """Return the trusted authorities: of this machine or `SSL_CERT_FILE`, and certifi's."""
        import httpcore

        async with self._tls_lock:
            if self._tls is None:
                self._tls = await anyio.to_thread.run_sync(httpcore.default_ssl_context)
            return self._tls
