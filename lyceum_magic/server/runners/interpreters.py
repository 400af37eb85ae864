"""Interpreters that wait for a run and become its supervisor, seen from the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...variables import for_supervisor
from ..descriptors import inherited_limit
from .control import SUPERVISOR_ID


@dataclass(frozen=True, eq=False)
class Interpreter(ABC):
    """A waiting interpreter, later a supervisor. Its control socket ends when it dies.

    Attributes:
        mark: what it and all that it starts have as SUPERVISOR_ID.
    """

    control: socket.socket
    mark: str

    def hand_over(self, folder: Path, lock: int, listener: socket.socket) -> None:
        """Give it the run whose assignment lies in `folder`; see `control`.

        A few bytes into an empty socket: they are sent as a whole, and at once.

        Raises:
            BrokenPipeError, ConnectionResetError: it has died.
        """
        socket.send_fds(self.control, [os.fsencode(folder)], [lock, listener.fileno()])

    @abstractmethod
    def kill(self) -> None:
        """Kill it, if it is still alive."""

    @abstractmethod
    async def buried(self) -> None:
        """Wait until the process is gone from the process table; it must have been killed."""


@dataclass(frozen=True, eq=False)
class SpawnedInterpreter(Interpreter):
    """An interpreter that the server has started: its child."""

    pid: int

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def buried(self) -> None:
        await asyncio.to_thread(os.waitpid, self.pid, 0)


def new_mark() -> str:
    """Return a mark that no other process has: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def spawn_interpreter(
    module: str = "process.supervisor",
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    control: socket.SocketKind = socket.SOCK_STREAM,
) -> SpawnedInterpreter:
    """Start a process that waits for a run.

    Args:
        module: the supervisor's, below `runners`, such as `process.supervisor` or `compose.work`.
        environment: variables to add for it.
        arguments: of its command line, after the number of descriptors that it may have.
        control: the kind of its control socket, which is its stdin.
    """
    mark = new_mark()
    ours, theirs = socket.socketpair(socket.AF_UNIX, control)
    variables = for_supervisor() | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        SUPERVISOR_ID: mark,
        **(environment or {}),
    }
    with theirs, contextlib.ExitStack() as undo:
        undo.enter_context(ours)
        pid = os.posix_spawn(
            sys.executable,
            # -P: nothing of the server's working directory may shadow the standard library.
            [
                *(sys.executable, "-P", "-m", f"lyceum_magic.server.runners.{module}"),
                str(inherited_limit()),
                *arguments,
            ],
            variables,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_RDWR, 0),
            ],
            setsid=True,
            # A server in the background may ignore these; its programs must not.
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
            setsigmask=(),
        )
        undo.pop_all()
    ours.setblocking(False)
    return SpawnedInterpreter(ours, mark, pid)
