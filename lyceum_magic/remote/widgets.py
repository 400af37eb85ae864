"""Widgets of ipywidgets as HTML that follows them: progress bars, labels, boxes, outputs.

No front end answers a widget where a cell runs, so a widget is shown as a display that is replaced
when the widget changes. `Output` takes what is printed and shown inside it, as in a kernel.
"""

from __future__ import annotations

import atexit
import html
import os
import re
import sys
import threading
import types
from time import monotonic
from typing import Any

from . import display as shows

#: Minimum seconds between two drawings of a widget.
EVERY_S = 0.1
#: `bar_style` and `button_style` -> colour, as JupyterLab has them.
COLOURS = {"success": "#4caf50", "info": "#00bcd4", "warning": "#ff9800", "danger": "#f44336"}
COLOUR = "#2196f3"
ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


class Shown:
    """A widget's places in the cell."""

    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self.display_id = shows.new_id()
        self.html = ""
        self.parts: set[int] = set()

    def bundle(self) -> dict[str, Any]:
        self.parts = set()
        self.html = html_of(self.widget, self.parts)
        return {"text/html": self.html, "text/plain": text_of(self.widget) if self.html else ""}


_shown: dict[int, Shown] = {}
_changed: set[int] = set()
_lock = threading.RLock()
_drawn_at = 0.0
_timer: threading.Timer | None = None


def show_widget(widget: Any, **_options: Any) -> None:
    """Show a widget, as its `_ipython_display_`."""
    if shows.catchers:
        shows.catchers[-1].show_widget(widget)
        return
    with _lock:
        if id(widget) not in _shown:
            _shown[id(widget)] = Shown(widget)
        shown = _shown[id(widget)]
        bundle = shown.bundle()
    shows.display(bundle, raw=True, display_id=shown.display_id)


def notice_change(widget: Any) -> None:
    """Draw the places that show a widget again after a change, now or soon."""
    global _timer
    if not _shown:
        return
    _changed.add(id(widget))
    if monotonic() - _drawn_at >= EVERY_S:
        draw_changes()
    elif _timer is None:
        _timer = threading.Timer(EVERY_S, draw_changes)
        _timer.daemon = True
        try:
            _timer.start()
        except RuntimeError:  # the interpreter is ending: `draw_changes` comes with it
            _timer = None


def draw_changes() -> None:
    """Draw again the widgets that have changed."""
    global _drawn_at, _timer
    with _lock:
        timer, _timer = _timer, None
        if timer is not None and timer is not threading.current_thread():
            timer.cancel()
        changed = set(_changed)
        _changed.difference_update(changed)
        for shown in list(_shown.values()):
            if changed & (shown.parts | {id(shown.widget)}):
                before = shown.html
                bundle = shown.bundle()
                if shown.html != before:
                    shows.update_display(bundle, display_id=shown.display_id, raw=True)
                if is_closed(shown.widget):
                    del _shown[id(shown.widget)]
        _drawn_at = monotonic()


def settle() -> None:
    """Draw all changes before a fork: the child would not have the timer."""
    timer = _timer
    if timer is not None:
        draw_changes()
        timer.join()


def finish() -> None:
    """Draw the last changes when all threads have ended, and follow no more.

    A bar that is not full closes itself when the interpreter takes it down. A timer cannot start
    at that time: Python 3.11 and earlier would wait for it for ever.
    """
    draw_changes()
    _shown.clear()


atexit.register(finish)
os.register_at_fork(before=settle, after_in_child=_shown.clear)


# `Output`.


class OutputPlace:
    """A place for outputs and prints inside `with output:`."""

    def __init__(self, output: Any) -> None:
        self.output = output
        self._streams: list[tuple[Any, Any]] = []

    def enter(self) -> None:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, f"__{name}__")
            stream.flush()
            self._streams.append((stream, vars(stream).get("write")))
            stream.write = lambda text, name=name: self.write(name, text)
        shows.catchers.append(self)

    def leave(self) -> None:
        if self in shows.catchers:
            shows.catchers.remove(self)
        for stream, write in self._streams:
            if write is None:
                vars(stream).pop("write", None)
            else:
                stream.write = write
        self._streams = []

    def write(self, name: str, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        outputs = self._outputs()
        if outputs and outputs[-1].get("name") == name:
            text = outputs.pop()["text"] + text
        self.output.outputs = (*outputs, {"output_type": "stream", "name": name, "text": text})
        return len(text)

    def show(self, data: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        bundle = {"output_type": "display_data", "data": shows.jsonable(data)}
        bundle["metadata"] = shows.jsonable(metadata or {})
        self.output.outputs = (*self._outputs(), bundle)

    def show_widget(self, widget: Any) -> None:
        """Keep the widget itself, so that the output changes with it."""
        item = {"output_type": "display_data", "data": {}, "widget": widget}
        self.output.outputs = (*self._outputs(), item)

    def fail(self, error: BaseException) -> None:
        import traceback

        from .own_file import called_cell, without_ours

        trace = without_ours(error.__traceback__)
        lines = traceback.format_exception(type(error), error, trace)
        self.output.outputs = (
            *self._outputs(),
            {
                "output_type": "error",
                "ename": type(error).__name__,
                "evalue": str(error),
                "traceback": called_cell("".join(lines)).splitlines(),
            },
        )

    def clear(self, wait: bool) -> None:
        if wait:
            _cleared_at_next.add(id(self.output))
        else:
            self.output.outputs = ()

    def _outputs(self) -> list[dict[str, Any]]:
        if id(self.output) in _cleared_at_next:
            _cleared_at_next.discard(id(self.output))
            return []
        return list(self.output.outputs)


_entered: dict[int, list[OutputPlace]] = {}
_cleared_at_next: set[int] = set()


def enter_output(output: Any) -> None:
    """Enter an `Output`, as its `__enter__`."""
    place = OutputPlace(output)
    _entered.setdefault(id(output), []).append(place)
    place.enter()


def leave_output(
    output: Any,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
) -> bool | None:
    """Leave an `Output`, as its `__exit__`: an error is shown in it, and the cell goes on."""
    place = _entered[id(output)].pop()
    place.leave()
    if not isinstance(error, Exception):
        return None
    place.fail(error)
    return True


# What a widget looks like.


def text_of(widget: Any) -> str:
    """Return the widget as text."""
    outputs = getattr(widget, "outputs", None)
    if isinstance(outputs, tuple) and outputs:
        return "".join(map(text_of_output, outputs)).rstrip("\n")
    try:
        return repr(widget)
    except Exception:  # noqa: BLE001 - it is the widget's own: tqdm's fails once its bar is gone
        values = [getattr(child, "value", None) for child in getattr(widget, "children", ())]
        return "".join(value for value in values if isinstance(value, str))


def text_of_output(output: dict[str, Any]) -> str:
    kind = output.get("output_type")
    if "widget" in output:
        return text_of(output["widget"]) + "\n"
    if kind == "stream":
        return str(output.get("text", ""))
    if kind == "error":
        return "\n".join(output.get("traceback", [])) + "\n"
    return shows.readable(output.get("data", {})) + "\n"


def html_of(widget: Any, parts: set[int]) -> str:
    """Return the widget's HTML, and add the ids of the widgets in it to `parts`."""
    parts.add(id(widget))
    layout = getattr(widget, "layout", None)
    if layout is not None:
        parts.add(id(layout))
    if getattr(layout, "display", None) == "none" or is_closed(widget):
        return ""
    children = getattr(widget, "children", None)
    if isinstance(children, (tuple, list)):
        inner = "".join(html_of(child, parts) for child in children)
        if "VBox" in names_of(widget):
            return f"<div>{inner}</div>"
        return f'<div style="display:flex;flex-wrap:wrap;align-items:center">{inner}</div>'
    if "Output" in names_of(widget):
        return f"<div>{''.join(html_of_output(item, parts) for item in widget.outputs)}</div>"
    return part_of(widget)


def is_closed(widget: Any) -> bool:
    return getattr(widget, "comm", "") is None


def names_of(widget: Any) -> set[str]:
    return {kind.__name__ for kind in type(widget).__mro__}


def part_of(widget: Any) -> str:
    names = names_of(widget)
    value = getattr(widget, "value", None)
    label = escaped(getattr(widget, "description", ""))
    label = f"<span>{label}&nbsp;</span>" if label else ""
    if names & {"IntProgress", "FloatProgress"}:
        return label + bar_of(widget)
    if names & {"HTML", "HTMLMath"}:
        return f"<div>{label}{value}</div>"
    if "Image" in names and isinstance(value, (bytes, memoryview)):
        from binascii import b2a_base64

        data = b2a_base64(bytes(value), newline=False).decode("ascii")
        return f'<img src="data:image/{escaped(widget.format)};base64,{data}">'
    if "Button" in names:
        return f'<button disabled style="margin:2px">{escaped(widget.description)}</button>'
    own = shows.method_of(widget, "_repr_html_")
    if own is not None:
        return f"<div>{own()}</div>"
    if "value" in getattr(widget, "keys", ()):
        return f'<div style="margin:2px">{label}<span>{escaped(value)}</span></div>'
    return f"<pre>{escaped(repr(widget))}</pre>"


def bar_of(bar: Any) -> str:
    least, most, value = float(bar.min), float(bar.max), float(bar.value)
    share = min(1.0, max(0.0, (value - least) / (most - least))) if most > least else 1.0
    colour = getattr(bar.style, "bar_color", None) or COLOURS.get(bar.bar_style, COLOUR)
    width = getattr(bar.layout, "width", None) or "160px"
    grow = getattr(bar.layout, "flex", None)
    flex = f"flex:{grow};" if grow else ""
    return (
        f'<div style="{escaped(flex)}width:{escaped(width)};min-width:60px;height:16px;margin:4px;'
        f'background:#8884"><div style="width:{share:.1%};height:100%;'
        f'background:{escaped(colour)}"></div></div>'
    )


def html_of_output(output: dict[str, Any], parts: set[int]) -> str:
    """Return the content of an `Output` as HTML; `parts` is as for `html_of`."""
    if "widget" in output:
        return html_of(output["widget"], parts)
    data = output.get("data", {})
    if output.get("output_type") in ("display_data", "execute_result"):
        if "text/html" in data:
            return f"<div>{data['text/html']}</div>"
        if "image/svg+xml" in data:
            return f"<div>{data['image/svg+xml']}</div>"
        for kind in ("image/png", "image/jpeg"):
            if kind in data:
                return f'<img src="data:{kind};base64,{data[kind]}">'
    text = ANSI.sub("", text_of_output(output))
    text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return (
        f'<pre style="margin:0;font-family:monospace">{escaped(text.rstrip())}</pre>'
        if text.strip()
        else ""
    )


def escaped(text: object) -> str:
    return html.escape("" if text is None else str(text))
