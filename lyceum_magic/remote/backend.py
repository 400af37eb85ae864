"""The backend that matplotlib draws with: figures show at `show()` and at the end of the cell."""

from __future__ import annotations

import os
import sys
from typing import Any

import matplotlib
from matplotlib._pylab_helpers import Gcf
from matplotlib.backends.backend_agg import FigureCanvasAgg, _BackendAgg
from matplotlib.figure import Figure

from .display import display
from .figures import follow_inline_backend, inline_backend, metadata_of

FigureCanvas = FigureCanvasAgg

#: The process that made a figure which the end of the cell must show.
_process: int | None = None


def new_figure_manager(num: int, *args: Any, FigureClass: Any = Figure, **kwargs: Any) -> Any:
    return new_figure_manager_given_figure(num, FigureClass(*args, **kwargs))


def new_figure_manager_given_figure(num: int, figure: Any) -> Any:
    manager = _BackendAgg.new_figure_manager_given_figure(num, figure)
    # After plt.ioff() a figure shows only where it is told to.
    if matplotlib.is_interactive():
        global _process
        _process = os.getpid()
    return manager


def show(close: bool | None = None, block: object = None) -> None:
    """Show all open figures and, unless told otherwise, close them."""
    global _process
    _process = None  # those that stay open have been shown, too
    options = inline_backend()
    if close is None and options:
        close = options.close_figures
    try:
        for manager in Gcf.get_all_fig_managers():
            figure = manager.canvas.figure
            display(figure, metadata=metadata_of(figure))
    finally:
        if close is not False and Gcf.get_all_fig_managers():
            sys.modules["matplotlib.pyplot"].close("all")


def flush_figures() -> None:
    """Show figures at the end of the cell; a fork does not show those of its parent again."""
    global _process
    is_due, _process = _process == os.getpid(), None
    if is_due:
        show()


follow_inline_backend()
