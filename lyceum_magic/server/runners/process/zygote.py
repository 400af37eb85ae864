"""A process that has loaded what programs need, and forks an interpreter for each run.

Orders come in on a socket of the server's; replies go out on it. Each is one message: a kind, the
mark of an interpreter, and more. A forked interpreter is what one that was started would be: it has
a session, an environment and a random state of its own, and none of the zygote's descriptors. All
that it shares with the others is the seed of Python's hashes and the places of things in memory.

The kernel shows as a process's environment the memory in which it was when the program began, and a
fork has a copy of that. So a fork writes its mark over the zygote's, and `/proc/PID/environ` tells
the processes of one run from those of another, as if each interpreter had been started.

The zygote is the parent of its forks, and of whatever loses its parent below them: it kills what a
supervisor that was killed leaves. It ends with its server, the runs go on, and the next server
finds them by their folders. Linux only. Imported lightly, as all that a program inherits.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket

from ..control import SUPERVISOR_ID

# Orders of the server, each with a mark. A fork has its control socket attached.
FORK = b"f"
BURY = b"b"
# Replies. The first comes once, without a mark. The next two answer a FORK: with the process id,
# or with the number of the error that prevented it. The last answers a BURY.
READY = b"r"
FORKED = b"p"
FAILED = b"x"
BURIED = b"d"

#: The argument that makes an interpreter a zygote.
ROLE = "zygote"
#: The characters of a mark.
MARK_SIZE = 32
#: The most bytes of a message.
MESSAGE_BYTES = 128

_PR_SET_CHILD_SUBREAPER = 36
#: The place of `env_start` in `/proc/PID/stat`, after the command; `env_end` is next. See proc(5).
_ENV_START = 47


class Zygote:
    """The loop of the zygote's process.

    Args:
        server: a socket of the kind SOCK_SEQPACKET, on which the orders come.
    """

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._pids: dict[str, int] = {}  # of living forks, by their marks
        self._marks: dict[int, str] = {}  # the same the other way round
        self._awaited: set[str] = set()  # the marks of those whose end the server waits for
        self._place = _place_of_mark()

    def serve(self) -> socket.socket:
        """Fork at every order; return in each fork, with the control socket that came along.

        In the zygote itself it never returns.
        """
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        poll.register(self._server, select.POLLIN)
        self._tell(READY)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == reader:
                    os.read(reader, 4096)
                    self._reap()
                elif (control := self._obey()) is not None:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for end in (reader, writer):
                        os.close(end)
                    return control

    def _obey(self) -> socket.socket | None:
        """Carry out one order; return the control socket in a fork, None in the zygote."""
        try:
            message, descriptors, *_ = socket.recv_fds(self._server, MESSAGE_BYTES, 1)
        except ConnectionResetError:
            return None  # the server is gone; what it has ordered comes yet, then the end
        if not message:
            os._exit(0)
        mark = message[1 : 1 + MARK_SIZE].decode()
        if message[:1] == BURY:
            self._bury(mark)
            return None
        if not descriptors:  # this process has too many, or the machine has
            self._tell(FAILED, mark, b"0")
            return None
        return self._fork(mark, descriptors[0])

    def _fork(self, mark: str, descriptor: int) -> socket.socket | None:
        try:
            pid = os.fork()
        except OSError as exc:
            self._tell(FAILED, mark, b"%d" % (exc.errno or 0))
            os.close(descriptor)
            return None
        if pid:
            os.close(descriptor)
            self._pids[mark] = pid
            self._marks[pid] = mark
            self._tell(FORKED, mark, b"%d" % pid)
            return None
        self._server.close()
        os.setsid()
        _write(self._place, mark)
        os.environ[SUPERVISOR_ID] = mark  # for what it will execute
        os.set_inheritable(descriptor, False)
        return socket.socket(fileno=descriptor)

    def _bury(self, mark: str) -> None:
        """Kill a fork, if it lives; tell the server when it is gone."""
        pid = self._pids.get(mark)
        if pid is None:
            self._tell(BURIED, mark)
            return
        self._awaited.add(mark)
        # Its number is not another's yet: that takes a waitpid() of ours.
        os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Take dead children out of the process table; kill what they may have left."""
        left = False
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                mark = self._marks.pop(pid, "")
                self._pids.pop(mark, None)
                if mark in self._awaited:
                    self._awaited.discard(mark)
                    self._tell(BURIED, mark)
                # A supervisor that ends in order leaves nothing.
                left = left or not mark or status != 0
        if left:
            self._kill_strays()

    def _kill_strays(self) -> None:
        """Kill the children that are no forks: what a dead supervisor left.

        Theirs become ours when they die, and then it is their turn.
        """
        own = b"%d" % os.getpid()
        for name in os.listdir("/proc"):
            if not name.isdecimal() or int(name) in self._marks:
                continue
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                if _fields(file.read())[1] == own:
                    os.kill(int(name), signal.SIGKILL)

    def _tell(self, kind: bytes, mark: str = "", more: bytes = b"") -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # _obey() notices
            self._server.send(kind + mark.encode() + more)


def _place_of_mark() -> int:
    """Return the address of this process's mark in the environment that the kernel shows.

    Raises:
        OSError: the kernel shows none, or another.
    """
    with open("/proc/self/stat", "rb") as file:
        start, end = map(int, _fields(file.read())[_ENV_START : _ENV_START + 2])
    mark = os.environ[SUPERVISOR_ID]
    name = f"{SUPERVISOR_ID}="
    found = ctypes.string_at(start, end - start).find(f"{name}{mark}".encode())
    if found < 0:
        raise OSError("the mark is not where the kernel says that the environment is")
    place = start + found + len(name)
    _write(place, mark[::-1])
    with open("/proc/self/environ", "rb") as file:
        is_shown = f"{name}{mark[::-1]}".encode() in file.read().split(b"\0")
    _write(place, mark)
    if not is_shown:
        raise OSError("the kernel does not show a mark that was changed")
    return place


def _write(place: int, mark: str) -> None:
    ctypes.memmove(place, mark.encode(), MARK_SIZE)


def _fields(stat: bytes) -> list[bytes]:
    """Return the fields of `/proc/PID/stat` after the command, which may hold anything."""
    return stat.rpartition(b")")[2].split()
