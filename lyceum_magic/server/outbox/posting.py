"""One POST over a connection of its own: a checked target in, the outcome out.

Each attempt opens a new connection. One kept from an earlier attempt would save 0.6 ms on loopback,
but is often closed by the time it is used again, and a pool that loses connections to cancelled
attempts would hold up every endpoint. This also means that each attempt's addresses are checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

import anyio
import httpcore

from ...protocol.callback_urls import CallbackUrl
from .results import Outcome
from .targets import TargetRefused, Targets

#: The most that is read of a reply. Its status says enough.
_MAX_REPLY_BYTES = 4096
#: The most that is read of a connection, headers and informational replies included: httpcore
#: would skip `100 Continue` for as long as it comes.
_MAX_READ_BYTES = 64 * 1024 + _MAX_REPLY_BYTES


class _TooMuch(httpcore.ReadError):
    """More than `_MAX_READ_BYTES` came."""


class _CappedStream(httpcore.AsyncNetworkStream):
    """A connection from which at most `_MAX_READ_BYTES` are read."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = _MAX_READ_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if not self._left:
            raise _TooMuch
        data = await self._stream.read(min(max_bytes, self._left), timeout)
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
    ) -> httpcore.AsyncNetworkStream:
        return _CappedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects only to the checked addresses of one URL, whatever host httpcore names.

    Attributes:
        address: The address of the connection; None before.
    """

    def __init__(self, targets: Targets, url: CallbackUrl) -> None:
        self.address: str | None = None
        self._targets = targets
        self._url = url
        self._network = httpcore.AnyIOBackend()
        self._stream: httpcore.AsyncNetworkStream | None = None

    async def close(self) -> None:
        """Close the connection; httpcore itself leaves it open if a handshake is cut short."""
        if self._stream is not None:
            await self._stream.aclose()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers; each gets its share of the time."""
        addresses = await self._targets.addresses(self._url)
        deadline = anyio.current_time() + (timeout or 0.0)
        while True:
            address = addresses.pop(0)
            share_s = (deadline - anyio.current_time()) / (len(addresses) + 1)
            try:
                self._stream = await self._network.connect_tcp(address, self._url.port, share_s)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not addresses:
                    raise
            else:
                self.address = address
                return _CappedStream(self._stream)


async def post(
    targets: Targets,
    url: CallbackUrl,
    headers: Mapping[str, str],
    body: bytes,
    *,
    tls: ssl.SSLContext | None,
    connect_s: float,
    total_s: float,
) -> Outcome:
    """POST `body`. Every failure is an outcome.

    Only a whole answer of 2xx is a success. An answer that breaks off is a failure, whatever its
    status: the receiver may have crashed, and hearing of a run twice costs it nothing.

    Args:
        url: A URL that `Targets.read` has accepted.
        headers: Beside Host, Connection and Content-Length.
        tls: For https.
        connect_s: The longest time to connect, and the longest for a TLS handshake.
        total_s: The longest time for all of it.
    """
    request = _request(url, headers, body, connect_s)
    network = CheckedNetwork(targets, url)
    connection = httpcore.AsyncHTTPConnection(request.url.origin, tls, network_backend=network)
    response: httpcore.Response | None = None
    error = ""
    try:
        async with asyncio.timeout(total_s):
            response = await connection.handle_async_request(request)
            await _read(response)
    except TargetRefused as exc:
        error = str(exc)
    except _FAILURES as exc:
        error = f"{url.origin} {_reason(exc, network.address, response)}."
    finally:
        await network.close()
    if response is None:
        return Outcome(network.address, None, error)
    if not error and not 200 <= response.status < 300:
        error = f"{url.origin} {_refusal(response.status)}."
    wait_s = _retry_after_s(response) if error else None
    return Outcome(network.address, response.status, error, wait_s)


def _request(
    url: CallbackUrl, headers: Mapping[str, str], body: bytes, connect_s: float
) -> httpcore.Request:
    return httpcore.Request(
        "POST",
        httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
        headers=[
            ("host", url.authority),
            *headers.items(),
            ("connection", "close"),
            ("content-length", str(len(body))),
        ],
        content=body,
        extensions={"timeout": {"connect": connect_s}},
    )


async def _read(response: httpcore.Response) -> None:
    read = 0
    # A generator, whatever its annotation says: closing it is not left to the garbage collector.
    chunks = cast("AsyncGenerator[bytes, None]", response.aiter_stream())
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            read += len(chunk)
            if read > _MAX_REPLY_BYTES:
                return


_FAILURES = (OSError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


def _reason(exc: Exception, address: str | None, response: httpcore.Response | None) -> str:
    """Return why an attempt failed, as the end of a sentence that begins with the URL's origin."""
    match exc:
        case _TooMuch():
            return f"sent {_MAX_READ_BYTES // 1024} kB without coming to the end of an answer"
        case TimeoutError() | httpcore.TimeoutException():
            return "did not answer in time" if address else "could not be reached in time"
        case httpcore.ConnectError(__cause__=ssl.SSLCertVerificationError() as tls):
            return f"has no trusted certificate: {tls.verify_message.rstrip('.')}"
        case httpcore.ConnectError(__cause__=ssl.SSLError() as tls):
            return f"does not speak TLS: {tls.reason or 'the connection was closed'}"
        case httpcore.ConnectError() if address:
            return "broke the connection off before it was secure"
        case httpcore.ConnectError():
            return f"could not be connected to: {_system_reason(exc)}"
        case OSError():
            return f"was not found: {exc.strerror or 'its name could not be looked up'}"
        case _ if response is not None:
            return f"answered {_named(response.status)} and broke off before its end"
        case httpcore.RemoteProtocolError(__cause__=None):
            return "closed the connection without an answer"
        case httpcore.RemoteProtocolError():
            return "answered with something other than HTTP"
        case httpcore.LocalProtocolError():
            return "was sent nothing: a header of the callback is not valid"
        case _:
            return "broke the connection off without an answer"


def _refusal(status_code: int) -> str:
    """Return the end of such a sentence for a whole answer."""
    said = f"answered {_named(status_code)}"
    if 300 <= status_code < 400:
        said += ", a redirect, which a callback does not follow"
    return said


def _named(status_code: int) -> str:
    """Return `503 Service Unavailable`, or the number alone if the standard has no name for it."""
    try:
        return f"{status_code} {HTTPStatus(status_code).phrase}"
    except ValueError:
        return str(status_code)


def _system_reason(exc: BaseException) -> str:
    """Return the system's reason, found below the libraries' own exceptions."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__
    return "the system gave no reason"


def _retry_after_s(response: httpcore.Response) -> float | None:
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            return retry_after_s(value.decode("latin-1"), time.time())
    return None


def retry_after_s(value: str, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks to wait; None if it does not say.

    Args:
        value: Seconds or a date, RFC 9110 10.2.3.
        now: Seconds since 1970.
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
