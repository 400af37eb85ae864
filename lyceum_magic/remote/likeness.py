"""Likeness of a program to a kernel, for libraries: a shell on request, IPython's modules."""

from __future__ import annotations

import builtins
import sys

from .hooks import Watcher
from .surroundings import is_installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def look_like_a_kernel(namespace: dict[str, object], *, needs_shell: bool) -> None:
    """Let libraries see a notebook and, if IPython is installed, a kernel.

    Nothing is imported or made before it is asked for.

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

    get_ipython.__qualname__ = "get_ipython"  # by which it travels, see `pickles`
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


class NotLoaded(type(sys)):  # type: ignore[misc]
    """A module that a kernel has loaded when a cell begins; here it is loaded at first use."""

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
            self.__dict__.update(vars(sys.modules[own]))  # for `dir()` and `import *`
        return getattr(sys.modules[own], name)
