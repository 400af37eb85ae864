"""Libraries that look whether they are in a notebook: what makes them see that they are."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

PACKAGE = __name__.rpartition(".")[0]


def prepare_library(module: Any, cell_name: str) -> None:
    """Prepares a module of `hooks.WATCHED`.

    A version of the library that is made otherwise costs a warning, and not the cell.

    Args:
        cell_name: what tracebacks call the cell.
    """
    try:
        if module.__name__ == "multiprocessing.spawn":
            watch_workers(module, cell_name)
        else:
            PREPARATIONS[module.__name__](module)
    except Exception as exc:  # noqa: BLE001 - see above
        import warnings

        name, _, _ = module.__name__.partition(".")
        warnings.warn(
            f"lyceum-magic does not know this version of {name}, whose figures and tables may look "
            f"other than in a notebook: {exc!r}",
            stacklevel=1,
        )


def show_through_frames(module: Any) -> None:
    """IPython's display functions need its shell; ours take their place, wherever they are."""
    from . import display as ours

    names = ("display", "update_display", "clear_output", "publish_display_data", "DisplayHandle")
    for name in names:
        theirs = vars(module).get(name)
        if theirs is None or theirs is getattr(ours, name):
            continue
        for user in list(sys.modules.values()):
            if getattr(user, "__dict__", {}).get(name) is theirs:
                setattr(user, name, getattr(ours, name))


def draw_into_the_cell(matplotlib: Any) -> None:
    # A variable would reach the cell's own subprocesses, which cannot load our backend.
    if not os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = f"module://{PACKAGE}.backend"
        matplotlib.interactive(True)


def be_in_a_notebook(pandas: Any) -> None:
    """As wide as in a notebook: pandas takes a program for a terminal of 80 columns."""
    console: Any = sys.modules["pandas.io.formats.console"]
    console.in_interactive_session = console.in_ipython_frontend = lambda: True
    if pandas.get_option("display.max_columns") == 0:
        pandas.set_option("display.max_columns", 20)


def show_plots_in_the_cell(renderers: Any) -> None:
    """plotly would open a browser; it refuses to show anything where IPython is not there."""
    if renderers.ipython_display is None:
        from . import display as ours

        renderers.ipython_display = ours
    if renderers.nbformat is None:
        renderers.nbformat = types.SimpleNamespace(__version__="5.0")
    if not os.environ.get("PLOTLY_RENDERER"):
        renderers.renderers.default = "plotly_mimetype"


def refuse_to_ask(getpass: Any) -> None:
    getpass.getpass = input  # `hooks` has put a refusal there


def watch_workers(spawn: Any, cell_name: str) -> None:
    from .workers import refuse_endless_spawning

    refuse_endless_spawning(spawn, cell_name)


def keep_formulas(printing: Any) -> None:
    """Outside of IPython's shell `init_printing()` would have every result printed as text."""
    printing._init_python_printing = lambda *args, **settings: None


PREPARATIONS = {
    "IPython.core.display": show_through_frames,
    "IPython.core.display_functions": show_through_frames,
    "getpass": refuse_to_ask,
    "matplotlib": draw_into_the_cell,
    "pandas": be_in_a_notebook,
    "plotly.io._renderers": show_plots_in_the_cell,
    "sympy.interactive.printing": keep_formulas,
}
