"""Interpreters that a zygote forks, seen from the server; see `process.zygote`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import site
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .control import SUPERVISOR_ID
from .interpreters import Interpreter, SpawnedInterpreter, new_mark, spawn_interpreter
from .marks import kill_marked
from .process.zygote import (
    BURIED,
    BURY,
    FAILED,
    FORK,
    FORKED,
    MARK_SIZE,
    MESSAGE_BYTES,
    READY,
    ROLE,
)

logger = logging.getLogger(__name__)

#: The longest that a zygote may take for a fork, its own start included. In seconds.
PATIENCE_S = 30.0
#: The longest that it may take to end, once it is told to. In seconds.
_ENDING_S = 2.0
#: The most replies that are read at a time; other work of the loop comes between.
_MOST_REPLIES = 64


@dataclass(frozen=True, eq=False)
class ForkedInterpreter(Interpreter):
    """An interpreter that a zygote has forked, or is about to fork."""

    zygote: Zygote

    def kill(self) -> None:
        self.zygote.bury(self.mark)

    async def buried(self) -> None:
        await self.zygote.buried(self.mark)


class Zygote:
    """A process that forks interpreters. To be used in one event loop.

    Args:
        arguments: of a supervisor's command line.
        on_end: called once, when it has ended or hangs; it has to be buried then.
        patience_s: the longest that it may take for a fork, in seconds.

    Attributes:
        process: the zygote itself.
        is_ready: whether it has begun to fork.
        trouble: why it cannot fork now; empty if nothing is known against it.
        packages: what it has read of the installed packages.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        on_end: Callable[[Zygote], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.packages = installed_packages()
        self.process: SpawnedInterpreter = spawn_interpreter(
            arguments=[*arguments, ROLE], control=socket.SOCK_SEQPACKET
        )
        self.is_ready = False
        self.trouble = ""
        self._on_end = on_end
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._outgoing: deque[tuple[bytes, socket.socket | None]] = deque()
        self._ordered: dict[str, float] = {}  # mark -> when its fork was ordered
        self._watch: asyncio.TimerHandle | None = None
        # Mark -> whether the zygote has buried it; not yet known of those that may live.
        self._graves: dict[str, asyncio.Future[bool]] = {}
        self._is_retired = False
        self._ended = asyncio.Event()
        self._loop.add_reader(self.process.control, self._hear)

    def fork(self) -> ForkedInterpreter:
        """Order an interpreter, which can be handed a run at once.

        Raises:
            OSError: the machine lacks something for it.
        """
        if self._ended.is_set():
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        mark = new_mark()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._graves[mark] = self._loop.create_future()
        self._ordered[mark] = self._loop.time()
        self._send(FORK + mark.encode(), theirs)
        self._watch_orders()
        return ForkedInterpreter(ours, mark, self)

    def bury(self, mark: str) -> None:
        """Let an interpreter be killed, if it lives, and taken out of the process table."""
        if mark in self._graves and not self._ended.is_set():
            self._send(BURY + mark.encode())

    async def buried(self, mark: str) -> None:
        """Wait for the same; it must have been asked for."""
        grave = self._graves.get(mark)
        if grave is not None and not await asyncio.shield(grave):
            # Its parent is the system now, which takes it out of the table.
            await asyncio.to_thread(kill_marked, SUPERVISOR_ID, mark)

    def is_outdated(self) -> bool:
        """Return whether packages were installed or removed since it started."""
        return self.packages != installed_packages()

    def retire(self) -> None:
        """End it as soon as all that it has forked is buried. It forks no more."""
        self._is_retired = True
        self._end_if_unused()

    async def close(self) -> None:
        """End it; the runs of its interpreters go on."""
        if not self._ended.is_set():
            with contextlib.suppress(OSError):
                self.process.control.shutdown(socket.SHUT_WR)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ENDING_S):
                    await self._ended.wait()
        self._end()

    # Orders.

    def _send(self, message: bytes, passed: socket.socket | None = None) -> None:
        self._outgoing.append((message, passed))
        self._flush()

    def _flush(self) -> None:
        control = self.process.control
        while self._outgoing:
            message, passed = self._outgoing[0]
            try:
                socket.send_fds(control, [message], [passed.fileno()] if passed else [])
            except BlockingIOError:
                self._loop.add_writer(control, self._flush)
                return
            except OSError:
                # It has died, or the machine has no room for more descriptors on their way. Closed
                # below, the socket tells the run that another interpreter is needed.
                self.trouble = "not-sent"
            if passed is not None:
                passed.close()
            self._outgoing.popleft()
        self._loop.remove_writer(control)

    def _watch_orders(self) -> None:
        """Look again when the oldest order is due."""
        if self._watch is None and self._ordered:
            oldest = next(iter(self._ordered.values()))
            self._watch = self._loop.call_at(oldest + self._patience_s, self._look)

    def _look(self) -> None:
        self._watch = None
        oldest = next(iter(self._ordered.values()), float("inf"))
        if oldest + self._patience_s <= self._loop.time():
            logger.error("the process that forks interpreters hangs, and is killed")
            self._end()
        else:
            self._watch_orders()

    # Replies.

    def _hear(self) -> None:
        for _ in range(_MOST_REPLIES):
            try:
                message = self.process.control.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                message = b""
            if not message:
                self._end()
                return
            self._take(message[:1], message[1 : 1 + MARK_SIZE].decode(), message[1 + MARK_SIZE :])
            if self._ended.is_set():
                return

    def _take(self, kind: bytes, mark: str, more: bytes) -> None:
        if kind == READY:
            self.is_ready = True
            return
        if kind in (FORKED, FAILED):
            self._ordered.pop(mark, None)
        if kind == FAILED:
            self.trouble = errno.errorcode.get(int(more), "failed")
        if kind in (FAILED, BURIED) and (grave := self._graves.pop(mark, None)):
            grave.set_result(True)
            self._end_if_unused()

    # The end.

    def _end_if_unused(self) -> None:
        if self._is_retired and not self._graves:
            self._end()

    def _end(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        control = self.process.control
        self._loop.remove_reader(control)
        self._loop.remove_writer(control)
        if self._watch is not None:
            self._watch.cancel()
        for _, passed in self._outgoing:
            if passed is not None:
                passed.close()
        self._outgoing.clear()
        for grave in self._graves.values():
            grave.set_result(False)
        self._on_end(self)


def installed_packages() -> tuple[object, ...]:
    """Return what changes when packages that every interpreter finds come, go or change.

    An interpreter reads the `.pth` files of these folders only when it starts.

    Raises:
        OSError: the machine lacks something to look.
    """
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(_states(folders))


def _states(folders: Sequence[str]) -> Iterator[object]:
    gone = (FileNotFoundError, NotADirectoryError, PermissionError)
    for folder in folders:
        with contextlib.suppress(*gone), os.scandir(folder) as entries:
            yield folder, os.stat(folder).st_mtime_ns
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".pth"):
                    state = entry.stat()
                    yield entry.path, state.st_mtime_ns, state.st_size
