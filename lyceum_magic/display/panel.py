"""The outputs of a run that goes on after its cell, in places that the cell keeps for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from .. import trail
from ..outputs.decoding import Display
from ..protocol.events import Output
from ..protocol.surrogates import without_surrogates
from . import rich
from .carriage import collapse
from .slot import Slot

#: Text: the last lines only, for all of it is sent again with each change.
TAIL_LINES = 200
TAIL_CHARACTERS = 20_000
INTERVAL_S = 0.5
#: Figures and tables: the first ones keep their places, the last place shows the newest.
PLACES = 10


class Panel:
    """One place for text, some for displays. Made and reserved in the cell, filled from anywhere.

    nbclient and papermill save every place, filled or not, and take nothing that comes between two
    cells. So their cells get one place, for text. Displays are shown under the cell that `refill`
    is called in.

    Args:
        run_id: returns the run's id, for the line about outputs that did not fit.
        is_attended: whether a user may look on; see `faces.is_attended`.
        clock: seconds, monotonic.
    """

    is_full = False

    def __init__(
        self,
        run_id: Callable[[], str],
        *,
        is_attended: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_id = run_id
        self._is_attended = is_attended
        self._clock = clock
        self._published_at = 0.0
        self._text = Slot()
        self._places = [Slot() for _ in range(PLACES)]
        self._begin()

    def _begin(self) -> None:
        self._pieces: deque[str] = deque()
        self._characters = 0
        self._lines_gone = 0
        self._is_text_new = False
        self._shown = 0
        self._ids: dict[str, Slot] = {}
        self._clears = False

    def reserve(self) -> None:
        """Take the places, after the cell's outputs so far."""
        self._text.reserve()
        if self._is_attended:
            for place in self._places:
                place.reserve()

    def promise(self) -> None:
        """Announce the outputs in a notebook that may be saved before any has come."""
        if not self._is_attended:
            self._text.fill(
                {
                    "text/plain": "[lyceum] its outputs are shown when a later cell ends after it; "
                    f"%lyceum attach {self._run_id()[:8]} shows them at any time\n"
                }
            )

    def add_text(self, event: Output) -> None:
        """Take text; it is shown by the next `publish`."""
        self._make_way()
        self._is_text_new = True
        text = without_surrogates(event.text)
        self._pieces.append(text)
        self._characters += len(text)
        if self._characters > 4 * TAIL_CHARACTERS or len(self._pieces) > 4 * TAIL_LINES:
            self._shorten()

    def due_in_s(self) -> float | None:
        """Return the seconds until `publish` is due, 0.0 for now; None if nothing waits."""
        if not self._is_text_new:
            return None
        return max(0.0, self._published_at + INTERVAL_S - self._clock())

    def publish(self) -> None:
        """Show the text as it is now."""
        if not self._is_text_new:
            return
        self._published_at = self._clock()
        self._is_text_new = False
        self._shorten()
        text = self._heading() + "".join(self._pieces)
        self._text.fill({"text/plain": text})
        if trail.is_on:
            size = len(text.encode("utf-8", "replace"))
            trail.mark("client", self._run_id(), "displayed", stream="all", bytes=size)

    def show(self, item: Display) -> None:
        """Show a MIME bundle in the next place, or where its id was shown before."""
        item = rich.cleaned(item)
        if item.is_update:
            if (place := self._ids.get(item.display_id or "")) is not None:
                self._fill(place, item)
            return
        if not item.data and item.display_id is None:
            return
        self._make_way()
        place = self._places[min(self._shown, PLACES - 1)]
        if item.display_id is not None:
            self._ids = {known: at for known, at in self._ids.items() if at is not place}
            self._ids[item.display_id] = place
        self._shown += 1
        self._is_text_new = self._is_text_new or self._shown > PLACES
        self._fill(place, item)

    def _fill(self, place: Slot, item: Display) -> None:
        place.fill(item.data, item.metadata)
        trail.mark("client", self._run_id(), "displayed", types=len(item.data))

    def clear(self, *, wait: bool) -> None:
        """Empty all places; with `wait`, when the next output comes."""
        self._clears = True
        if not wait:
            self._make_way()

    def _make_way(self) -> None:
        if not self._clears:
            return
        for place in self._places[: self._shown]:
            place.fill({"text/html": "", "text/plain": ""})
        self._begin()
        self._is_text_new = True

    def close(self) -> None:
        """Show the text that is left."""
        self.publish()
        if not self._is_attended and not any(self._pieces):
            self._text.fill({"text/plain": "[lyceum] it has printed nothing\n"})

    def refill(self) -> None:
        """Show all outputs once more; see `Slot.refill`."""
        self._text.refill()
        for place in self._places:
            if self._is_attended:
                place.refill()
            else:
                place.show_here()

    def _shorten(self) -> None:
        text = "".join(self._pieces)
        # Only the last state of a line is kept: a front end moves no cursor here.
        lines = [_last_state(line) for line in collapse(text).split("\n")]
        kept = lines[-TAIL_LINES - 1 :]
        while len(kept) > 2 and sum(map(len, kept)) > TAIL_CHARACTERS:
            kept.pop(0)
        self._lines_gone += len(lines) - len(kept)
        text = "\n".join(kept)[-TAIL_CHARACTERS:]
        self._pieces = deque([text])
        self._characters = len(text)

    def _heading(self) -> str:
        gone = []
        if self._lines_gone:
            gone.append(f"{self._lines_gone:,} line{'' if self._lines_gone == 1 else 's'} above")
        if self._shown > PLACES:
            gone.append(f"{self._shown - PLACES:,} more displays")
        if not gone:
            return ""
        return f"[lyceum] {' and '.join(gone)}: %lyceum attach {self._run_id()[:8]}\n"


def _last_state(line: str) -> str:
    """Return the last state of a progress bar: the text after its last carriage return."""
    ends = line.endswith("\r")
    last = line.rstrip("\r").rpartition("\r")[2]
    return f"{last}\r" if ends else last
