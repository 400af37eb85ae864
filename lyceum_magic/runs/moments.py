"""Calls on the user's main thread: between cells, never in the middle of one.

The one module that knows how kernels, terminals and scripts differ in this.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class SafeMoments:
    """Calls of `action` on the main thread, soon after each `ring`.

    In a notebook at once if its kernel is idle, else after the cell; in a terminal after the next
    cell; in a script when it waits (`script_waits`).
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._shell: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_busy = False

    def watch(self) -> None:
        """Register with the shell, so that it says when cells begin and end."""
        shell = present_shell()
        if shell is None or shell is self._shell:
            return
        self._shell = shell
        self._is_busy = _is_in_a_cell()
        # Not pre_run_cell and post_run_cell: a front end's silent requests have none.
        shell.events.register("pre_execute", self._begin)
        shell.events.register("post_execute", self._end)
        # Without ipykernel's loop, the end of the next cell is the next safe moment.
        loop = getattr(getattr(shell, "kernel", None), "io_loop", None)
        self._loop = getattr(loop, "asyncio_loop", None)

    def ring(self) -> None:
        """Ask for a call of `action`; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the kernel has closed its loop: it ends
                self._loop.call_soon_threadsafe(self._when_idle)

    def script_waits(self) -> None:
        """Call `action` now if this is a script's main thread, which waits or has just waited."""
        if self._shell is None and threading.current_thread() is threading.main_thread():
            self._action()

    def _begin(self) -> None:
        self._is_busy = True

    def _end(self) -> None:
        if not _is_in_a_cell():  # else a cell that runs cells goes on
            self._is_busy = False
            self._action()

    def _when_idle(self) -> None:
        # The loop goes round in the middle of a cell that awaits something.
        if not self._is_busy:
            self._action()


class OriginCell:
    """The cell in which this object is made: a function called through it shows its outputs there.

    nbclient and papermill take no output of an earlier cell. With them the outputs are shown in the
    cell that has just ended.
    """

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._parent = _parent_of(present_shell())
        content = (self._parent or {}).get("content", {})
        self._is_attended = content.get("allow_stdin", True)  # as these two never do

    def call(self, function: Callable[[], None]) -> None:
        """Call a function whose outputs belong into this cell."""
        if self._is_attended:
            self._context.copy().run(self._call, function)
        else:
            function()

    def _call(self, function: Callable[[], None]) -> None:
        shell = present_shell()
        with _interruptible():
            if self._parent is None:
                function()
                return
            # Kernels up to ipykernel 6 find the cell of a display in the shell, not the context.
            before = _parent_of(shell)
            shell.set_parent(self._parent)
            try:
                function()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                if before is not None:
                    shell.set_parent(before)


def present_shell() -> Any:
    """Return IPython's shell; None if this process has none."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()


def _parent_of(shell: Any) -> Any:
    if not hasattr(shell, "get_parent"):
        return None  # no kernel
    try:
        return shell.get_parent()
    except LookupError:  # ipykernel 7.0, after all cells
        return None


def _is_in_a_cell() -> bool:
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "run_cell_async":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let an interrupt raise KeyboardInterrupt in the block: an idle kernel ignores it."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or callable(before := signal.getsignal(signal.SIGINT)):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
