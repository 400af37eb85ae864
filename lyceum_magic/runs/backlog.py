"""A run's news for one reader: from the loop thread to the thread that shows them.

Bounded: while more than a few megabytes are unread, the follower waits, and with it, by TCP, the
server. So a flood of output takes no memory here.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable

from ..client.stream import Notice, Recovered
from ..outputs.decoding import Decoded
from ..protocol.events import Finished, Progress

MAX_PENDING_CHARACTERS = 4_000_000

#: The news that a cell hears of its run.
News = Decoded | Progress | Finished | Notice | Recovered


class Backlog:
    """A bounded queue: `put` on the loop thread, `get` on any one other thread.

    The reader must close it when it stops reading, because `put` waits for room.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # where `put` is called
        self._room = asyncio.Event()
        self._room.set()
        self._items: deque[News] = deque()
        self._characters = 0
        self._is_full = False
        self._closed = False
        self._filled = threading.Condition()

    async def put(self, items: Iterable[News], characters: int = 0) -> None:
        """Add items, and wait while too much is unread.

        Args:
            characters: of the program's output that the items were decoded from.
        """
        self.add(items, characters)
        await self._room.wait()

    def add(self, items: Iterable[News], characters: int = 0) -> None:
        """Add items, as `put` does, even if there is no room."""
        with self._filled:
            if self._closed:
                return
            self._loop = asyncio.get_running_loop()
            self._items += items
            self._characters += characters
            self._is_full = self._characters > MAX_PENDING_CHARACTERS
            if self._is_full:
                self._room.clear()
            self._filled.notify()

    def get(self, timeout_s: float | None = None) -> list[News]:
        """Wait for items, and return all that have come.

        The list is empty after `timeout_s`, after `wake`, and once the backlog is closed.
        """
        with self._filled:
            if not self._items and not self._closed:
                self._filled.wait(timeout_s)
            if self._is_full and not self._closed:
                # First, and as often as it takes: an interrupt may come at any line here.
                self._on_loop(self._make_room)
            items, self._items = self._items, deque()
            self._characters = 0
        return list(items)

    def _on_loop(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(function)

    def _make_room(self) -> None:
        with self._filled:
            self._is_full = False
        self._room.set()

    def wake(self) -> None:
        """Let a `get` that waits return; may be called from a signal handler."""
        with self._filled:  # the lock is reentrant: the handler may have interrupted its holder
            self._filled.notify()

    @property
    def is_drained(self) -> bool:
        """True once the backlog is closed and has been read."""
        with self._filled:
            return self._closed and not self._items

    def close(self) -> None:
        """Take no more items, and let a `put` or `get` that waits go on."""
        with self._filled:
            if self._closed:
                return  # its loop may have ended since
            self._on_loop(self._room.set)
            self._closed = True
            self._filled.notify()

    @property
    def is_closed(self) -> bool:
        """True once no more items are taken."""
        with self._filled:
            return self._closed
