"""A job from the notebook -> its cell, run as a notebook would run it.

The cell runs in `__main__`, in which nothing of this package is left. A traceback counts its lines
as the notebook does.
"""

from __future__ import annotations

import builtins
import os
import sys
import threading
import types
from os import getpid

from . import frames, own_file
from .compiling import compile_cell, run_codes
from .streams import install_streams

TYPE_CHECKING = False  # the name is enough for type checkers, and typing costs an import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypedDict

    class Job(TypedDict, total=False):
        """The cell and the choices that travel with it.

        Attributes:
            cell: Python source; top-level `await` is allowed.
            first_line: the number of its first line in tracebacks; 2 if it is missing.
            name: its name in tracebacks.
            mark: the run's own word in its frames; if empty, the cell runs as a plain program.
            inputs: values for the cell's namespace, as `values.pack` made them, in base64.
            outputs: names whose values are sent back.
            pickle: whether values may travel as pickles.
            files: path below the run's folder -> content in base64.
            save: patterns of the files to send back.
            needs_shell: whether the cell calls `get_ipython()`, as its `%` and `!` lines do.
            session: the session whose next cell this is; see `session.begin`.
        """

        cell: str
        first_line: int
        name: str
        mark: str
        inputs: str
        outputs: list[str]
        pickle: bool
        files: dict[str, str]
        save: list[str]
        needs_shell: bool
        session: dict[str, Any]


def run_cell(job: Job, namespace: dict[str, object]) -> None:
    """Run the cell, show its results, and send back the values and files that were asked for.

    Args:
        job: the cell and the choices for it.
        namespace: of the module that this is sent as. That is `__main__`, or `__mp_main__` in a
            worker that multiprocessing has spawned, which needs only the definitions.
    """
    cell = "\n" * (job.get("first_line", 2) - 1) + job["cell"]
    is_main = namespace["__name__"] == "__main__"
    install_streams()
    name = own_file.give(cell, job["name"], namespace) if job["mark"] else job["name"]
    remember_source(cell, name, is_sent=is_main and bool(job["mark"]))
    if job["mark"]:
        frames.open_frames(job["mark"])
        # Their values now: the cell may change them, or take them away.
        names = os.environ.get("LYCEUM_SECRET_NAMES", "").split(",")
        frames.secrets += [os.environ[name] for name in names if name in os.environ]
        from .hooks import install_hooks

        install_hooks(name)
    if job["mark"] or job.get("needs_shell"):
        from .likeness import look_like_a_kernel

        look_like_a_kernel(namespace, needs_shell=job.get("needs_shell", False))
    session = None
    if is_main and job.get("session"):
        from .session import begin

        # Before the job's own files and values, which are newer.
        session = begin(job["session"], cell, namespace, job.get("outputs", []))
    if is_main and (job.get("files") or job.get("save")):
        from .files import receive_files

        receive_files(job.get("files", {}), job.get("save", []))
    if job.get("inputs"):
        from .values import restore_inputs

        allow_pickle = job.get("pickle", False)
        namespace.update(
            restore_inputs(job["inputs"], allow_pickle=allow_pickle, namespace=namespace)
        )
    features = session.future_flags if session is not None else 0
    codes = compile_cell(cell, name, is_shown=is_main, features=features)
    hook, own = sys.excepthook, dict(vars(builtins))
    try:
        if session is None:
            run_codes(codes, namespace)
        else:
            with session.running():
                run_codes(codes, namespace)
    finally:
        sys.excepthook = hook  # a kernel calls no other either
        # The end of the run takes the standard library, and so what the cell may have replaced.
        vars(builtins).update(own)
        if is_main and job["mark"]:
            send_what_is_left(job, namespace)
        if session is not None:
            session.end(namespace)


def send_what_is_left(job: Job, namespace: dict[str, object]) -> None:
    """Send open figures, widgets, values and files, also of a cell that failed."""
    if "matplotlib.pyplot" in sys.modules:
        from .figures import show_open_figures

        show_open_figures()
    if f"{__package__}.shell" in sys.modules:
        from .shell import end_cell

        end_cell()
    if "ipywidgets" in sys.modules:
        from .widgets import draw_changes

        draw_changes()
    if job.get("outputs"):
        from .values import send_outputs

        send_outputs(job["outputs"], namespace, allow_pickle=job.get("pickle", False))
    if job.get("save"):
        from .files import send_files

        send_files(job["save"])


def remember_source(cell: str, name: str, *, is_sent: bool) -> None:
    """Let tracebacks and `inspect` show the cell's lines.

    Args:
        is_sent: whether the exception that ends the program is sent as a frame.
    """
    own_file.remember_lines(cell, name)
    pid = getpid()

    def excepthook(
        kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
    ) -> None:
        # What a forked child raises is text of the run: the run has its own end.
        is_the_end = is_sent and getpid() == pid
        try:
            from .errors import report
        except Exception:  # noqa: BLE001 - the cell has emptied `sys.modules` or `sys.meta_path`
            trace = own_file.without_ours(trace)
            sys.__excepthook__(kind, error.with_traceback(trace), trace)
        else:
            report(error, trace, name, is_sent=is_the_end)

    sys.excepthook = excepthook
    # The interpreter would print these itself, and look for the cell's lines in a file of its name.
    threading.excepthook = print_thread_error
    sys.unraisablehook = print_ignored_error


def print_thread_error(what: threading.ExceptHookArgs) -> None:
    from .errors import print_thread_error

    print_thread_error(what)


def print_ignored_error(
    what: sys.UnraisableHookArgs, by_python: Callable[..., object] = sys.__unraisablehook__
) -> None:
    if sys is None or sys.meta_path is None:  # the interpreter is ending: no import any more
        by_python(what)
        return
    from .errors import print_ignored_error

    print_ignored_error(what)
