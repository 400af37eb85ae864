"""Requests on their way out: one pooled httpx client for an account, with retries on reads.

Loopback servers are reached past any proxy; other hosts by the proxy variables of the environment.
"""

from __future__ import annotations

import logging
import ssl
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpcore
from httpx_retries import Retry, RetryTransport

from ..exceptions import ConfigError
from ..protocol.addresses import is_loopback
from .lean_httpx import httpx

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 30.0
#: Seconds for which an idle connection is kept for the next cell: load balancers drop theirs after
#: a minute.
KEEPALIVE_S = 55.0

#: Rules for reads: try again after a broken connection, 429 (`Retry-After` honoured) and 5xx.
RETRY_READS = Retry(
    total=4,
    allowed_methods=["GET", "HEAD"],
    status_forcelist=[429, 500, 502, 503, 504],
    backoff_factor=0.25,
    max_backoff_wait=30.0,
    total_timeout=60.0,
)

# httpx writes the whole URL of each request to its log at INFO; a stream's URL is a secret.
logging.getLogger("httpx").addFilter(lambda record: record.levelno > logging.INFO)


#: Coroutine function that checks the other end of a new connection, and raises if no request may be
#: sent there.
ProveOtherEnd = Callable[[httpcore.AsyncNetworkStream], Awaitable[None]]


def build_http_client(
    base_url: str,
    *,
    check_connection: Callable[[], None] | None = None,
    prove_other_end: ProveOtherEnd | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    retry: Retry = RETRY_READS,
) -> httpx.AsyncClient:
    """Return the client through which every byte of one account leaves.

    Args:
        check_connection: called before each request; raises httpx.ConnectError if the server is
            not the trusted one any more (see `local_server.guard`).
        prove_other_end: called with each new connection, for http without a proxy: with https the
            certificate is the proof, and the user trusts their proxy.
        transport: stands in for the network in tests.
    """
    inner = transport or _ByHost(prove_other_end)
    if check_connection is not None:
        inner = _Checked(inner, check_connection)
    return httpx.AsyncClient(
        base_url=base_url,
        transport=RetryTransport(inner, retry=retry),
        timeout=httpx.Timeout(REQUEST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        follow_redirects=False,  # a redirect would carry the key to wherever it points
    )


class _Checked(httpx.AsyncBaseTransport):
    """A transport that checks before every request that the server is still the trusted one."""

    def __init__(self, inner: httpx.AsyncBaseTransport, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._check()
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Proved(httpx.AsyncBaseTransport):
    """A transport that sends nothing over a connection before its other end has proved itself.

    A proof on a connection of its own would say nothing about the next connection.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, prove_other_end: ProveOtherEnd) -> None:
        self._inner = inner
        self._prove_other_end = prove_other_end
        self._has_proved = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            request.extensions = {**request.extensions, "trace": self._on_event}
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _on_event(self, name: str, info: dict[str, Any]) -> None:
        """Handle one of httpcore's trace events of a request, before the request goes on.

        Source: https://www.encode.io/httpcore/extensions/#trace
        """
        if name == "connection.connect_tcp.complete":
            stream: httpcore.AsyncNetworkStream = info["return_value"]
            try:
                await self._prove_other_end(stream)
            except BaseException:
                with anyio.CancelScope(shield=True):  # only this code knows it so far
                    await stream.aclose()
                raise
            self._has_proved = True
        elif name.startswith("http") and not self._has_proved:
            raise RuntimeError("httpcore sends a request and has not told of its connection")


class _ByHost(httpx.AsyncBaseTransport):
    """A transport that chooses for each request between a direct connection and the proxy.

    httpx reads the proxy variables only when it makes its own transports; ours, with retries,
    replaces them.
    """

    def __init__(self, prove_other_end: ProveOtherEnd | None) -> None:
        self._prove_other_end = prove_other_end
        # No limit: each run holds one connection for its stream.
        self._limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_S
        )
        #: By proxy and by whether a certificate is checked.
        self._ways: dict[tuple[str | None, bool], httpx.AsyncBaseTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxy = _proxy_for(request.url)
        is_plain = request.url.scheme == "http" and not (proxy or "").startswith("https:")
        return await self._way(proxy, is_plain).handle_async_request(request)

    def _way(self, proxy: str | None, is_plain: bool) -> httpx.AsyncBaseTransport:
        if (proxy, is_plain) not in self._ways:
            # To read the bundle of certificates takes longer than all else of a first cell's way.
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else True
            try:
                way: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(
                    proxy=proxy, limits=self._limits, trust_env=proxy is not None, verify=verify
                )
            except (ValueError, httpx.InvalidURL, ImportError):
                # The value may hold a password, so it is not quoted.
                raise ConfigError(
                    "The proxy variable (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY) should be a URL "
                    "such as http://proxy.example:3128, and is not; correct or unset it."
                ) from None
            if proxy is None and self._prove_other_end is not None:
                way = _Proved(way, self._prove_other_end)
            self._ways[proxy, is_plain] = way
        return self._ways[proxy, is_plain]

    async def aclose(self) -> None:
        for way in self._ways.values():
            await way.aclose()


def _proxy_for(url: httpx.URL) -> str | None:
    if is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    return proxy or None
