"""A place in a cell that can be filled again and again, from any thread and after the cell."""

from __future__ import annotations

import contextvars
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Slot:
    """A display of one id. Made in the cell it belongs to."""

    def __init__(self) -> None:
        self._display_id = uuid.uuid4().hex
        # A kernel finds the cell of a message in a context variable. What is sent through this
        # copy belongs to this cell, whichever runs by then.
        self._context = contextvars.copy_context()
        self._filled: tuple[dict[str, Any], dict[str, Any]] | None = None

    def reserve(self) -> None:
        """Take the place, after the cell's outputs so far; nothing is visible yet."""
        self.in_cell(self._publish, {"text/html": "", "text/plain": ""}, {}, update=False)

    def fill(self, bundle: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        """Put a MIME bundle in the place, instead of the one that is there."""
        self._filled = bundle, metadata or {}
        # The id finds the display from any cell; nbclient listens only to the one that runs.
        try:
            self._publish(bundle, metadata or {}, update=True)
        except LookupError:  # ipykernel 7.0 knows no cell on other threads
            self.in_cell(self._publish, bundle, metadata or {}, update=True)

    def refill(self) -> None:
        """Show the bundle once more, for a client that ignored it: nbclient between two cells."""
        if self._filled is not None:
            self.fill(*self._filled)

    def show_here(self) -> None:
        """Show the bundle in the present cell, if its own cell has no place for it."""
        if self._filled is not None:
            here = Slot()
            here.reserve()
            here.fill(*self._filled)

    def in_cell(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function whose messages belong to the cell."""
        # A context can be entered once at a time; a fresh copy always can.
        return self._context.copy().run(function, *args, **kwargs)

    def _publish(self, bundle: dict[str, Any], metadata: dict[str, Any], *, update: bool) -> None:
        from IPython.display import publish_display_data

        transient = {"display_id": self._display_id}
        publish_display_data(bundle, metadata, transient=transient, update=update)
