"""What a notebook puts into a program: `display`, the display of results, figures that show."""

from __future__ import annotations

import builtins
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from typing import Any

#: Modules that are told, as soon as they are there, that they are in a notebook; see `libraries`.
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
    """Puts it all in place.

    Args:
        cell_name: what tracebacks call the cell.
    """
    global _cell_name
    _cell_name = cell_name
    sys.displayhook = show_result
    builtins.display = display  # type: ignore[attr-defined]
    builtins.input = sys.breakpointhook = refuse_input
    for name in WATCHED & sys.modules.keys():
        prepare_module(sys.modules[name])
    sys.meta_path.insert(0, Watcher)


def look_like_a_kernel(namespace: dict[str, object], *, needs_shell: bool) -> None:
    """Show libraries what tells them that they are in a notebook; where IPython is, as a kernel.

    Nothing of it is imported or made before it is asked for.

    Args:
        namespace: of the cell.
        needs_shell: whether the cell calls `get_ipython()`, and so gets one without IPython too.
    """
    # A plain program is no notebook; and loading late takes the watcher.
    has_ipython = Watcher in sys.meta_path and is_installed("IPython")
    if not has_ipython and not needs_shell:
        return

    def get_ipython() -> Any:
        from .shell import shell_around

        return shell_around(namespace)

    builtins.get_ipython = get_ipython  # type: ignore[attr-defined]
    if needs_shell:
        namespace["get_ipython"] = get_ipython
    if has_ipython:
        builtins.__IPYTHON__ = True  # type: ignore[attr-defined]
        sys.ps1, sys.ps2, sys.ps3 = "In : ", "...: ", "Out: "  # type: ignore[attr-defined]
        names = ["IPython", *["ipykernel"] * is_installed("ipykernel"), "ipykernel.zmqshell"]
        for name in names:
            if name not in sys.modules:
                sys.modules[name] = NotLoaded(name)


def a_kernel() -> object:
    """As much of the shell as tells pandas that it is in a notebook."""
    return type("ZMQInteractiveShell", (), {"kernel": None})()


class NotLoaded(type(sys)):  # type: ignore[misc]
    """A module that a kernel has loaded when a cell begins: loaded here when it is asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        del self.__spec__, self.__loader__, self.__package__

    def __getattr__(self, name: str) -> Any:
        own = self.__name__
        # Asked for in all modules by those who look for a certain one.
        if name in ("__file__", "__warningregistry__"):
            raise AttributeError(name)
        if name == "__spec__" and sys.modules.get(own) is self:
            finder = sys.modules["_frozen_importlib_external"].PathFinder
            parent, _, _ = own.rpartition(".")
            return finder.find_spec(own, sys.modules[parent].__path__ if parent else None)
        if sys.modules.get(own) is self:
            del sys.modules[own]
            try:
                __import__(own)
            except ImportError as exc:
                sys.modules[own] = self
                raise AttributeError(name) from exc
            vars(self).update(vars(sys.modules[own]))  # for `dir()` and `import *`
        return getattr(sys.modules[own], name)


def is_installed(package: str) -> bool:
    """Whether a package can be imported; asked without the import system, for it is dear."""
    return package in sys.modules or any(
        os.path.isfile(os.path.join(folder, package, "__init__.py")) for folder in sys.path
    )


def show_result(value: object) -> None:
    """As `sys.displayhook`: the value of the cell's last expression."""
    if value is None:
        return
    builtins._ = value  # type: ignore[attr-defined]
    from .display import show_result as show

    show(value)


def display(*objs: Any, **options: Any) -> Any:
    from .display import display

    return display(*objs, **options)


def refuse_input(prompt: object = "", *_more: object, **_options: object) -> str:
    raise EOFError(
        "There is nobody to ask where this cell runs: send a value with --in NAME instead."
    )


def prepare_module(module: types.ModuleType) -> None:
    from .libraries import prepare_library

    prepare_library(module, _cell_name)


class Watcher:
    """Finds the watched modules where the others find them, and prepares them after each import."""

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
    """A loader of a module that is there."""

    def __init__(self, module: Any) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: Any) -> Any:
        return self._module

    def exec_module(self, module: types.ModuleType) -> None:
        module.__spec__ = self._spec


class PreparingLoader:
    """A module's own loader, which is there again when the module runs."""

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
