"""The users at the other ends of loopback connections: a listener in, connections of one user out.

Every user of a machine can connect to its loopback addresses, and every connection costs the server
a descriptor before its first byte. The kernel knows which user made the other end, and shows it in
`/proc/net/tcp`. So a connection of another user is closed before it is read.

An end is looked up by its exact addresses, in the table of this network namespace. Both ends of a
loopback connection are in one namespace, so the other end is in the table, whatever container or
user namespace its process lives in; a user without a number in our namespace shows as `nobody`. If
an end is not in the table, or no process holds it any more, the connection is closed: the kernel
shows such an end as root's. On systems without this table (macOS, WSL 1) every connection is let
in.

Source: proc(5), `/proc/net/tcp`; `net/ipv4/tcp_ipv4.c` of Linux, `get_tcp4_sock`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import struct
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

#: `127.0.0.1` and a port, as the kernel gives them for a connection.
Address = tuple[str, int]

#: IPv6 too: such a socket can connect to an IPv4 address, and is listed only there.
_TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
#: A line after its own address and the remote one: state, queues, timer, retransmits, user,
#: timeouts, inode. An inode of 0 means that no process holds the socket any more.
_REST = rb" [0-9A-F]{2} \S+ \S+ \S+ +(\d+) +\d+ (\d+) "
#: Connections that are looked up together. asyncio must ask for more than this at a time. A look at
#: the table costs as much as some hundred connections. A larger batch would keep other work
#: waiting, and use up the descriptors of a server that has few.
BATCH = 256
#: The kernel may leave out a line while others come and go. A second look finds it.
_LOOKS = 2
_ROOT = 0
_READ_BYTES = 1 << 16
#: A reset instead of an orderly end, which would stay in the kernel for a minute.
_RESET = struct.pack("ii", 1, 0)


class ConnectionTable:
    """The kernel's TCP sockets of this network namespace.

    Its files stay open, so that a process without free descriptors can still look. Close it.
    """

    def __init__(self, files: Sequence[int]) -> None:
        self._files = list(files)

    @classmethod
    def open(cls) -> ConnectionTable | None:
        """Return the table of this system; None if it has no such table."""
        files = []
        for path in _TABLES:  # a kernel without IPv6 has no second one
            with contextlib.suppress(FileNotFoundError, PermissionError):
                files.append(os.open(path, os.O_RDONLY))
        table = cls(files)
        if table._lists_connections():
            return table
        table.close()
        return None

    def owners(self, here: Address, peers: Collection[Address]) -> dict[Address, int]:
        """Return the user of each of the sockets `peers` that are connected to `here`.

        Sockets that are not in the table, or that no process holds, are left out.
        """
        found: dict[Address, int] = {}
        for _ in range(_LOOKS):
            for number, file in enumerate(self._files):
                wanted = {
                    _written(peer, is_ipv6=bool(number)): peer
                    for peer in peers
                    if peer not in found
                }
                if not wanted:
                    return found
                for own, uid in _lines(_read(file), _written(here, is_ipv6=bool(number))):
                    if (peer := wanted.get(own)) is not None:
                        found[peer] = uid
        return found

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def _lists_connections(self) -> bool:
        """Return whether the table shows an own connection: on some systems it stays empty."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = listener.getsockname()
            with socket.create_connection(here) as connection:
                own = connection.getsockname()
                return self.owners(here, [own]) == {own: os.geteuid()}


class OwnUsersListener(socket.socket):
    """A listening socket that accepts only connections of this user and of root.

    Others are closed before a byte of them is read. Root is let in, since it can read the server's
    memory in any case.
    """

    _table: ConnectionTable | None = None
    _batch: deque[tuple[socket.socket, Any]] | None = None

    def listen(self, backlog: int = 0) -> None:
        """Listen with the longest queue possible, and begin to check who connects."""
        # asyncio's `backlog` is the number of connections that it takes at a time.
        super().listen(socket.SOMAXCONN)
        if self._table is None:
            self._table = ConnectionTable.open()

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection of this user.

        All waiting connections are looked up together: a stranger who opens thousands of
        connections makes the kernel's table long, and it is not read once for each of them.

        Raises:
            BlockingIOError: No connection waits, or the batch is used up. asyncio asks again as
                long as connections wait, and does its other work in between.
        """
        if self._table is None:
            return super().accept()
        if self._batch is None:
            self._batch = deque(self._own(self._table, list(self._waiting())))
        if not self._batch:
            self._batch = None
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self._batch.popleft()

    def close(self) -> None:
        if self._table is not None:
            self._table.close()
        for connection, _ in self._batch or ():
            connection.close()
        self._batch = None
        super().close()

    def _waiting(self) -> Iterator[tuple[socket.socket, Any]]:
        for number in range(BATCH):
            try:
                yield super().accept()
            except ConnectionAbortedError:
                continue
            except OSError:
                # No connection waits any more, or no descriptors are left.
                if not number:
                    raise
                return

    def _own(
        self, table: ConnectionTable, accepted: Sequence[tuple[socket.socket, Any]]
    ) -> Iterator[tuple[socket.socket, Any]]:
        owners = table.owners(self.getsockname(), [address for _, address in accepted])
        for connection, address in accepted:
            if owners.get(address) in (os.geteuid(), _ROOT):
                yield connection, address
            else:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.close()


def _read(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    pieces = []
    while piece := os.read(file, _READ_BYTES):
        pieces.append(piece)
    return b"".join(pieces)


def _lines(table: bytes, remote: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the own address and the user of each held socket that is connected to `remote`."""
    for match in re.finditer(rb": ([0-9A-F]+:[0-9A-F]{4}) " + remote + _REST, table):
        if match[3] != b"0":
            yield match[1], int(match[2])


def _written(address: Address, *, is_ipv6: bool) -> bytes:
    """Return an IPv4 address and port in the tables' form: words in the machine's byte order."""
    host, port = address
    packed = socket.inet_aton(host)
    if is_ipv6:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return b"".join(b"%08X" % word for word in words) + b":%04X" % port
