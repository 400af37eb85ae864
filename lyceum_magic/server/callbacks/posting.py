"""One POST over a connection of its own: a checked target in, what came of it out.

Each attempt connects anew. A connection kept from an earlier one would spare 0.6 ms on loopback,
but is often closed by the time it is used again, and a pool that loses connections to cancelled
attempts would hold up every endpoint. So also each attempt's addresses are checked.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import anyio
import httpcore

from ...protocol.callback_urls import CallbackUrl
from .targets import TargetRefused, Targets

#: No more of a reply is read. What was to be told is in its status.
_MAX_REPLY_BYTES = 4096


@dataclass(slots=True)
class Exchange:
    """How far an attempt has got.

    Attributes:
        address: what was connected to.
        status_code: of the reply.
        retry_after: a header of the reply, as it came.
        failure: why no whole reply came, in one sentence; empty if one came.
    """

    address: str | None = None
    status_code: int | None = None
    retry_after: str | None = None
    failure: str = ""


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to nothing but the checked addresses of one URL, whatever host it is told."""

    def __init__(self, targets: Targets, url: CallbackUrl, exchange: Exchange) -> None:
        self._targets = targets
        self._url = url
        self._exchange = exchange
        self._network = httpcore.AnyIOBackend()
        self._stream: httpcore.AsyncNetworkStream | None = None

    async def close(self) -> None:
        """Closes what was connected; httpcore itself leaves it open if a handshake is cut short."""
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
        """A connection to the first address that takes one; each gets its share of the time."""
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
                self._exchange.address = address
                return self._stream


async def post(
    targets: Targets,
    url: CallbackUrl,
    headers: Mapping[str, str],
    body: bytes,
    *,
    tls: ssl.SSLContext | None,
    connect_s: float,
    total_s: float,
) -> Exchange:
    """POSTs `body`. Whatever fails is told by what is returned.

    Args:
        url: what `Targets.read` has let pass.
        headers: beside Host, Connection and Content-Length.
        tls: for https.
        connect_s: how long connecting may take, and then a TLS handshake.
        total_s: how long all of it may take.
    """
    exchange = Exchange()
    request = httpcore.Request(
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
    network = CheckedNetwork(targets, url, exchange)
    connection = httpcore.AsyncHTTPConnection(request.url.origin, tls, network_backend=network)
    try:
        async with asyncio.timeout(total_s):
            await _exchange(connection, request, exchange)
    except TargetRefused as exc:
        exchange.failure = str(exc)
    except _FAILURES as exc:
        exchange.failure = f"{url.origin} {_reason(exc, exchange)}."
    finally:
        await network.close()
    return exchange


async def _exchange(
    connection: httpcore.AsyncHTTPConnection, request: httpcore.Request, exchange: Exchange
) -> None:
    response = await connection.handle_async_request(request)
    exchange.status_code = response.status
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            exchange.retry_after = value.decode("latin-1")
    read = 0
    async for chunk in response.aiter_stream():
        read += len(chunk)
        if read > _MAX_REPLY_BYTES:
            return


_FAILURES = (OSError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


def _reason(exc: Exception, exchange: Exchange) -> str:
    """Why an attempt failed, as the end of a sentence that begins with where it went."""
    match exc:
        case TimeoutError() | httpcore.TimeoutException():
            return "did not answer in time" if exchange.address else "could not be reached in time"
        case httpcore.ConnectError(__cause__=ssl.SSLCertVerificationError() as tls):
            return f"has no certificate to be trusted: {tls.verify_message.rstrip('.')}"
        case httpcore.ConnectError(__cause__=ssl.SSLError() as tls):
            return f"does not speak TLS: {tls.reason or 'the connection was closed'}"
        case httpcore.ConnectError() if exchange.address:
            return "broke the connection off before it was secure"
        case httpcore.ConnectError():
            return f"could not be connected to: {_system_reason(exc)}"
        case OSError():
            return f"was not found: {exc.strerror or 'its name could not be looked up'}"
        case _ if exchange.status_code is not None:
            return f"answered {named(exchange.status_code)} and broke off before its end"
        case httpcore.RemoteProtocolError(__cause__=None):
            return "closed the connection without an answer"
        case httpcore.RemoteProtocolError():
            return "answered with something other than HTTP"
        case httpcore.LocalProtocolError():
            return "was sent nothing: a header of the callback is none"
        case _:
            return "broke the connection off without an answer"


def named(status_code: int) -> str:
    """`503 Service Unavailable`; a number alone where the standard has no name for it."""
    try:
        return f"{status_code} {HTTPStatus(status_code).phrase}"
    except ValueError:
        return str(status_code)


def _system_reason(exc: BaseException) -> str:
    """What the system said, found below the libraries' own exceptions."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__
    return "the system gave no reason"
