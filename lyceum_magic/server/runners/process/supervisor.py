"""The supervisor of a Python run, a process of its own, and the program's process until it begins.

One hand-over comes in on the control socket, which is stdin; out go the run's spool, its facts and
its end (see `control`). It is started ahead of need as `python -P -m ...supervisor N BOOTSTRAP`,
where N is how many descriptors a program may have, and forks at once: the child will become the
program, the parent is its supervisor, which outlives the server. With `zygote` as a third argument
it never has a run of its own, and forks such a supervisor for each order on stdin (see `zygote`).
Beside the files of `control`, the run's folder holds:

    bootstrap.py      of a cell that came without it: see `protocol.bootstrap`
    memory-error      there if the program died of its memory limit and knew it
    work/             the program's own folder

Only the standard library is imported here, and lightly: the program inherits this interpreter.
"""

from __future__ import annotations

# Most programs from notebooks import those that nothing here uses: imported before there is a run.
import __future__  # noqa: F401

import ast  # noqa: F401
import atexit  # noqa: F401
import binascii  # noqa: F401
import builtins
import contextlib
import ctypes
import errno
import gc
import io  # noqa: F401
import json
import linecache  # noqa: F401
import marshal  # noqa: F401
import os
import select
import signal
import socket
import sys
import threading  # noqa: F401
import time
import zlib  # noqa: F401
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

from .... import trail
from ....disks import reason
from ...descriptors import set_limit
from ...output.masking import program_variables
from ...output.spool import SpoolWriter
from .. import control
from ..control import EndFile, Servers, redirect_to_null
from . import memory, zygote

if TYPE_CHECKING:
    from ....protocol.events import StreamName

_ExceptHook = Callable[[type[BaseException], BaseException, TracebackType | None], None]

#: The package that a bootstrap makes importable, and its modules that need nothing from elsewhere.
BOOTSTRAP = "lyceum_magic_remote"
BOOTSTRAP_MODULES = [
    "arrays", "bootstrap", "compiling", "deflating", "display", "errors", "figures", "files",
    "frames", "hooks", "kinds", "libraries", "likeness", "magics", "masking", "own_file", "pickles",
    "pretty", "refusals", "shell", "streams", "surroundings", "tables", "values", "widgets",
    "workers",
]  # fmt: skip

#: The time that children which outlive the program have to finish their output. In seconds.
DRAIN_S = 0.5

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_READ_BYTES = 1 << 16


class Assignment(TypedDict):
    """The content of `assignment.json`. Times in seconds.

    Attributes:
        script: the program's file name below `work/`.
        path: folders to put on the import path, after `work/`.
        memory_limit_bytes: how much memory the program may use; None for no limit.
        bootstrap: the digest of the bootstrap that the program needs; empty if it needs none.
        session_folder: the folder of its session's snapshots; empty outside of a session.
    """

    run_id: str
    script: str
    prior_imports: list[str]
    path: list[str]
    environment: dict[str, str]
    timeout_s: float
    stop_grace_s: float
    memory_limit_bytes: int | None
    bootstrap: str
    session_folder: str


# --- waiting ---------------------------------------------------------------------------------


def _wait_for_run() -> tuple[CodeType, dict[str, Any]]:
    """Fork, and wait for the hand-over; return in the program's process alone."""
    count, bootstrap, *role = sys.argv[1:]
    set_limit(int(count))
    # What the server has inherited and cannot know of must not reach programs.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    server = socket.socket(fileno=os.dup(0))
    redirect_to_null(0)
    loaded = _load_bootstrap(bootstrap)
    gc.freeze()  # what is here already is not the program's garbage, nor is its memory copied
    if role == [zygote.ROLE]:
        server = zygote.Zygote(server).serve()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    go_reader, go = os.pipe()
    stdout_reader, stdout = os.pipe()
    stderr_reader, stderr = os.pipe()
    supervisor = os.getpid()
    program = os.fork()
    if program:
        for descriptor in (go_reader, stdout, stderr):
            os.close(descriptor)
        _supervise(server, program, go, stdout_reader, stderr_reader)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the line above took effect
        os._exit(1)
    os.setsid()  # a signal to the program's process group must not reach the supervisor
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    server.close()
    for descriptor in (go, stdout_reader, stdout, stderr_reader, stderr):
        os.close(descriptor)
    memory.own_memory()
    folder = os.read(go_reader, 4096)
    os.close(go_reader)
    if not folder:
        os._exit(0)
    return _become_program(folder, loaded)


def _load_bootstrap(file: str) -> str:
    """Load what most cells need, before there is a run.

    Returns:
        The bootstrap's digest; empty if there is none, and each cell loads its run's own.
    """
    try:
        with open(file, encoding="utf-8") as text:
            exec(text.read(), {})
    except FileNotFoundError:
        return ""
    for name in BOOTSTRAP_MODULES:
        __import__(f"{BOOTSTRAP}.{name}")
    return os.path.basename(file).removesuffix(".py")


def _unload_bootstrap() -> None:
    """Remove the bootstrap, for a program that does not need it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == BOOTSTRAP]:
        del sys.modules[name]
    sys.meta_path[:] = [
        finder for finder in sys.meta_path if getattr(finder, "__module__", "") != BOOTSTRAP
    ]


def _supervise(server: socket.socket, program: int, go: int, stdout: int, stderr: int) -> NoReturn:
    """Do the parent's part: wait for the hand-over, let the program go, see to its end."""
    poll = select.poll()
    poll.register(server, select.POLLIN)
    poll.register(stdout, select.POLLIN)  # at its end if the waiting program was killed
    if stdout in (descriptor for descriptor, _ in poll.poll()):
        os._exit(1)

    def supervise(assignment: Assignment, servers: Servers) -> None:
        folder = os.fsencode(os.getcwd())
        supervisor = Supervisor(assignment, program, servers)
        supervisor.run(lambda: os.write(go, folder), stdout, stderr)

    control.supervise_one_run(server, supervise)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


# --- the supervisor --------------------------------------------------------------------------


class Supervisor:
    """The supervisor: it keeps a program's output and time limit, and writes how it ended."""

    def __init__(self, assignment: Assignment, program: int, servers: Servers) -> None:
        self._assignment = assignment
        self._program = program
        self._servers = servers
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._open_pipes: set[int] = set()
        self._started_at = 0.0
        self._reason = ""  # why we ended it; empty if it ended by itself
        self._return_code: int | None = None  # of the program, once it is gone
        self._failure = ""  # why we cannot go on
        self._memory_group: str | None = None  # the cgroup that limits the program
        self._kills_before = 0  # of processes of this machine, for want of memory
        # Moments of time.monotonic(); infinity if nothing is due.
        self._limit_due = self._kill_due = self._drain_due = float("inf")

    def run(self, let_go: Callable[[], object], stdout: int, stderr: int) -> None:
        """Let the program go; return when all of it is gone and written down."""
        end_file = EndFile()
        self._mark("up")
        self._spool = SpoolWriter(control.SPOOL, secrets=self._assignment["environment"].values())
        if limit := self._assignment["memory_limit_bytes"]:
            # Not by the run's id: everybody can read the names of groups.
            name = os.path.basename(os.getcwd())
            self._memory_group = memory.limit_memory(self._program, limit, name)
        self._started_at = time.time()
        control.write_facts(self._started_at, memory_group=self._memory_group)
        self._supervise(let_go, stdout, stderr)
        end = self._end()
        if self._memory_group is not None:
            memory.remove_group(self._memory_group)
        end_file.put(json.dumps(end))
        self._mark("end", reason=end["reason"], offset=self._spool.end)

    def _supervise(self, let_go: Callable[[], object], stdout: int, stderr: int) -> None:
        """Return when the program and all it started are gone and the spool is complete."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        pipes: dict[int, StreamName] = {stdout: "stdout", stderr: "stderr"}
        for pipe in pipes:
            os.set_blocking(pipe, False)
            self._watch(pipe, lambda pipe: self._read(pipe, pipes[pipe]))
        self._open_pipes = set(pipes)
        self._watch_children()
        self._watch(self._servers.listener, lambda fd: self._accept())
        for descriptor in self._servers.descriptors:
            self._watch(descriptor, self._obey)
        # Last, so that we already wait for its output: only then is the order of stdout against
        # stderr the order in which it wrote.
        let_go()
        self._limit_due = time.monotonic() + self._assignment["timeout_s"]
        self._servers.tell(control.STARTED)
        self._mark("program")
        # After the two lines that the user waits for.
        self._kills_before = memory.kills_on_machine()
        try:
            while not self._is_over():
                for descriptor, _ in self._poll.poll(self._patience_ms()):
                    if handler := self._handlers.get(descriptor):
                        handler(descriptor)
                self._keep_time()
            self._kill_all()
            for pipe, stream in pipes.items():
                while pipe in self._open_pipes and self._read(pipe, stream):
                    pass
            self._spool.flush(time.time())
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
            why = reason(exc, ".")
            self._failure = f"the run's output could not be written: {why}"
            self._kill_all()

    # What may happen meanwhile.

    def _watch(self, descriptor: int, handler: Callable[[int], object]) -> None:
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def _unwatch(self, descriptor: int) -> None:
        del self._handlers[descriptor]
        self._poll.unregister(descriptor)

    def _watch_children(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def on_signal(descriptor: int) -> None:
            os.read(descriptor, 4096)
            self._reap()

        self._watch(reader, on_signal)
        self._reap()  # a child may have died before we listened

    def _read(self, descriptor: int, stream: StreamName) -> bool:
        """Move one read's worth of output into the spool; return False if there is none."""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._unwatch(descriptor)
            self._open_pipes.discard(descriptor)
            return False
        if self._spool.append(stream, time.time(), data):
            self._servers.tell(control.GROWN)
        if trail.is_on:
            self._mark("spool", stream=stream, bytes=len(data), offset=self._spool.end)
        return True

    def _accept(self) -> None:
        """Let a server in that came back, and tell it at once that the program runs."""
        descriptor = self._servers.accept()
        if descriptor is not None:
            self._watch(descriptor, self._obey)
            self._servers.tell(control.STARTED)

    def _obey(self, descriptor: int) -> None:
        orders = self._servers.orders(descriptor)
        if not orders:  # that server is gone; the run goes on
            self._unwatch(descriptor)
        elif control.KILL in orders:
            self._reason = "aborted"
            self._kill_all()
        elif control.STOP in orders and not self._reason:
            self._terminate("stopped")

    def _mark(self, station: str, **facts: int | str) -> None:
        trail.mark("supervisor", self._assignment["run_id"], station, **facts)

    # Time.

    def _is_over(self) -> bool:
        if self._return_code is None:
            return False
        return not self._open_pipes or time.monotonic() >= self._drain_due

    def _patience_ms(self) -> float | None:
        due = min(self._limit_due, self._kill_due, self._drain_due)
        return None if due == float("inf") else max(0.0, due - time.monotonic()) * 1000 + 0.5

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now >= self._kill_due:
            self._kill_due = float("inf")
            self._kill_all()
        elif now >= self._limit_due and not self._reason and self._return_code is None:
            self._terminate("timeout")

    def _terminate(self, reason: str) -> None:
        """Send SIGTERM to the program, which may end its own children in its own order."""
        self._reason = reason
        self._limit_due = float("inf")
        self._kill_due = time.monotonic() + self._assignment["stop_grace_s"]
        if self._return_code is None:
            os.kill(self._program, signal.SIGTERM)

    # The end.

    def _reap(self, options: int = os.WNOHANG) -> bool:
        """Bury dead children, ours by birth or as subreaper; return False if no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, options)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            options = os.WNOHANG
            if pid == self._program:
                code = os.waitstatus_to_exitcode(status)
                self._return_code = code if code >= 0 else 128 - code
                self._limit_due = self._kill_due = float("inf")
                self._drain_due = time.monotonic() + DRAIN_S

    def _kill_all(self) -> None:
        """Kill until no descendant is left.

        A process that loses its parent becomes our child, so "no child" means "no descendant". Each
        round kills every child there was, and so can wait for one of them to die.
        """
        while self._reap():
            import psutil  # most runs leave no process

            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._reap(options=0)

    def _end(self) -> dict[str, Any]:
        """Return the fields of a `RunEnd`."""
        reason, code = self._reason or "exited", self._return_code
        error = control.order_sentence(reason, self._assignment["timeout_s"])
        if self._failure:
            reason, code, error = "lost", None, self._failure
        elif reason in ("timeout", "aborted"):
            code = None
        elif reason == "exited" and code:
            error = self._want_of_memory() or control.describe_return_code(code)
        return {
            "reason": reason,
            "return_code": code,
            "error": error,
            "started_at": self._started_at,
            "finished_at": time.time(),
        }

    def _want_of_memory(self) -> str:
        """Return the sentence for a program that ended for lack of memory; empty for others."""
        limit = self._assignment["memory_limit_bytes"]
        if limit and (
            memory.kills_in_group(self._memory_group)
            if self._memory_group is not None
            else os.path.exists(memory.MEMORY_ERROR)
        ):
            return memory.out_of_memory(limit)
        if (
            self._return_code == 128 + signal.SIGKILL
            and memory.kills_on_machine() > self._kills_before
        ):
            return "the program was killed: the machine ran out of memory"
        return ""


# --- the program -----------------------------------------------------------------------------


def _become_program(run_folder: bytes, bootstrap: str) -> tuple[CodeType, dict[str, Any]]:
    """Remove the supervisor's traces; return the program's code and the namespace to execute it in.

    Args:
        bootstrap: the digest of the one that is loaded; empty if none is.
    """
    os.chdir(run_folder)
    with open(control.ASSIGNMENT, encoding="utf-8") as file:
        assignment: Assignment = json.load(file)
    os.unlink(control.ASSIGNMENT)
    os.chdir("work")
    work = os.getcwd()
    script = os.path.join(work, assignment["script"])
    os.environ.pop(trail.VARIABLE, None)  # the supervisor's, and not the program's
    os.environ.update(program_variables(assignment["environment"]))
    os.environ["LYCEUM_RUN_ID"] = assignment["run_id"]
    os.environ.pop("LYCEUM_SESSION_FOLDER", None)  # the server may have been started in a run
    if assignment["session_folder"]:
        os.environ["LYCEUM_SESSION_FOLDER"] = assignment["session_folder"]
    if assignment["path"]:
        os.environ["PYTHONPATH"] = os.pathsep.join(assignment["path"])
    sys.path[:0] = [work, *assignment["path"]]
    sys.argv[:] = [script]
    sys.orig_argv[:] = [sys.executable, script]
    sys.excepthook = _print_program_error
    if assignment["memory_limit_bytes"]:
        sys.excepthook = _leave_word_of_memory(os.fsdecode(run_folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "lyceum_magic"]:
        del sys.modules[name]
    if assignment["bootstrap"] != bootstrap:
        _unload_bootstrap()
    main = ModuleType("__main__")
    main.__dict__.update(
        __builtins__=builtins,
        __file__=script,
        __cached__=None,
        __loader__=SourceFileLoader("__main__", script),
        __annotations__={},
    )
    sys.modules["__main__"] = main
    # Before the code rather than inside it: its line numbers stay as they are, and its docstring
    # and __future__ lines stay first.
    for statement in assignment["prior_imports"]:
        exec(compile(statement, "<prior_imports>", "exec"), main.__dict__)
    with open(script, encoding="utf-8", newline="") as file:
        return compile(file.read(), script, "exec", dont_inherit=True), main.__dict__


def _print_program_error(
    kind: type[BaseException], error: BaseException, frames: TracebackType | None
) -> None:
    """Print an uncaught exception without the frames that led to the program."""
    while frames and frames.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
        frames = frames.tb_next
    sys.__excepthook__(kind, error.with_traceback(frames), frames)


def _leave_word_of_memory(run_folder: str) -> _ExceptHook:
    """Return the same hook for a program with a memory limit.

    It tells the supervisor of a MemoryError by a file.
    """

    def hook(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
        if issubclass(kind, MemoryError):
            # Where even this fails, the traceback says it all the same.
            with contextlib.suppress(OSError, MemoryError):
                path = os.path.join(run_folder, memory.MEMORY_ERROR)
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        _print_program_error(kind, error, frames)

    return hook


if __name__ == "__main__":
    # The last statement: exit codes, atexit, threads and finalisation are the interpreter's own.
    exec(*_wait_for_run())
