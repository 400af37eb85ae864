"""A request to an address of this user -> a callback in the store, and a status for the reply.

Only the rules, no HTTP. A receiver calls `admit` after the headers, `feed` with each piece of the
body, and `finish` at its end. A status before the end is final: the rest is not read.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus

from ..callbacks.events import CallbackEvent, read
from ..exceptions import InvalidCallback
from ..protocol.callbacks import ID_HEADER, MAX_BODY_BYTES, TIMESTAMP_HEADER
from .store import Address, InboxStore, is_taken

#: Headers of a request that a page sends, which no sender of callbacks uses.
_OF_BROWSERS = ("origin", "sec-fetch-site")


class Reception:
    """One request.

    Args:
        secret: the end of its path.
        headers: as they came: names in any case, some perhaps more than once.

    Attributes:
        event: the callback, once it has been kept for the first time.
    """

    def __init__(
        self, inbox: InboxStore, method: str, secret: str, headers: Iterable[tuple[str, str]]
    ) -> None:
        self._inbox = inbox
        self._method = method
        self._secret = secret
        pairs = [(name.lower(), value) for name, value in headers]
        self._headers = dict(pairs)
        self._counts = Counter(name for name, _ in pairs)
        self._body = bytearray()
        self._address: Address | None = None
        self.event: CallbackEvent | None = None

    def admit(self) -> HTTPStatus | None:
        """Return the status that refuses the headers; None to go on with the body.

        The secret is checked last, so that no other refusal tells whether it is right.
        """
        if self._method != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED
        if any(name in self._headers for name in _OF_BROWSERS):
            return HTTPStatus.FORBIDDEN
        if any(self._counts[name] > 1 for name in (ID_HEADER, TIMESTAMP_HEADER)):
            return HTTPStatus.BAD_REQUEST  # as `verify` has it
        length = self._headers.get("content-length", "0")
        if length.isdecimal() and int(length[:10]) > MAX_BODY_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        self._address = address = self._inbox.find(self._secret)
        if address is None:
            return HTTPStatus.NOT_FOUND
        # Another process may take over a run. A callback to a kernel that was killed before it
        # could retire its address would never be seen: let the sender know.
        is_heard = address.tag is not None or is_taken(address.poke_port)
        return None if is_heard else HTTPStatus.NOT_FOUND

    def feed(self, piece: bytes) -> HTTPStatus | None:
        """Take a piece of the body, and return the status that refuses it; None to go on."""
        if len(self._body) + len(piece) > MAX_BODY_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        self._body += piece
        return None

    def finish(self) -> HTTPStatus:
        """Keep the callback, tell the process that waits for it, and return the status.

        Raises:
            OSError, sqlite3.Error: it cannot be kept; a sender that is told so tries again.
        """
        address = self._address
        if address is None:
            raise RuntimeError("finish() comes after an admit() that returned None")
        body = bytes(self._body)
        try:
            event = read(body, self._headers)
        except InvalidCallback:
            return HTTPStatus.BAD_REQUEST
        if event.run_id is None and address.tag is None:
            return HTTPStatus.BAD_REQUEST  # nothing says which run it is about
        if self._inbox.add(address, event, body):
            self.event = event
        # Also for a callback that has come before: its receiver may have died between add and poke.
        _poke(address.poke_port)
        return HTTPStatus.NO_CONTENT


def _poke(port: int) -> None:
    """Tell a process to look into the inbox; the process may have ended."""
    # The callback is kept, even if no process can be told of it now.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as poker,
    ):
        poker.sendto(b"", ("127.0.0.1", port))
