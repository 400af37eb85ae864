"""HTTP connections of the server: uvicorn's, with a limit for the time that a request may take.

A client that sends half a request and then nothing would hold its connection for ever.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

#: The longest time for the head of a request, from its first byte or from the connection.
HEAD_S = 20.0


class Connection(H11Protocol):
    """A connection that is closed if the head of a request does not arrive in time.

    The same limit ends the rest of a body that the server has answered without reading it.
    """

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._due = self.loop.call_later(HEAD_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._awaits_client():
            self._forget_limit()
        elif self._due is None:
            self._due = self.loop.call_later(HEAD_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_limit()
        super().connection_lost(exc)

    def _awaits_client(self) -> bool:
        """Return whether part of a head has come, or of a body that is not read any more."""
        if self.conn.their_state is h11.IDLE:
            return bool(self.conn.trailing_data[0])
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    def _forget_limit(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
