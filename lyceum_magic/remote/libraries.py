"""Preparation of libraries that look whether they are in a notebook: they see one."""

from __future__ import annotations

import builtins
import os
import sys
import types
from typing import Any

from .surroundings import is_installed, refuse_input

PACKAGE = __name__.rpartition(".")[0]


def prepare_library(module: Any, cell_name: str) -> None:
    """Prepare a module of `hooks.WATCHED`.

    A version of the library that cannot be prepared costs a warning, and not the cell.

    Args:
        cell_name: the cell's name in tracebacks.
    """
    try:
        if module.__name__ in ("multiprocess.spawn", "multiprocessing.spawn"):
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
    """Put our display functions in the place of IPython's, which need its shell."""
    from . import display as ours

    names = ("display", "update_display", "clear_output", "publish_display_data", "DisplayHandle")
    for name in names:
        theirs = vars(module).get(name)
        if theirs is None or theirs is getattr(ours, name):
            continue
        for user in list(sys.modules.values()):
            if getattr(user, "__dict__", {}).get(name) is theirs:
                setattr(user, name, getattr(ours, name))


def answer_for_the_shell(interactiveshell: Any) -> None:
    """Let IPython return the cell's shell when it is asked for one; it is made then."""
    kind = interactiveshell.InteractiveShell
    own = {name: getattr(kind, name).__func__ for name in ("initialized", "instance")}

    def asking(name: str) -> Any:
        def ask(cls: Any, *args: Any, **options: Any) -> Any:
            if cls is kind:
                builtins.get_ipython()  # type: ignore[attr-defined]
            return own[name](cls, *args, **options)

        return classmethod(ask)

    for name in own:
        setattr(kind, name, asking(name))


def be_the_shell_of_a_kernel(zmqshell: Any) -> None:
    shell = builtins.get_ipython()  # type: ignore[attr-defined]
    if type(shell).__name__ == "ZMQInteractiveShell":
        zmqshell.ZMQInteractiveShell = type(shell)


def show_widgets(widget: Any) -> None:
    """Show widgets as HTML that follows them, since no front end answers widgets."""
    from . import widgets

    own = widget.Widget.notify_change

    def notify_change(self: Any, change: Any) -> None:
        own(self, change)
        widgets.notice_change(self)

    widget.Widget.notify_change = notify_change
    widget.Widget._ipython_display_ = widgets.show_widget


def take_outputs(widget_output: Any) -> None:
    from . import widgets

    widget_output.Output.__enter__ = widgets.enter_output
    widget_output.Output.__exit__ = widgets.leave_output


def follow_inline_backend(backend: Any) -> None:
    """Let the inline backend's functions find a shell that knows about figures."""
    from .figures import follow_inline_backend

    builtins.get_ipython()  # type: ignore[attr-defined]
    follow_inline_backend()


def look_for_no_screen(backend_bases: Any) -> None:
    """Skip a check that would load IPython, and is meant for kernels with windows."""
    backend_bases.FigureCanvasBase._fix_ipython_backend2gui = classmethod(lambda cls: None)


def redraw_for_no_prompt(pyplot: Any) -> None:
    """Skip a check that would load IPython, to redraw figures at its prompt."""
    pyplot.install_repl_displayhook = lambda: None


def draw_into_the_cell(matplotlib: Any) -> None:
    # A variable would reach the cell's own subprocesses, which cannot load our backend.
    if not os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = f"module://{PACKAGE}.backend"
        matplotlib.interactive(True)


def be_in_a_notebook(pandas: Any) -> None:
    """Give tables the width of a notebook: pandas assumes a terminal of 80 columns."""
    console: Any = sys.modules["pandas.io.formats.console"]
    console.in_interactive_session = console.in_ipython_frontend = lambda: True
    if pandas.get_option("display.max_columns") == 0:
        pandas.set_option("display.max_columns", 20)


def show_plots_in_the_cell(renderers: Any) -> None:
    """Let plotly show in the cell: it would open a browser, or refuse without IPython."""
    if renderers.ipython_display is None:
        from . import display as ours

        renderers.ipython_display = ours
    if renderers.nbformat is None:
        renderers.nbformat = types.SimpleNamespace(__version__="5.0")
    if not os.environ.get("PLOTLY_RENDERER"):
        renderers.renderers.default = "plotly_mimetype"


def refuse_to_ask(getpass: Any) -> None:
    getpass.getpass = refuse_input


def refuse_to_debug(pdb: Any) -> None:
    """Let a debugger that would ask the user say, at its call, that it cannot.

    A debugger that takes its commands from elsewhere works, and skips frames of ours.
    """
    debugger = pdb.Pdb
    own_init, own_set_trace, own_interaction = (
        debugger.__init__, debugger.set_trace, debugger.interaction,
    )  # fmt: skip

    def init(self: Any, *args: Any, **options: Any) -> None:
        own_init(self, *args, **options)
        self.skip = {*(self.skip or ()), PACKAGE, f"{PACKAGE}.*"}

    def set_trace(self: Any, frame: Any = None, *args: Any, **options: Any) -> Any:
        if self.use_rawinput:
            refuse_input()
        return own_set_trace(self, frame or sys._getframe(1), *args, **options)

    def interaction(self: Any, *args: Any, **options: Any) -> Any:
        if self.use_rawinput:
            refuse_input()
        return own_interaction(self, *args, **options)

    debugger.__init__, debugger.set_trace, debugger.interaction = init, set_trace, interaction


def cache_as_in_a_notebook(caching: Any) -> None:
    """Let numba keep compiled functions by the cell's text, so that its next run finds them.

    Otherwise numba keeps them beside the cell's file, which is removed with the run.
    """
    for kinds in (caching.CacheImpl, *caching.CacheImpl.__subclasses__()):
        own = [kind for kind in kinds._locator_classes if "IPython" in kind.__name__]
        if own and is_installed("IPython"):
            others = [kind for kind in kinds._locator_classes if kind not in own]
            kinds._locator_classes = [*others[:1], *own, *others[1:]]


def watch_workers(spawn: Any, cell_name: str) -> None:
    from .workers import prepare_workers

    prepare_workers(spawn, cell_name)


def keep_formulas(printing: Any) -> None:
    """Keep formulas: without IPython's shell, `init_printing()` would print results as text."""
    printing._init_python_printing = lambda *args, **settings: None


PREPARATIONS = {
    "IPython.core.display": show_through_frames,
    "IPython.core.display_functions": show_through_frames,
    "IPython.core.interactiveshell": answer_for_the_shell,
    "getpass": refuse_to_ask,
    "ipykernel.zmqshell": be_the_shell_of_a_kernel,
    "ipywidgets.widgets.widget": show_widgets,
    "ipywidgets.widgets.widget_output": take_outputs,
    "matplotlib": draw_into_the_cell,
    "matplotlib.backend_bases": look_for_no_screen,
    "matplotlib.pyplot": redraw_for_no_prompt,
    "matplotlib_inline.backend_inline": follow_inline_backend,
    "numba.core.caching": cache_as_in_a_notebook,
    "pandas": be_in_a_notebook,
    "pandas.core.config_init": lambda module: None,  # all is done before it runs
    "pdb": refuse_to_debug,
    "plotly.io._renderers": show_plots_in_the_cell,
    "sympy.interactive.printing": keep_formulas,
}
