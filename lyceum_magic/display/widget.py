"""The live strip as a widget: facts go to the page, a pressed Stop comes back.

The only module here that imports ipywidgets and anywidget, so it is imported at the first strip.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from .summary import LOOKS, RunFacts

_FOLDER = Path(__file__).parent


class StripWidget(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget is Any to mypy
    """The strip of one run; `strip.js` draws it.

    Args:
        facts: the first ones.
        on_stop: called on the thread of the page's message, which may be any.
        kernel_id: the kernel that the page may interrupt; None if it can only send the message.
    """

    _esm = _FOLDER / "strip.js"
    _css = _FOLDER / "strip.css"

    # One trait, so that a change is one message.
    facts = traitlets.Dict().tag(sync=True)
    kernel_id = traitlets.Unicode(None, allow_none=True).tag(sync=True)
    beats = traitlets.Int(0).tag(sync=True)

    def __init__(
        self, facts: RunFacts, *, on_stop: Callable[[], None], kernel_id: str | None
    ) -> None:
        super().__init__(facts=_to_page(facts), kernel_id=kernel_id)
        self._on_stop = on_stop
        self.on_msg(self._receive)

    def set_facts(self, facts: RunFacts) -> None:
        """Send the row's facts, unless only time went by."""
        page_facts = _to_page(facts)
        if page_facts | {"elapsed_s": 0} != self.facts | {"elapsed_s": 0}:
            self.facts = page_facts

    def send_beat(self) -> None:
        """Tell the page that the run's cell still blocks this very kernel."""
        self.beats += 1

    def view_bundle(self) -> dict[str, Any]:
        """The part of a MIME bundle that makes a page show this widget."""
        return {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            }
        }

    def close(self) -> None:
        # Each widget owns a layout widget, which its own close leaves open.
        self.layout.close()
        super().close()

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if content.get("type") == "stop":
            self._on_stop()


def _to_page(facts: RunFacts) -> dict[str, Any]:
    look = LOOKS[facts.state]
    return {
        "symbol": look.symbol,
        "label": look.label,
        "colour": look.colour,
        "detail": facts.detail,
        "is_final": facts.state.is_final,
        "is_local": facts.is_local,
        "is_detached": facts.is_detached,
        "machine": facts.machine,
        "name": facts.name,
        "run_id": facts.run_id,
        "short_id": facts.short_id,
        "elapsed_s": facts.elapsed_s,
        "note": facts.note,
        "price_per_hour": facts.price_per_hour,
        "waited_s": facts.waited_s,
        "ceiling": facts.ceiling,
        # While it lives the page counts it, as it counts the time.
        "cost": facts.cost if facts.state.is_final else "",
    }
