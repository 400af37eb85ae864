"""`get_ipython()` where the cell runs: IPython's own shell, or the few magics that need none.

The cell's `%` and `!` lines have become calls of it before it travelled.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any

_shell: Any = None


def install_shell(namespace: dict[str, object]) -> None:
    """Gives the cell a `get_ipython()`; the shell itself is made at its first call."""

    def get_ipython() -> Any:
        global _shell
        if _shell is None:
            _shell = make_shell(namespace)
        return _shell

    builtins.get_ipython = get_ipython  # type: ignore[attr-defined]


def make_shell(namespace: dict[str, object]) -> Any:
    try:
        import IPython  # noqa: F401
    except ImportError:
        from .magics import FewMagics

        return FewMagics(namespace)
    return real_shell(namespace)


def real_shell(namespace: dict[str, object]) -> Any:
    """IPython's shell around the cell's namespace; it takes over nothing of the process."""
    import atexit
    import shutil
    import tempfile

    from IPython.core.error import UsageError
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from .magics import INLINE, INSTALLERS, NO_INSTALL, NO_SCREEN

    class Shell(InteractiveShell):  # type: ignore[misc]
        def init_virtualenv(self) -> None:
            """The path is the run's own."""

        def init_user_ns(self) -> None:
            history = self.history_manager
            self.user_ns_hidden.update(
                _ih=history.input_hist_parsed, _oh=history.output_hist, _dh=history.dir_hist
            )
            self.user_ns.update(self.user_ns_hidden)

        def run_cell(self, *args: Any, **options: Any) -> Any:
            result = super().run_cell(*args, **options)
            result.raise_error()
            return result

        def showtraceback(self, exc_tuple: Any = None, *args: Any, **options: Any) -> None:
            """What a magic's code raises ends the cell, instead of being shown and forgotten."""
            raise self._get_exc_info(exc_tuple)[1]

        showsyntaxerror = showtraceback

        def enable_gui(self, gui: Any = None) -> None:
            """There is no screen."""

        def enable_matplotlib(self, gui: Any = None) -> tuple[str, str]:
            if (gui or "") not in INLINE:
                raise UsageError(NO_SCREEN.format(gui))
            return "inline", "inline"

    def refuse(name: str) -> Any:
        def magic(line: str) -> None:
            raise UsageError(NO_INSTALL.format(name))

        return magic

    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryAccessor.enabled = False
    folder = tempfile.mkdtemp(prefix="ipython-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    main, display = sys.modules["__main__"], getattr(builtins, "display", None)
    module = sys.modules[str(namespace["__name__"])]
    try:
        shell = Shell.instance(
            config=config, ipython_dir=folder, user_module=module, user_ns=namespace
        )
    finally:
        sys.modules["__main__"] = main
        if display is not None:
            builtins.display = display  # type: ignore[attr-defined]
    for name in INSTALLERS:
        shell.register_magic_function(refuse(name), "line", name)
    return shell
