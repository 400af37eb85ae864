"""Figures of matplotlib -> pictures in the cell."""

from __future__ import annotations

import io
import sys
from typing import Any

PACKAGE = __name__.rpartition(".")[0]
#: Our backend, and IPython's, which a cell may choose and which needs us at the cell's end.
BACKENDS = (f"{PACKAGE}.backend", "matplotlib_inline.backend_inline")


def show_open_figures() -> None:
    """Show and close open figures at the end of a cell."""
    for name in BACKENDS:
        backend = sys.modules.get(name)
        if backend is not None:
            try:
                backend.flush_figures()
            except Exception:  # noqa: BLE001 - whatever drawing raises; the cell itself has ended
                import traceback

                traceback.print_exc()


def inline_backend() -> Any:
    """Return the options of IPython's inline backend, if the cell has its shell, else None."""
    module = sys.modules.get("matplotlib_inline.config")
    backend = module and module.InlineBackend
    return backend.instance() if backend and backend.initialized() else None


def follow_inline_backend(shell: Any = None) -> None:
    """Let `%config InlineBackend` decide how figures look.

    Args:
        shell: IPython's, if it is not the cell's own already.
    """
    from .surroundings import shell_made

    shell = shell or shell_made()
    options = inline_backend()
    if shell is None or (options is not None and options.shell is shell):
        return
    import matplotlib
    from IPython.core.pylabtools import select_figure_formats
    from matplotlib_inline.config import InlineBackend

    options = InlineBackend.instance(parent=shell)
    options.shell = shell  # from now on it sets the shell's formatters whenever it changes
    shell.configurables.append(options)
    matplotlib.rcParams.update(options.rc)
    select_figure_formats(shell, options.figure_formats, **options.print_figure_kwargs)


def png_of(figure: Any) -> bytes | None:
    """Return the figure as notebooks draw it, byte for byte; None if it is empty."""
    if not figure.axes and not figure.lines:
        return None
    if figure.canvas is None:
        from matplotlib.backend_bases import FigureCanvasBase

        FigureCanvasBase(figure)
    image = io.BytesIO()
    figure.canvas.print_figure(
        image,
        format="png",
        facecolor=figure.get_facecolor(),
        edgecolor=figure.get_edgecolor(),
        dpi=figure.dpi,
        bbox_inches="tight",
    )
    return image.getvalue()


def metadata_of(figure: Any) -> dict[str, str] | None:
    """Return the metadata about the background that a transparent figure's labels need."""
    from matplotlib.colors import to_rgba, to_rgba_array

    if to_rgba(figure.get_facecolor())[3] >= 0.5:
        return None
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    labels = [label.get_color() for axis in axes for label in axis.get_ticklabels()]
    # The brightness of a colour, by ITU-R BT.601.
    are_light = to_rgba_array(labels)[:, :3] @ (0.299, 0.587, 0.114) > 0.5
    if not are_light.size or are_light.any() != are_light.all():
        return None
    return {"needs_background": "dark" if are_light[0] else "light"}
