"""The outputs of a run, below its strip, in the cell that waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from .. import trail
from ..outputs.decoding import Display
from ..protocol.events import Output
from . import rich
from .text import TextFeed


class Body(Protocol):
    """A place for the outputs of one run. Nothing appears before `publish`."""

    def add_text(self, event: Output) -> None:
        """Take text."""

    def show(self, item: Display) -> None:
        """Show a MIME bundle, or replace what was shown under its id."""

    def clear(self, *, wait: bool) -> None:
        """Empty the place; with `wait`, when the next output comes."""

    def due_in_s(self) -> float | None:
        """Return the seconds until `publish` is due, 0.0 for now; None if nothing waits."""

    def publish(self) -> None:
        """Show the text that waits."""

    def close(self) -> None:
        """Show what is left. Nothing comes after it."""

    @property
    def is_full(self) -> bool:
        """True when further text waits for the end."""


class CellBody:
    """Ordinary outputs, as the cell's own prints and displays would make them.

    Args:
        run_id: returns the run's id, which may become known only with the first output.
        mark: the run's; it keeps the display ids of its program apart from other runs'.
        max_lines, max_bytes: see `TextFeed`.
        on_cleared: called when the program has emptied the cell, strip and all.
    """

    def __init__(
        self,
        run_id: Callable[[], str],
        mark: str,
        *,
        max_lines: int,
        max_bytes: int,
        on_cleared: Callable[[], None],
    ) -> None:
        self._run_id = run_id
        self._mark = mark
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._on_cleared = on_cleared
        self._feed: TextFeed | None = None
        self._clears = False

    def add_text(self, event: Output) -> None:
        self._make_way()
        if self._feed is None:
            self._feed = TextFeed(
                self._run_id(), max_lines=self._max_lines, max_bytes=self._max_bytes
            )
        self._feed.add(event)

    def show(self, item: Display) -> None:
        if not item.is_update:
            self._make_way()
        self.publish()
        where = item.display_id and f"{self._mark}-{item.display_id}"
        rich.publish(replace(item, display_id=where))
        trail.mark("client", self._run_id(), "displayed", types=len(item.data))

    def clear(self, *, wait: bool) -> None:
        self._clears = True
        if not wait:
            self._make_way()

    def _make_way(self) -> None:
        if not self._clears:
            return
        self._clears = False
        self.close()
        self._feed = None
        rich.clear()  # the strip comes next
        self._on_cleared()

    def due_in_s(self) -> float | None:
        return self._feed.due_in_s() if self._feed is not None else None

    def publish(self) -> None:
        if self._feed is not None:
            self._feed.publish()

    def close(self) -> None:
        if self._feed is not None:
            self._feed.close()

    @property
    def is_full(self) -> bool:
        return self._feed is not None and self._feed.is_full
