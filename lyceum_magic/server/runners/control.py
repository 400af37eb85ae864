"""The channel between a server and a supervisor: the files, the lock, the socket and its bytes.

Both ends import this module. A supervisor becomes the program's interpreter, so the module takes
little more than the standard library, and lightly. The folder of a run holds:

    assignment.json   what to run; deleted as soon as it is read, because it holds secrets
    lock              flock'ed from before the hand-over until the supervisor is gone
    control.sock      where a later server finds the supervisor
    supervisor.json   the facts: written before the program begins; without it, nothing has run
    spool             the output
    detail.json       what the run waits for
    exit.json         how it ended
    supervisor.log    the traceback of a supervisor that failed

The lock is the truth about life and death. It belongs to an open file that the server locks and
passes on with the hand-over, so there is no moment at which a run in progress is not locked, and
no process id that another process could have taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from ... import trail

if TYPE_CHECKING:
    from pathlib import Path

ASSIGNMENT = "assignment.json"
LOCK = "lock"
SOCKET = "control.sock"
FACTS = "supervisor.json"
SPOOL = "spool"
DETAIL_FILE = "detail.json"
END = "exit.json"

# The messages on the socket: single bytes, so that none is ever half sent. The server's orders:
KILL = b"k"
STOP = b"s"
# The supervisor's notices: the program began, the spool grew, DETAIL_FILE holds another phrase.
STARTED = b"S"
GROWN = b"g"
DETAIL = b"d"

#: The variable that marks every process of a run, forked or executed, while it keeps its
#: environment.
SUPERVISOR_ID = "LYCEUM_SUPERVISOR_ID"

_END_DRAFT = "exit.draft"
_END_BYTES = 4096
_MOST_CONNECTIONS = 32
_ORDERS_BYTES = 4096


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write a small file by rename, so that a reader sees all of it or nothing."""
    draft = f"{os.fspath(path)}.draft"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)  # a part of it may be there, with the account's secrets
        raise


# --- the supervisor's end, in the run's folder -------------------------------------------------


def supervise_one_run(server: socket.socket, supervise: Callable[[Any, Servers], None]) -> NoReturn:
    """Take one run over from the server, see it through to its end, and end this process.

    Args:
        server: the control socket, on which the hand-over comes.
        supervise: called in the run's folder, with the assignment.
    """
    folder, descriptors, *_ = socket.recv_fds(server, 4096, 2)
    if not folder:  # the server is gone, and never needed us
        os._exit(0)
    # It was the server's, and showed why a start-up failed. The debug trail keeps it.
    if trail.is_on:
        trail.write_to(os.dup(2))
    redirect_to_null(2)
    os.chdir(folder)
    try:
        _lock, listener = descriptors  # the lock is held until this process ends
        with open(ASSIGNMENT, encoding="utf-8") as file:
            assignment = json.load(file)
        trail.own_run = assignment["run_id"]
        supervise(assignment, Servers(server, socket.socket(fileno=listener)))
    except BaseException:  # noqa: BLE001 - the top of this process; the server sees its end
        log_exception()
        os._exit(1)
    os._exit(0)


def redirect_to_null(descriptor: int) -> None:
    """Make a descriptor read nothing and write nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)


def log_exception() -> None:
    """Append the traceback of the exception that is being handled to `supervisor.log`."""
    # A full disk costs the log, and nothing else.
    with contextlib.suppress(OSError), open("supervisor.log", "a", encoding="utf-8") as log:
        traceback.print_exc(file=log)


def write_facts(started_at: float, **more: object) -> None:
    """Write `supervisor.json`: the program begins now.

    Args:
        started_at: seconds since 1970.
        more: facts that only this kind of supervisor has.

    Raises:
        OSError: the disk is full, or fails.
    """
    mark = os.environ.get(SUPERVISOR_ID, "")
    write_json(FACTS, {**more, "pid": os.getpid(), "id": mark, "started_at": started_at})


class Servers:
    """The servers that a supervisor hears: the one that handed the run over, and later ones.

    Not for several threads at a time.
    """

    def __init__(self, control: socket.socket, listener: socket.socket) -> None:
        control.setblocking(False)
        listener.setblocking(False)
        self._connections = {control.fileno(): control}
        self._listener = listener
        self.listener = listener.fileno()

    @property
    def descriptors(self) -> list[int]:
        """The connections to poll, beside the listener."""
        return list(self._connections)

    def accept(self) -> int | None:
        """Let a server in that came back; return its descriptor, None if there are too many."""
        connection, _ = self._listener.accept()
        if len(self._connections) >= _MOST_CONNECTIONS:
            connection.close()  # servers come one at a time: the program opens these
            return None
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        return connection.fileno()

    def orders(self, descriptor: int) -> bytes:
        """Read a server's orders; empty if it is gone, and then its connection is closed."""
        connection = self._connections[descriptor]
        try:
            orders = connection.recv(_ORDERS_BYTES)
        except ConnectionResetError:
            orders = b""
        if not orders:
            del self._connections[descriptor]
            connection.close()
        return orders

    def tell(self, notice: bytes) -> None:
        """Send a notice to every server."""
        for connection in self._connections.values():
            # A full buffer holds notices enough, and `orders` notices a closed one.
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                connection.send(notice)

    def close(self) -> None:
        """Close all connections: a server takes that for the supervisor's end."""
        while self._connections:
            self._connections.popitem()[1].close()


class EndFile:
    """`exit.json`: its room on the disk is taken first, in case the disk is full by the end."""

    def __init__(self) -> None:
        self._draft = os.open(_END_DRAFT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(self._draft, b" " * _END_BYTES)

    def put(self, text: str) -> None:
        """Write how the run ended, after all of the program is gone.

        Whatever the program put in the places of these files is moved aside.

        Args:
            text: the fields of a `RunEnd` as JSON, at most 4,096 bytes.
        """
        os.pwrite(self._draft, text.encode(), 0)
        with contextlib.suppress(PermissionError):
            os.chmod(".", 0o700)
        own = str(os.getpid())
        if os.path.isdir(END) and not os.path.islink(END):  # no file can replace it
            os.rename(END, f"{END}.{own}")
        try:
            is_ours = os.path.samestat(os.fstat(self._draft), os.lstat(_END_DRAFT))
        except FileNotFoundError:
            is_ours = False
        draft = _END_DRAFT
        if not is_ours:  # the program took its name away
            draft = f"exit.{own}.{time.monotonic_ns()}"
            with open(draft, "x", encoding="utf-8") as file:
                file.write(text)
        os.rename(draft, END)


def order_sentence(reason: str, timeout_s: float | None = None) -> str:
    """Return the sentence for a run that its time limit or an order ended; empty for others."""
    of_limit = "" if timeout_s is None else f" of {timeout_s:g} s"
    return {
        "timeout": f"the run exceeded its time limit{of_limit}",
        "aborted": "the run was aborted",
        "stopped": "the run was stopped",
    }.get(reason, "")


def describe_return_code(code: int) -> str:
    """Return one sentence for a return code other than 0."""
    try:
        name = signal.Signals(code - 128).name
    except ValueError:
        return f"the program ended with exit code {code}"
    sentence = f"the program was killed by signal {code - 128} ({name})"
    if name == "SIGKILL":
        sentence += "; running out of memory is the usual cause"
    return sentence


# --- the server's end --------------------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Lock a run; it stays locked while any process has this descriptor or a copy of it."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def is_supervised(folder: Path) -> bool:
    """Return whether a supervisor has the run in `folder`."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return is_held(lock)
    finally:
        os.close(lock)


def is_held(lock: int) -> bool:
    """Return whether another process holds the lock of this open file."""
    try:
        # Shared: others who only look, at the same moment, are no supervisors.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[socket.socket]:
    """Open the socket on which the supervisor will wait for later servers."""
    with socket.socket(socket.AF_UNIX) as listener, _short_path(folder) as short:
        (folder / SOCKET).unlink(missing_ok=True)
        listener.bind(f"{short}/{SOCKET}")
        listener.listen()
        yield listener


def connect(folder: Path) -> socket.socket:
    """Connect to the supervisor of the run in `folder`, without waiting for it.

    Raises:
        OSError: it does not listen, or the machine lacks something.
    """
    control = socket.socket(socket.AF_UNIX)
    try:
        control.setblocking(False)  # a supervisor that hangs would keep us waiting
        with _short_path(folder) as short:
            control.connect(f"{short}/{SOCKET}")
    except BaseException:
        control.close()
        raise
    return control


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """Give `folder` another path: a socket's address has room for about 100 characters."""
    if sys.platform == "linux":
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        import tempfile  # not lightly, and only here

        with tempfile.TemporaryDirectory(dir="/tmp") as parent:
            link = os.path.join(parent, "run")
            os.symlink(folder, link)
            yield link
