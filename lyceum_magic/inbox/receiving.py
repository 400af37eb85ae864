"""A request at an address of ours -> kept, and a status; the rules, and no web framework.

Whoever speaks HTTP asks `admit` when the headers are there, feeds the body piece by piece, and asks
`finish` at its end. A reply that comes before the end is final: the rest is not read.
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

#: What a browser says where a page sends a request, and no sender of callbacks does.
_OF_BROWSERS = ("origin", "sec-fetch-site")


class Reception:
    """One request.

    Args:
        secret: what its path ends with.
        headers: as they came: names in any case, some perhaps several times.

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
        """The refusal that the headers deserve; None if the body is wanted.

        What tells a right secret from a wrong one comes last.
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
        # Another process may take over a run. What came for a kernel that was killed, and could not
        # retire, would be seen by nobody: let its sender know.
        is_heard = address.tag is not None or is_taken(address.poke_port)
        return None if is_heard else HTTPStatus.NOT_FOUND

    def feed(self, piece: bytes) -> HTTPStatus | None:
        """Takes a piece of the body; the refusal if that is too much."""
        if len(self._body) + len(piece) > MAX_BODY_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        self._body += piece
        return None

    def finish(self) -> HTTPStatus:
        """Keeps the callback, tells the process that waits for it, and gives the reply.

        Raises:
            OSError, sqlite3.Error: it cannot be kept; the sender, told so, tries again.
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
        # Again with one that has come before: its receiver may have died between add and poke.
        _poke(address.poke_port)
        return HTTPStatus.NO_CONTENT


def _poke(port: int) -> None:
    """Lets a process look into the inbox; there may be none any more."""
    # What is kept is kept, though nobody can be told of it now.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as poker,
    ):
        poker.sendto(b"", ("127.0.0.1", port))
