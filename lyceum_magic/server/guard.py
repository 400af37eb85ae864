"""The check before every route: who may ask, from where, and how much.

A server on loopback that executes code can be reached by every web page that its user opens, and by
every other user of the machine. So every request needs a token, taken from `Authorization` alone;
the Host header must name this server (DNS rebinding); a page of another origin is refused even if
it needs no reply; no CORS header is ever sent. The guard wraps errors and unknown paths as well, so
that no reply leaves without its headers and no route can be forgotten.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..protocol.limits import MAX_BODY_BYTES, MAX_UPLOAD_BYTES
from ..protocol.paths import HEALTH, LOGIN, REFRESH, STREAM, UPLOAD, UPLOAD_BULK
from .settings import ORG_SLUG

_REPLY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]

_UPLOADS = frozenset({UPLOAD, UPLOAD_BULK})
#: Paths where clients without a token get one. Anyone may send there, so the body must be small.
_SIGN_INS = frozenset({LOGIN, REFRESH})
_MAX_SIGN_IN_BYTES = 16 * 1024
#: Maximum seconds until the body of such a request has arrived.
_SIGN_IN_S = 20.0
_STREAM_BY_SECRET = re.compile(rf"{STREAM}/[^/]+/[^/]+")
_STREAM_BY_ID = re.compile(rf"{STREAM}/[^/]+")


class Guard:
    """ASGI middleware that refuses requests.

    Args:
        lets_in: Returns whether the content of `Authorization: Bearer` is valid.
        hosts: Every allowed value of a Host header.
        open_streams: Whether a run's id alone opens its stream.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        lets_in: Callable[[str], Awaitable[bool]],
        hosts: Collection[str],
        open_streams: bool,
    ) -> None:
        self._app = app
        self._lets_in = lets_in
        self._hosts = frozenset(host.encode() for host in hosts)
        self._origins = frozenset(b"http://" + host for host in self._hosts)
        self._open_streams = open_streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._guard(scope, receive, _with_headers(send))
        else:
            # No route speaks WebSocket, and other kinds cannot be checked as above.
            await send({"type": "websocket.close", "code": 1008})

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal := await self._refusal(scope):
            await refusal(scope, receive, send)
            return
        limit = _body_limit(scope)
        if scope["path"] in _SIGN_INS:
            receive = _hurried(receive)
        if _declared_length(scope) > limit:
            # Read to the end: a client that still writes would see an earlier reply as a reset.
            while (await receive()).get("more_body"):
                pass
            await _reply(413, _too_large(limit))(scope, receive, send)
            return
        await self._app(scope, _limited(receive, limit), send)

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        """Return the reply to a request that is refused; None lets the request in."""
        headers = _Headers(scope)
        if headers.only(b"host") not in self._hosts:
            return _reply(403, "The Host header does not name this server.")
        if not self._origins.issuperset(headers.all(b"origin")):
            return _reply(403, "Requests from pages of another origin are refused.")
        if not {b"same-origin", b"none"}.issuperset(headers.all(b"sec-fetch-site")):
            return _reply(403, "Requests from pages of another site are refused.")
        if self._needs_token(scope) and not await self._holds_token(headers):
            message = (
                "The API key is missing, wrong, switched off or expired; send "
                "`Authorization: Bearer lk_...`."
            )
            return _reply(401, message, {"WWW-Authenticate": "Bearer"})
        if not {ORG_SLUG.encode()}.issuperset(headers.all(b"x-org-slug")):
            return _reply(403, f"This server has one organisation, {ORG_SLUG!r}.")
        content_type = headers.only(b"content-type")
        if scope["path"] in _UPLOADS:
            if not content_type.lower().startswith(b"multipart/form-data"):
                return _reply(415, "An upload must be sent as Content-Type: multipart/form-data.")
        elif _has_body(headers) and not _is_json(content_type):
            return _reply(415, "The body must be JSON, sent as Content-Type: application/json.")
        return None

    def _needs_token(self, scope: Scope) -> bool:
        path = scope["path"]
        if _STREAM_BY_SECRET.fullmatch(path):
            return False  # the path carries a secret of its own, which its route compares
        if _STREAM_BY_ID.fullmatch(path):
            return not self._open_streams
        if path in _SIGN_INS and scope["method"] == "POST":
            return False
        return not (path == HEALTH and scope["method"] == "GET")

    async def _holds_token(self, headers: _Headers) -> bool:
        scheme, _, credential = headers.only(b"authorization").partition(b" ")
        token = credential.strip().decode("latin-1")
        # An empty token is refused whatever the configured keys are.
        return scheme.lower() == b"bearer" and token != "" and await self._lets_in(token)


class _Headers:
    def __init__(self, scope: Scope) -> None:
        self._pairs: list[tuple[bytes, bytes]] = scope["headers"]

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self._pairs if key == name]

    def only(self, name: bytes) -> bytes:
        """Return the value of a header; empty if it is missing or came twice."""
        values = self.all(name)
        return values[0] if len(values) == 1 else b""


def _body_limit(scope: Scope) -> int:
    if scope["path"] in _SIGN_INS:
        return _MAX_SIGN_IN_BYTES
    return MAX_UPLOAD_BYTES if scope["path"] in _UPLOADS else MAX_BODY_BYTES


def _too_large(limit: int) -> str:
    size = f"{limit // 2**20} MiB" if limit >= 2**20 else f"{limit // 2**10} KiB"
    return f"The body is larger than {size}."


def _reply(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


def _has_body(headers: _Headers) -> bool:
    lengths = headers.all(b"content-length")
    return bool(headers.all(b"transfer-encoding")) or any(length != b"0" for length in lengths)


def _is_json(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip().lower()
    return media_type == b"application/json" or (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    )


def _declared_length(scope: Scope) -> int:
    # The HTTP parser has refused lengths that are not numbers.
    return int(_Headers(scope).only(b"content-length") or 0)


def _limited(receive: Receive, limit: int) -> Receive:
    """Return `receive` with an end at the limit, for bodies of undeclared length."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                while message.get("more_body"):
                    message = await receive()
                raise HTTPException(413, _too_large(limit))
        return message

    return limited


def _hurried(receive: Receive) -> Receive:
    """Return `receive`, for which the client is gone after `_SIGN_IN_S`."""
    until = asyncio.get_running_loop().time() + _SIGN_IN_S

    async def hurried() -> Message:
        try:
            async with asyncio.timeout_at(until):
                return await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}

    return hurried


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *_REPLY_HEADERS]}
        await send(message)

    return with_headers
