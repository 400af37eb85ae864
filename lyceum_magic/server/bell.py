"""A signal to many waiters: they listen, look, and only then wait."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes all listeners each time it rings.

    Call `listen()` before you look at what the bell is about: a change between the look and the
    wait has then already set the event that you wait for.
    """

    def __init__(self) -> None:
        self._next_ring = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """Return the event that the next ring sets."""
        return self._next_ring

    def ring(self) -> None:
        self._next_ring.set()
        self._next_ring = asyncio.Event()
