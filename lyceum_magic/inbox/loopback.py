"""A receiver on a loopback port, for processes that were not started by a Jupyter server.

One request a connection, parsed by h11 on the loop thread. Nothing of a request is ever logged,
because its path is a secret. uvicorn would be shorter, but it closes no connection that sends
nothing, accepts (and answers 503) beyond its limit instead of leaving connections to the system,
and logs what a request raises, with the traceback.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from http import HTTPStatus

import anyio
import h11
from anyio.abc import SocketListener, SocketStream

from .receiving import Reception
from .store import InboxStore

logger = logging.getLogger(__name__)

#: The path before the secret of an address, here as in a Jupyter server.
PATH = "/lyceum/callbacks/"
#: Seconds from the first byte of a request to the last of its reply.
LIMIT_S = 15.0
MAX_CONNECTIONS = 32
#: The pause after a connection could not be accepted, perhaps for want of a descriptor.
AGAIN_S = 0.5
_PIECE_BYTES = 16 * 1024


class LoopbackReceiver:
    """A receiver that serves while `serve` runs."""

    def __init__(self, inbox: InboxStore) -> None:
        self._inbox = inbox
        self.port = 0

    @property
    def url(self) -> str:
        """The part of an address before its secret."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Receive until cancelled; the port is known when the task has started."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
        self._hosts = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        self._room = anyio.Semaphore(MAX_CONNECTIONS)
        task_status.started()
        async with listener, anyio.create_task_group() as connections:
            [one] = listener.listeners
            assert isinstance(one, SocketListener)
            while True:
                # Before it is accepted: a connection that waits for room waits in the system, and
                # takes no descriptor from the kernel's other work.
                await self._room.acquire()
                connections.start_soon(self._handle, await _accepted(one))

    async def _handle(self, stream: SocketStream) -> None:
        try:
            with anyio.move_on_after(LIMIT_S):
                async with stream:
                    await _Connection(stream, self._hosts, self._inbox).answer()
        except (OSError, anyio.BrokenResourceError, h11.ProtocolError):
            pass  # a sender that hangs up or sends no HTTP is not answered
        except Exception as exc:  # noqa: BLE001 - the top of a connection: the others go on
            # Not the text, which may quote the path.
            logger.error("a callback failed with %s", type(exc).__name__)
        finally:
            self._room.release()


async def _accepted(listener: SocketListener) -> SocketStream:
    """Return the next connection, as soon as one can be accepted."""
    is_said = False
    while True:
        try:
            return await listener.accept()
        except OSError as exc:
            if not is_said:
                logger.warning("no callback can be received now: %s", exc)
            is_said = True
            await anyio.sleep(AGAIN_S)


class _Connection:
    """One connection, with one request."""

    def __init__(self, stream: SocketStream, hosts: set[str], inbox: InboxStore) -> None:
        self._stream = stream
        self._hosts = hosts
        self._inbox = inbox
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_PIECE_BYTES)

    async def answer(self) -> None:
        """Read the request, reply, and hang up."""
        try:
            status = await self._status()
        except h11.RemoteProtocolError as exc:
            status = HTTPStatus(exc.error_status_hint)
        except (OSError, sqlite3.Error):
            status = HTTPStatus.SERVICE_UNAVAILABLE  # not kept: the sender tries again
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [("Connection", "close"), ("X-Content-Type-Options", "nosniff")]
        if status is not HTTPStatus.NO_CONTENT:
            headers.append(("Content-Length", "0"))
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "POST"))
        reply = h11.Response(status_code=status, reason=status.phrase, headers=headers)
        data = self._http.send(reply) or b""
        await self._stream.send(data + (self._http.send(h11.EndOfMessage()) or b""))
        await self._hang_up()

    async def _hang_up(self) -> None:
        """Let the reply arrive: a socket closed with unread bytes would take it back."""
        await self._stream.send_eof()
        left = 2 * _PIECE_BYTES * MAX_CONNECTIONS
        with anyio.move_on_after(1), contextlib.suppress(anyio.EndOfStream):
            while left > 0:
                left -= len(await self._stream.receive(_PIECE_BYTES))

    async def _status(self) -> HTTPStatus:
        request = await self._next_event()
        if not isinstance(request, h11.Request):
            raise h11.RemoteProtocolError("no request", HTTPStatus.BAD_REQUEST)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers
        ]
        if dict(headers).get("host", "").lower() not in self._hosts:
            return HTTPStatus.FORBIDDEN  # a page that has made its own name mean this machine
        method = request.method.decode("latin-1")
        path = request.target.decode("latin-1").partition("?")[0]
        if not path.startswith(PATH):
            return HTTPStatus.NOT_FOUND
        reception = Reception(self._inbox, method, path.removeprefix(PATH), headers)
        # The database may wait for another process, and the loop has other runs to follow.
        refusal = await anyio.to_thread.run_sync(reception.admit)
        while refusal is None:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                refusal = reception.feed(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return await anyio.to_thread.run_sync(reception.finish)
            else:
                raise h11.RemoteProtocolError("the body broke off", HTTPStatus.BAD_REQUEST)
        return refusal

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._stream.send(self._http.send(go_on) or b"")
            try:
                self._http.receive_data(await self._stream.receive(_PIECE_BYTES))
            except anyio.EndOfStream:
                self._http.receive_data(b"")
        return event
