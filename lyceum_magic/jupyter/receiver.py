"""The receiver in Jupyter Server, at `{base_url}lyceum/callbacks/<secret>`.

It is the one address there that asks for no token, because its path is the secret. So the path must
not reach a log, whatever becomes of the request.
"""

from __future__ import annotations

import asyncio
import atexit
import re
import sqlite3
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.routing import Matcher, Rule
from tornado.web import Finish, stream_request_body

from ..folders import callback_folder
from ..inbox.jupyter_servers import announce
from ..inbox.loopback import PATH
from ..inbox.receiving import Reception
from ..inbox.store import InboxStore

#: The event that tells pages of an arrival; they ask the API for more.
EVENT = "urn:lyceum-magic:callback:1"
_EVENT_SCHEMA = {
    "$id": EVENT,
    "version": "1",
    "title": "A callback of Lyceum has come in",
    "description": "A run has ended, says a sender. It is a hint: read the run again.",
    "type": "object",
    "properties": {
        "execution_id": {"type": ["string", "null"], "description": "the run's id"},
        "status": {"type": ["string", "null"], "description": "how it ended, says the sender"},
    },
    "required": ["execution_id", "status"],
    "additionalProperties": False,
}
#: The length from which a name looks like a secret: `token_urlsafe(32)` has 43 characters.
_SECRET_CHARACTERS = 40
#: The setting of a server's web application that says that it has the receiver.
_LOADED = "lyceum_magic_receives_callbacks"
_REACHED_BY_LOOPBACK = ("", "*", "0.0.0.0", "::", "127.0.0.1", "localhost")


def load(app: Any) -> None:
    """Add the receiver to a Jupyter server, and let its kernels know; a second call does nothing.

    A server is told twice to load it where an earlier version has left its configuration, which
    names `lyceum_magic.server_extension`, beside that of this one.
    """
    if app.web_app.settings.get(_LOADED):
        return
    app.web_app.settings[_LOADED] = True
    folder = callback_folder()
    try:
        inbox = InboxStore(folder)
        inbox.prune()
    except (OSError, sqlite3.Error) as exc:
        app.log.warning("lyceum_magic takes no callbacks: %s cannot be used (%s)", folder, exc)
        return
    app.event_logger.register_event_schema(_EVENT_SCHEMA)
    base = url_path_join(app.base_url, PATH)
    facts = {"inbox": inbox, "base": base}
    app.web_app.add_handlers(".*$", [Rule(_MeantForUs(base), CallbackHandler, facts)])
    # The port is known when the server has begun to serve.
    app.io_loop.add_callback(_announce, app, folder)


def _announce(app: Any, folder: Path) -> None:
    # Where senders on this machine do not get through, kernels have receivers of their own.
    url = None
    if not app.sock and not app.certfile and app.ip in _REACHED_BY_LOOPBACK:
        port = urlsplit(app.local_url).port
        url = f"http://127.0.0.1:{port}{url_path_join(app.base_url, PATH)}"
    try:
        path = announce(folder, url)
    except OSError as exc:
        app.log.warning("lyceum_magic: kernels are not told of this server (%s)", exc)
        return
    atexit.register(path.unlink, missing_ok=True)


class _MeantForUs(Matcher):  # type: ignore[misc]
    """The paths that may have been meant for this receiver, in any spelling.

    A wrong one is answered with 404 here: another handler would refuse and log it. A folder of the
    user may have the same name, and its files are Jupyter's. So at any other address than the
    receiver's own, a path is taken only if it has what looks like a secret.

    Args:
        base: the path of the receiver, which ends with a slash.
    """

    def __init__(self, base: str) -> None:
        self._ours = re.compile(f"{re.escape(_plain(base))}(/|$)")
        self._lost = re.compile(rf"{re.escape(PATH)}[\w-]{{{_SECRET_CHARACTERS},}}")

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        path = _plain(request.path)
        return {} if self._ours.match(path) or self._lost.search(path) else None


def _plain(path: str) -> str:
    return re.sub(r"[/\\]+", "/", unquote(path).lower()).rstrip("/")


@stream_request_body
class CallbackHandler(JupyterHandler):  # type: ignore[misc]
    """The handler of a callback. Only `POST` is open; the rules are those of `Reception`."""

    def initialize(self, inbox: InboxStore, base: str) -> None:
        self._inbox = inbox
        self._base = base
        self._reception: Reception | None = None

    async def prepare(self) -> None:
        # First, because it checks the Host header, and may refuse.
        await super().prepare()
        # Any number of slashes at the beginning: many senders join a base and a path so.
        path = f"/{self.request.path.lstrip('/')}"
        secret = path.removeprefix(self._base) if path.startswith(self._base) else ""
        headers = self.request.headers.get_all()
        self._reception = Reception(self._inbox, self.request.method or "", secret, headers)
        # In a thread: the database may wait for another process.
        await self._refuse(await self._kept(self._reception.admit))

    async def data_received(self, chunk: bytes) -> None:
        if self._reception is not None and not self._finished:
            await self._refuse(self._reception.feed(chunk))

    @allow_unauthenticated  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        assert self._reception is not None  # prepare() has made it
        status = await self._kept(self._reception.finish) or HTTPStatus.NO_CONTENT
        await self._reply(status)
        if (event := self._reception.event) is not None:
            told = {"execution_id": event.run_id, "status": event.state and event.state.value}
            self.event_logger.emit(schema_id=EVENT, data=told)

    async def _kept(self, step: Any) -> HTTPStatus | None:
        try:
            status: HTTPStatus | None = await asyncio.to_thread(step)
        except (OSError, sqlite3.Error):
            return HTTPStatus.SERVICE_UNAVAILABLE  # the sender tries again
        return status

    async def _refuse(self, status: HTTPStatus | None) -> None:
        if status is not None:
            await self._reply(status)

    async def _reply(self, status: HTTPStatus) -> None:
        self.set_status(status)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", "POST")
        if status is not HTTPStatus.NO_CONTENT:
            self.clear_header("Content-Type")
            self.set_header("Connection", "close")
        try:
            await self.finish()
        except StreamClosedError:
            return  # it has hung up

    # The methods below replace what Jupyter and Tornado do with any request.

    def check_xsrf_cookie(self) -> None:
        """Check nothing: no cookie is used, so no request can be forged with one."""

    def set_cors_headers(self) -> None:
        """Set none: pages of other origins are kept out, whatever the server allows elsewhere."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write nothing: Jupyter's error page would quote the path."""
        self.finish()

    def _log(self) -> None:
        """Log nothing: the access log would have the path."""

    def _request_summary(self) -> str:
        return f"{self.request.method} {PATH}..."

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        # Neither the request, which is its path, nor the traceback, whose error may quote it.
        if typ is not None and not issubclass(typ, Finish) and not hasattr(value, "status_code"):
            self.log.error("lyceum_magic: a callback failed with %s", typ.__name__)


for _method in ("get", "head", "put", "patch", "delete", "options"):
    # Otherwise Jupyter redirects requests without a token to its login page, with the path.
    setattr(CallbackHandler, _method, CallbackHandler.post)
