"""The ways to show a strip: a notebook with widgets, one without, a terminal, plain Python."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ..protocol.lines import one_line
from .slot import Slot
from .summary import RunFacts, to_html, to_text

#: Jupyter Server names a connection file after the kernel's id; other programs (VS Code, `jupyter
#: run`) use other names, and have no page that could interrupt by id.
_CONNECTION_FILE = re.compile(
    r"kernel-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.json"
)


class Face(Protocol):
    """One way to show a strip. Called in this order: reserve, show, update..., finish.

    If the cell is emptied meanwhile, reserve and show are called once more.
    """

    @property
    def can_interrupt(self) -> bool:
        """True if it shows a button that interrupts the kernel, as long as `beat` is called."""

    def beat(self) -> None:
        """Tell the button that the cell of the run is still the one that runs."""

    def reserve(self) -> None:
        """Take the place above the output; nothing is visible yet."""

    def show(self, facts: RunFacts) -> None:
        """Make the live row visible."""

    def update(self, facts: RunFacts) -> None:
        """Bring the visible row up to date."""

    def finish(self, facts: RunFacts) -> None:
        """Leave the summary. May come without `show`."""


def choose_face(on_stop: Callable[[], None]) -> Face:
    """Return the face that fits the program that runs this code."""
    shell = _shell()
    if shell is None:
        return PlainFace()
    if not is_notebook():
        return TerminalFace()
    return NotebookFace(on_stop, kernel_id=kernel_id(), is_attended=is_attended())


def is_notebook() -> bool:
    """Return whether a kernel runs this code, so that a display can be replaced later."""
    return getattr(_shell(), "kernel", None) is not None


def kernel_id() -> str | None:
    """Return the id under which Jupyter Server knows this kernel; None if none does."""
    try:
        from ipykernel.connect import get_connection_file

        path = get_connection_file()
    except (ImportError, RuntimeError):  # RuntimeError: no kernel application in this process
        return None
    match = _CONNECTION_FILE.fullmatch(Path(path).name)
    return match[1] if match else None


class NotebookFace:
    """A display of one id: empty, then the widget with its fallbacks, then the summary.

    The last bundle names no widget, for a widget in a saved notebook hides the HTML beside it
    and shows "model not found".

    Args:
        on_stop: see `Strip`.
        kernel_id: for the Stop button, which interrupts the kernel through the page's own server.
        is_attended: whether a user may look on; if not, there is no widget.
    """

    def __init__(
        self, on_stop: Callable[[], None], *, kernel_id: str | None, is_attended: bool = True
    ) -> None:
        self._on_stop = on_stop
        self._kernel_id = kernel_id
        self._is_attended = is_attended
        self._slot = Slot()
        self._widget: Any = None

    @property
    def can_interrupt(self) -> bool:
        return self._widget is not None and self._kernel_id is not None

    def beat(self) -> None:
        self._slot.in_cell(self._widget.send_beat)

    def reserve(self) -> None:
        # Text may come before the row does, and an output cannot be put above another one later.
        self._slot.reserve()

    def show(self, facts: RunFacts) -> None:
        if self._widget is None:
            self._widget = self._slot.in_cell(self._make_widget, facts)
        bundle = _static_bundle(facts)
        if self._widget is not None:
            bundle |= self._widget.view_bundle()
        self._slot.fill(bundle)

    def update(self, facts: RunFacts) -> None:
        if self._widget is not None:
            self._slot.in_cell(self._widget.set_facts, facts)
        else:
            self._slot.fill(_static_bundle(facts))

    def finish(self, facts: RunFacts) -> None:
        # First the end, so that a Stop clicked from here on interrupts nothing.
        if self._widget is not None:
            self._slot.in_cell(self._widget.set_facts, facts)
        self._slot.fill(_static_bundle(facts))
        if self._widget is not None:
            self._slot.in_cell(self._widget.close)
            self._widget = None

    def _make_widget(self, facts: RunFacts) -> Any:
        """Return a widget; None if none can be shown."""
        if not self._is_attended:
            return None
        try:
            from .widget import StripWidget
        except ImportError:
            return None
        return StripWidget(facts, on_stop=self._on_stop, kernel_id=self._kernel_id)


class PlainFace:
    """Python without IPython: one line on stderr, for stdout is the program's own."""

    can_interrupt = False

    def __init__(self) -> None:
        self._said = ""

    def beat(self) -> None:
        pass

    def reserve(self) -> None:
        pass

    def show(self, facts: RunFacts) -> None:
        self._say_note(facts)

    def update(self, facts: RunFacts) -> None:
        self._say_note(facts)

    def finish(self, facts: RunFacts) -> None:
        self._say(to_text(facts))

    def _say_note(self, facts: RunFacts) -> None:
        """Print the reason for a wait, and the price, once; the summary has states and times."""
        said = " · ".join(filter(None, [facts.note, facts.ceiling]))
        if said and said != self._said:
            self._said = said
            self._say(f"lyceum: {said}")

    def _say(self, line: str) -> None:
        sys.stderr.write(f"{one_line(line)}\n")
        sys.stderr.flush()


class TerminalFace(PlainFace):
    """IPython in a terminal: as in plain Python, but the summary is a display, like any result."""

    def finish(self, facts: RunFacts) -> None:
        from IPython.display import publish_display_data

        publish_display_data({"text/plain": to_text(facts)})


def _static_bundle(facts: RunFacts) -> dict[str, Any]:
    return {"text/html": to_html(facts), "text/plain": to_text(facts)}


def is_attended() -> bool:
    """Return whether a user may look on and press Stop.

    nbclient and papermill forbid the cell to ask its user anything. They would also save the state
    of every widget in the notebook, closed or not: 20 kB for each run.
    """
    try:
        return bool(_shell().get_parent()["content"]["allow_stdin"])
    except (AttributeError, KeyError, TypeError):  # not ipykernel, or not inside a cell
        return True


def _shell() -> Any:
    # A program that has not imported IPython does not run inside it.
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None
