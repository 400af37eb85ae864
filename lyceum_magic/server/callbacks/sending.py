"""One attempt: a URL, headers and a body in, what came of it out."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol

import anyio
import anyio.to_thread

from ... import __version__
from ...protocol.callbacks import CONTENT_TYPE
from .targets import TargetRefused, Targets

#: How long a receiver may take to let us in, and for everything.
_CONNECT_S = 5.0
_TOTAL_S = 15.0

_USER_AGENT = f"lyceum-magic/{__version__}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt.

    Attributes:
        address: what was really connected to; None where it did not get so far.
        status_code: of the answer; None where none came.
        error: why it was no success, in one sentence that holds nothing of the URL but scheme and
            host; empty for a success.
        retry_after_s: seconds that the receiver asked to wait, if it did.
    """

    address: str | None
    status_code: int | None
    error: str
    retry_after_s: float | None = None


class Sender(Protocol):
    """Makes attempts; several at once."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """POSTs `body` to `url`, whose references are filled in. Whatever fails is an outcome."""
        ...

    async def close(self) -> None:
        """Lets go of its connections."""
        ...


class HttpSender:
    """Makes attempts over HTTP; only an answer of 2xx is a success.

    Proxy variables, `.netrc` and cookies mean nothing to it, and it follows no redirect.

    Args:
        targets: where it may send to.
        connect_s: how long connecting may take, and then a TLS handshake.
        total_s: how long all of an attempt may take, with looking up the name.
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
        """POSTs `body` to `url`; as in `Sender`. The names of `headers` are in small letters."""
        try:
            read = self._targets.read(url)
        except TargetRefused as exc:
            return Outcome(None, None, str(exc))
        # A server that has nothing to send does not load it: 40 ms.
        from .posting import named, post

        done = await post(
            self._targets,
            read,
            {"content-type": CONTENT_TYPE, "user-agent": _USER_AGENT, **headers},
            body,
            tls=await self._authorities() if read.scheme == "https" else None,
            connect_s=self._connect_s,
            total_s=self._total_s,
        )
        error = done.failure
        if not error and done.status_code is not None and not 200 <= done.status_code < 300:
            error = f"{read.origin} answered {named(done.status_code)}"
            error += (
                ", a redirect, which a callback does not follow."
                if 300 <= done.status_code < 400
                else "."
            )
        wait_s = retry_after_s(done.retry_after or "", time.time()) if error else None
        return Outcome(done.address, done.status_code, error, wait_s)

    async def close(self) -> None:
        """Nothing: a connection ends with its attempt."""

    async def _authorities(self) -> ssl.SSLContext:
        """Whom to trust: the authorities of this machine or of `SSL_CERT_FILE`, and certifi's."""
        import httpcore

        async with self._tls_lock:
            if self._tls is None:
                self._tls = await anyio.to_thread.run_sync(httpcore.default_ssl_context)
            return self._tls


def retry_after_s(value: str, now: float) -> float | None:
    """The seconds that a Retry-After header asks to wait; None if it does not say.

    Args:
        value: seconds or a date, RFC 9110 10.2.3.
        now: seconds since 1970.
    """
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now)
