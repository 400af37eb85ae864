"""Runs a notebook cell where it arrives; this file travels as text, in front of every cell.

It needs Python 3.9 and the standard library, no package of ours. `submission.source` appends the
call of `run_cell`. The cell runs in `__main__`, in which nothing of this file is left. Its line 1
is the magic line, so that a traceback counts the lines as the notebook does.
"""

from __future__ import annotations
import __future__

import ast
import atexit
import io
import sys
import threading
import types
from time import monotonic

QUIET_S = 0.010
LEAVES_THE_PROCESS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "subprocess.Popen",
}
CO_COROUTINE = 0x80
#: Without the first feature, whose bit has another meaning by now.
FUTURE_FEATURES = sum(
    getattr(__future__, name).compiler_flag for name in __future__.all_feature_names[1:]
)


class LiveStdout(io.TextIOWrapper):
    """A stdout whose lines leave at once, and which gathers text only while text pours.

    A line is written immediately when nothing was written in the last 10 ms; what comes faster
    waits for the flusher thread, 10 ms at most. So a slow program is live, and a fast one does
    not make two system calls for each print.
    """

    def __init__(self, descriptor: int) -> None:
        raw = io.FileIO(descriptor, "w", closefd=False)
        super().__init__(io.BufferedWriter(raw, 1 << 16), "utf-8", "strict", "\n")
        self._quiet_since = 0.0
        self._held = False
        self._is_ending = False
        self._reset_flusher()

    def _reset_flusher(self) -> None:
        self._flusher: threading.Thread | None = None
        self._wake = threading.Event()
        self._leave = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        if self._is_ending or (text[-1:] == "\n" and monotonic() - self._quiet_since >= QUIET_S):
            self.flush()
        elif not self._held:
            self._held = True
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_late, daemon=True)
                self._flusher.start()
            self._wake.set()
        return count

    def flush(self) -> None:
        self._held = False
        super().flush()
        self._quiet_since = monotonic()

    def _flush_late(self) -> None:
        while not self._leave.is_set():
            self._wake.wait()
            self._wake.clear()
            self._leave.wait(QUIET_S)
            if self._held:
                self.flush()

    def settle(self) -> None:
        """Writes what is held and ends the flusher: a fork must find neither text nor thread.

        (Python 3.12 and later warn when a process with more than one thread forks.)
        """
        if self._held:
            self.flush()
        if self._flusher is not None and self._flusher is not threading.current_thread():
            self._leave.set()
            self._wake.set()
            self._flusher.join(1)
            self._reset_flusher()

    def end(self) -> None:
        """From now on every write leaves at once.

        While the interpreter ends it prints what destructors print, and starts no thread any
        more: up to Python 3.11 the attempt waits for ever.
        """
        self._is_ending = True
        self.settle()


class LiveStderr(io.TextIOWrapper):
    """An unbuffered stderr that lets stdout go first, so that both arrive in their order."""

    def __init__(self, descriptor: int, stdout: LiveStdout) -> None:
        raw = io.FileIO(descriptor, "w", closefd=False)
        super().__init__(raw, "utf-8", "backslashreplace", "\n", write_through=True)
        self._stdout = stdout

    def write(self, text: str) -> int:
        if self._stdout._held:
            self._stdout.flush()
        return super().write(text)


def install_streams() -> None:
    sys.stdout.flush()
    stdout = LiveStdout(1)
    sys.stdout = sys.__stdout__ = stdout  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = LiveStderr(2, stdout)  # type: ignore[misc]
    atexit.register(stdout.end)

    def settle_before(event: str, _args: tuple[object, ...]) -> None:
        if event in LEAVES_THE_PROCESS:
            stdout.settle()

    sys.addaudithook(settle_before)


def hide_own_frames(cell: str, name: str) -> None:
    """Tracebacks begin at the cell: nothing of this file, of the runner or of asyncio above it."""
    import linecache

    linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)

    def excepthook(
        kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
    ) -> None:
        import traceback

        outer = trace
        while outer is not None and outer.tb_frame.f_code.co_filename != name:
            outer = outer.tb_next
        if outer is None and isinstance(error, SyntaxError):
            trace = None  # the cell itself could not be compiled: nothing of it has run
        traceback.print_exception(kind, error, outer or trace)

    sys.excepthook = excepthook


def run_cell(cell: str, name: str, namespace: dict[str, object]) -> None:
    """Runs the cell and shows the value of its last expression.

    Args:
        cell: Python source; top-level `await` is allowed.
        name: what tracebacks call it.
        namespace: of the module that this is sent as. That is `__main__`, or `__mp_main__` in a
            worker that multiprocessing has spawned, which needs the definitions and no more.
    """
    cell = "\n" + cell
    install_streams()
    hide_own_frames(cell, name)
    codes = compile_cell(cell, name, is_shown=namespace["__name__"] == "__main__")
    if not any(code.co_flags & CO_COROUTINE for code in codes):
        for code in codes:
            exec(code, namespace)
        return

    import asyncio

    async def run_all() -> None:
        for code in codes:
            pending = eval(code, namespace)
            if code.co_flags & CO_COROUTINE:
                await pending

    asyncio.run(run_all())


def compile_cell(cell: str, name: str, *, is_shown: bool) -> list[types.CodeType]:
    allow_await = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(cell, name, "exec", ast.PyCF_ONLY_AST | allow_await, dont_inherit=True)
    last = None
    if (
        is_shown
        and tree.body
        and isinstance(tree.body[-1], ast.Expr)
        and not cell.rstrip().endswith(";")
    ):
        last = ast.Interactive([tree.body.pop()])
    codes = [compile(tree, name, "exec", allow_await, dont_inherit=True)]
    if last is not None:
        # Mode "single" hands the value to sys.displayhook, as an interactive Python does.
        flags = allow_await | (codes[0].co_flags & FUTURE_FEATURES)
        codes.append(compile(last, name, "single", flags, dont_inherit=True))
    return codes
