"""The progress of a transfer, shown while it lasts; one line of text remains."""

from __future__ import annotations

import sys
import time
from html import escape

from ..protocol.lines import one_line
from .faces import is_notebook
from .slot import Slot

#: A shorter transfer shows only its end.
SHOWN_AFTER_S = 0.4
#: Width of the bar in a terminal, in characters.
WIDTH = 30


class ProgressBar:
    """A bar in a notebook, a line that rewrites itself in a terminal, else nothing.

    All calls come from the thread of the cell.

    Args:
        what: the name of the transfer, such as "put data.csv".
        total: the number of bytes; None while it is unknown, and it may be set later.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self.done = 0
        self.total = total
        self._what = one_line(what)
        self._began_at = time.monotonic()
        self._slot: Slot | None = None
        self._is_line_open = False

    def show(self) -> None:
        """Show the present progress."""
        if time.monotonic() - self._began_at < SHOWN_AFTER_S:
            return
        if is_notebook():
            if self._slot is None:
                self._slot = Slot()
                self._slot.reserve()
            self._slot.fill({"text/html": self._html(), "text/plain": self._text()})
        elif sys.stdout.isatty():
            self._is_line_open = True
            sys.stdout.write(f"\r{self._text()}")
            sys.stdout.flush()

    def finish(self, sentence: str) -> None:
        """Replace the bar by a sentence."""
        sentence = one_line(sentence)
        if self._slot is not None:
            self._slot.fill({"text/plain": sentence, "text/html": _line(escape(sentence))})
            return
        if self._is_line_open:
            sys.stdout.write("\r\x1b[K")
        sys.stdout.write(f"{sentence}\n")

    def leave(self) -> None:
        """Leave the bar as it is, since an error ends the transfer."""
        if self._slot is not None:
            # A bar without a size would move for ever.
            html = self._html() if self.total else _line(escape(self._text()))
            self._slot.fill({"text/plain": self._text(), "text/html": html})
        elif self._is_line_open:
            sys.stdout.write("\n")

    def _text(self) -> str:
        if not self.total:
            return f"{self._what}  {size(self.done)}"
        full = WIDTH * min(self.done, self.total) // self.total
        bar = "█" * full + "░" * (WIDTH - full)
        return f"{self._what}  {bar} {size(self.done)} of {size(self.total)}"

    def _html(self) -> str:
        share = "" if not self.total else f' value="{self.done}" max="{self.total}"'
        of = "" if not self.total else f" of {size(self.total)}"
        return _line(f"{escape(self._what)} <progress{share}></progress> {size(self.done)}{of}")


def _line(html: str) -> str:
    # No <pre>, which notebooks set apart like a quotation; as much room as a run's summary has.
    return f'<div style="padding:3px 5px;font-size:13px;line-height:1.6">{html}</div>'


def size(count: float) -> str:
    """Return a number of bytes in words, with three digits at most: `12 bytes`, `3.4 MB`."""
    if count < 1000:
        return f"{count:.0f} byte{'' if count == 1 else 's'}"
    units = iter(("kB", "MB", "GB", "TB"))
    unit = next(units)
    count /= 1000
    while count >= 999.5 and (larger := next(units, "")):
        unit, count = larger, count / 1000
    return f"{count:.3g} {unit}"
