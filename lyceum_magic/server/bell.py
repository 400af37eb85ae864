"""How many waiters learn of one change: they listen, look, and only then wait."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes everybody who listens, each time it rings.

    `listen()` comes before looking at what the bell is about: a change between the look and the
    wait has then already set the event that is waited for.
    """

    def __init__(self) -> None:
        self._next_ring = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """The event that the next ring sets."""
        return self._next_ring

    def ring(self) -> None:
        self._next_ring.set()
        self._next_ring = asyncio.Event()
