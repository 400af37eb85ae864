"""`get_ipython()` where the cell runs: IPython's own shell, or the few magics that need none.

The cell's `%` and `!` lines became calls of it before the cell travelled. The shell is made at the
first call of `get_ipython()`, also of a library's, and looks like the one in a kernel.
"""

from __future__ import annotations

import builtins
import sys
import threading
import types
from typing import Any

_shell: Any = None
_making = threading.RLock()
_is_making = False


def shell_around(namespace: dict[str, object]) -> Any:
    """Return the cell's shell, and make it at the first call; None while it is being made."""
    global _shell, _is_making
    with _making:
        if _shell is None and not _is_making:
            _is_making = True
            try:
                _shell = make_shell(namespace)
            finally:
                _is_making = False
    return _shell


def shell_of_ipython() -> Any:
    """Return IPython's shell if it has been made, else None."""
    return _shell if hasattr(_shell, "display_formatter") else None


def make_shell(namespace: dict[str, object]) -> Any:
    try:
        import IPython  # noqa: F401
    except ImportError:
        from .magics import FewMagics

        return FewMagics(namespace)
    return real_shell(namespace)


class Kernel:
    """The attributes that libraries look for in a kernel. No front end can answer."""

    implementation = "ipython"

    def __init__(self, shell: Any) -> None:
        self.shell = shell

    @property
    def comm_manager(self) -> Any:
        import comm

        return comm.get_comm_manager()

    def get_parent(self, channel: str | None = None) -> dict[str, object]:
        return {}


def show_end(error: BaseException, trace: types.TracebackType | None) -> bool:
    """Let the shell show what ended the cell, if the cell has told it how.

    Returns:
        Whether it was shown: `rich.traceback.install()` and `set_custom_exc()` ask for it.
    """
    shell = shell_of_ipython()
    if shell is None:
        return False
    if isinstance(error, tuple(shell.custom_exceptions)):
        shell.CustomTB(type(error), error, trace, tb_offset=0)
        return True
    if not {"_showtraceback", "showtraceback"} & vars(shell).keys():
        return False
    shell.shows_end = True
    try:
        raise error.with_traceback(trace)
    except BaseException:  # noqa: BLE001 - it has ended the cell, and is sent
        # The first frame is this one, and left out.
        shell.showtraceback(running_compiled_code=True)
    return True


def xmode() -> str:
    """Return the mode that the cell chose for tracebacks with `%xmode`; empty if none."""
    shell = shell_of_ipython()
    mode = shell.InteractiveTB.mode if shell is not None else "Context"
    return "" if mode == "Context" else str(mode)


def end_cell() -> None:
    """Call the functions that are registered for the end of a cell, as a kernel does."""
    shell = shell_of_ipython()
    if shell is None:
        return
    error = sys.exc_info()[1]
    result = types.SimpleNamespace(
        success=error is None, error_in_exec=error, error_before_exec=None, result=None, info=None
    )
    shell.shows_end = True  # also what they raise
    shell.events.trigger("post_execute")
    shell.events.trigger("post_run_cell", result)


def real_shell(namespace: dict[str, object]) -> Any:
    """Return IPython's shell around the cell's namespace; it takes over nothing of the process."""
    import atexit
    import shutil
    import tempfile

    from traitlets.config import Config

    from .hooks import show_result

    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryAccessor.enabled = False
    config.IPKernelApp.connection_file = ""
    folder = tempfile.mkdtemp(prefix="ipython-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    main, display = sys.modules["__main__"], getattr(builtins, "display", None)
    module = sys.modules[str(namespace["__name__"])]
    try:
        shell = shell_class().instance(
            config=config, ipython_dir=folder, user_module=module, user_ns=namespace
        )
    finally:
        sys.modules["__main__"] = main
        if display is not None:
            builtins.display = display  # type: ignore[attr-defined]
    shell.kernel = Kernel(shell)
    # As around a cell in a kernel: what captures results stays in place through `run_cell`.
    if sys.displayhook is show_result:
        shell.display_trap.__enter__()
    refuse_installers(shell)
    if "matplotlib" in sys.modules:
        from .figures import follow_inline_backend

        follow_inline_backend(shell)
    return shell


def refuse_installers(shell: Any) -> None:
    """Let the magics that would install packages say how it is done."""
    from IPython.core.error import UsageError

    from .magics import INSTALLERS, NO_INSTALL

    def refuse(name: str) -> Any:
        def magic(line: str) -> None:
            raise UsageError(NO_INSTALL.format(name))

        return magic

    for name in INSTALLERS:
        shell.register_magic_function(refuse(name), "line", name)


def output_classes() -> tuple[Any, Any]:
    """Return classes for a shell's `displayhook` and `display_pub` that send frames."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher

    from .display import clear_output, send_bundle

    class ResultHook(DisplayHook):  # type: ignore[misc]
        """A hook that shows the value of a last line, without a prompt."""

        def write_output_prompt(self) -> None: ...

        def start_displayhook(self) -> None: ...

        def finish_displayhook(self) -> None: ...

        def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
            send_bundle(format_dict, md_dict, result=True)

    class FramePublisher(DisplayPublisher):  # type: ignore[misc]
        def publish(
            self,
            data: Any,
            metadata: Any = None,
            source: Any = None,
            *,
            transient: Any = None,
            update: bool = False,
            **options: Any,
        ) -> None:
            display_id = (transient or {}).get("display_id")
            send_bundle(data, metadata, display_id=display_id, update=update)

        def clear_output(self, wait: bool = False) -> None:
            clear_output(wait)

    return ResultHook, FramePublisher


def shell_class() -> Any:
    """Return the class of the shell: by its name and module, libraries recognise a notebook."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets import Type

    from .magics import choose_backend

    result_hook, frame_publisher = output_classes()

    class ZMQInteractiveShell(InteractiveShell):  # type: ignore[misc]
        __module__ = "ipykernel.zmqshell"
        __qualname__ = "ZMQInteractiveShell"
        displayhook_class = Type(result_hook)
        display_pub_class = Type(frame_publisher)
        shows_end = False

        def init_virtualenv(self) -> None:
            """Leave the import path alone: it is the run's own."""

        def init_user_ns(self) -> None:
            history = self.history_manager
            self.user_ns_hidden.update(
                _ih=history.input_hist_parsed, _oh=history.output_hist, _dh=history.dir_hist
            )
            self.user_ns.update(self.user_ns_hidden)
            if "get_ipython" in self.user_ns:
                self.user_ns_hidden["get_ipython"] = self.user_ns["get_ipython"]

        def run_cell(self, *args: Any, **options: Any) -> Any:
            """Show an error and go on, if the cell calls this; raise it, if a magic does."""
            caller = sys._getframe(1).f_globals.get("__name__") or ""
            if caller.partition(".")[0] in ("IPython", __name__.partition(".")[0]):
                result = super().run_cell(*args, **options)
                result.raise_error()
                return result
            before, self.shows_end = self.shows_end, True
            try:
                return super().run_cell(*args, **options)
            finally:
                self.shows_end = before

        def showtraceback(self, exc_tuple: Any = None, *args: Any, **options: Any) -> None:
            """Raise the error of a magic's code, so that it ends the cell."""
            if self.shows_end:
                super().showtraceback(exc_tuple, *args, **options)
            else:
                raise self._get_exc_info(exc_tuple)[1]

        def showsyntaxerror(self, *args: Any, **options: Any) -> None:
            if self.shows_end:
                super().showsyntaxerror(*args, **options)
            else:
                raise self._get_exc_info()[1]

        def enable_gui(self, gui: Any = None) -> None:
            """Do nothing: there is no screen."""

        def enable_matplotlib(self, gui: Any = None) -> tuple[str, str]:
            backend = choose_backend(gui or "")
            if backend == "inline":
                from .figures import follow_inline_backend

                follow_inline_backend()
            return backend, backend

    return ZMQInteractiveShell
