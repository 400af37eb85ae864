"""The additions of a notebook to a program: `display`, shown results, shown figures."""

from __future__ import annotations

import builtins
import sys

from .surroundings import refuse_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from typing import Any

#: Modules that are prepared for a notebook as soon as they are imported; see `libraries`.
WATCHED = frozenset(
    [
        "IPython.core.display",
        "IPython.core.display_functions",
        "IPython.core.interactiveshell",
        "getpass",
        "ipykernel.zmqshell",
        "ipywidgets.widgets.widget",
        "ipywidgets.widgets.widget_output",
        "matplotlib",
        "matplotlib.backend_bases",
        "matplotlib.pyplot",
        "matplotlib_inline.backend_inline",
        "multiprocess.spawn",
        "multiprocessing.spawn",
        "numba.core.caching",
        "pandas",
        "pandas.core.config_init",
        "pdb",
        "plotly.io._renderers",
        "sympy.interactive.printing",
    ]
)


_cell_name = ""


def install_hooks(cell_name: str) -> None:
    """Install the additions.

    Args:
        cell_name: the cell's name in tracebacks.
    """
    global _cell_name
    _cell_name = cell_name
    sys.displayhook = show_result
    builtins.display = display  # type: ignore[attr-defined]
    builtins.input = sys.breakpointhook = refuse_input
    for name in WATCHED & sys.modules.keys():
        prepare_module(sys.modules[name])
    sys.meta_path.insert(0, Watcher)


def a_kernel() -> object:
    """Return the part of a shell that makes pandas see a notebook."""
    return type("ZMQInteractiveShell", (), {"kernel": None})()


def show_result(value: object) -> None:
    """Show the value of the cell's last expression, as `sys.displayhook`."""
    if value is None:
        return
    builtins._ = value  # type: ignore[attr-defined]
    from .display import show_result as show

    show(value)


def display(*objs: Any, **options: Any) -> Any:
    from .display import display

    return display(*objs, **options)


def prepare_module(module: types.ModuleType) -> None:
    from .libraries import prepare_library

    prepare_library(module, _cell_name)


class Watcher:
    """A finder that leaves watched modules to the other finders, and prepares them after import."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if target is None and name.startswith(("IPython.", "ipykernel.")) and name in sys.modules:
            # `NotLoaded` has loaded it with its parent, which the import system has just looked at.
            return type(sys.__spec__)(name, Loaded(sys.modules[name]))  # type: ignore[arg-type]
        if name not in WATCHED:
            return None
        for finder in sys.meta_path:
            find = None if finder is Watcher else getattr(finder, "find_spec", None)
            spec = find and find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = PreparingLoader(spec.loader)
                return spec
        return None


class Loaded:
    """A loader of a module that is loaded already."""

    def __init__(self, module: Any) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: Any) -> Any:
        return self._module

    def exec_module(self, module: types.ModuleType) -> None:
        module.__spec__ = self._spec


class PreparingLoader:
    """A stand-in for a module's own loader, which is restored before the module runs."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: Any) -> Any:
        return self._own.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__loader__ = module.__spec__.loader = self._own  # type: ignore[union-attr]
        if module.__name__ == "pandas.core.config_init":
            # It asks at its import, and a shell takes longer to make than pandas to import.
            vars(module)["get_ipython"] = a_kernel
        self._own.exec_module(module)
        prepare_module(module)

    # Python leaves the frames of its import system out of tracebacks, by the name of their file.
    exec_module.__code__ = exec_module.__code__.replace(co_filename="<frozen importlib._bootstrap>")
