"""Facts of one run, as they change -> one row above the cell's output, in every front end."""

from __future__ import annotations

import time
from collections.abc import Callable

from .faces import Face, choose_face
from .summary import RunFacts

#: Seconds before the live row is shown. A run that ends sooner gets only its summary, without
#: flicker and without the cost of a widget.
_DELAY_S = 0.3
#: Seconds between two messages that tell the Stop button that its cell still runs.
_BEAT_S = 1.0


class Strip:
    """The row that shows a run while it lives, and the summary that it leaves in the notebook.

    `open` takes the place above all outputs of the cell, `publish` shows the live row there and
    keeps its Stop button alive whenever `due_in_s` says so, `update` keeps it up to date, `close`
    leaves the summary. Each may be called from any thread, but not from two at once. The row is
    shown in the cell in which the strip was made.

    Args:
        on_stop: called when a user presses Stop and the kernel could not be interrupted. It may be
            called on any thread, so it should set an event and return.
        clock: seconds, monotonic.
        face: the way to show the row; None chooses the one that fits this program.
    """

    def __init__(
        self,
        on_stop: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        face: Face | None = None,
    ) -> None:
        self._face = face if face is not None else choose_face(on_stop)
        self._clock = clock
        self._facts: RunFacts | None = None
        self._due_at: float | None = None
        self._is_shown = False

    def open(self, facts: RunFacts) -> None:
        """Reserve the place, before any output of the run is published."""
        self._facts = facts
        self._due_at = self._clock() + _DELAY_S
        self._face.reserve()

    def due_in_s(self) -> float | None:
        """Return the seconds until `publish` is due; None if it is not."""
        return None if self._due_at is None else max(0.0, self._due_at - self._clock())

    def publish(self) -> None:
        """Show the live row, due or not; when it is there, tell it that its cell still runs."""
        if self._due_at is None or self._facts is None:
            return
        if self._is_shown:
            self._face.beat()
        else:
            self._is_shown = True
            self._face.show(self._facts)
        # The cell of a detached run is over: nothing says what an interrupt would hit.
        needs_beat = self._face.can_interrupt and not self._facts.is_detached
        self._due_at = self._clock() + _BEAT_S if needs_beat else None

    def show_again(self) -> None:
        """Show the row once more, after the cell was emptied."""
        self._face.reserve()
        if self._is_shown and self._facts is not None:
            self._face.show(self._facts)

    def update(self, facts: RunFacts) -> None:
        """Show what changed. Time alone is no change: the row counts it by itself."""
        self._facts = facts
        if self._is_shown:
            self._face.update(facts)

    def close(self, facts: RunFacts) -> None:
        """Put the summary in the row's place. The strip is over then."""
        self._due_at = None
        self._is_shown = False
        self._face.finish(facts)
