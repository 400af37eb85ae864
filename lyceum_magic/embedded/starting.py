"""Start an embedded server in a state folder, as a process that outlives this one."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..disks import shortage
from ..exceptions import EmbeddedServerError
from ..folders import server_folder, user_folder
from ..own_files import is_misplaced, open_own, own_folder, read_own
from ..protocol.state_folder import INTERPRETER_FILE
from ..variables import for_server
from .holder import unusable

#: A server that was started on demand ends after this long without a run or a follower.
IDLE_EXIT_S = 30 * 60
#: The time in which a server must listen, on a machine that is busy with other things.
START_LIMIT_S = 60.0


@contextmanager
def sole_starter(folder: Path) -> Iterator[None]:
    """Make a state folder, and let no other process start a server in it meanwhile.

    Raises:
        EmbeddedServerError: the folder cannot be made.
    """
    import fcntl

    try:
        own_folder(folder)
    except OSError as exc:
        raise unusable(folder, exc) from None
    with open(_open(folder / "start.lock"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start(folder: Path) -> None:
    """Start a server, and return when it listens.

    Raises:
        EmbeddedServerError: it has ended, or does not listen in time.
    """
    log_path = folder / "server.log"
    log = _open(log_path)
    os.ftruncate(log, 0)
    read_end, write_end = os.pipe()
    command = [
        interpreter_of(folder), "-P", "-m", "lyceum_magic.cli", "serve",
        "--state-dir", str(folder),
        "--idle-exit", str(IDLE_EXIT_S),
        "--ready-fd", str(write_end),
    ]  # fmt: skip
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[write_end],
            start_new_session=True,  # so that the kernel's interrupts do not reach it
        )
    finally:
        os.close(log)
        os.close(write_end)
    if not _is_ready(process, read_end):
        lines = read_own(log_path).decode("utf-8", "replace").strip().splitlines()
        # On a full disk, it cannot write its reason down.
        said = lines[-1] if lines else shortage(folder) or "it said nothing"
        raise EmbeddedServerError(
            f"The embedded server did not start: {said.rstrip('.')}; its log is {log_path}."
        )


def _is_ready(process: subprocess.Popen[bytes], read_end: int) -> bool:
    """Wait until a server says that it listens; return False if it has ended instead."""
    try:
        ready, _, _ = select.select([read_end], [], [], START_LIMIT_S)
        if ready and os.read(read_end, 16):
            # It outlives this process; if it ends earlier, this thread collects its exit status.
            threading.Thread(target=process.wait, name="lyceum-server", daemon=True).start()
            return True
    finally:
        os.close(read_end)
    if not ready:
        process.kill()
    process.wait()
    return False


def interpreter_of(folder: Path) -> str:
    """Return the Python of the environment that a folder belongs to; this one if unknown."""
    if folder == server_folder():
        return sys.executable
    try:
        python = json.loads(read_own(folder / INTERPRETER_FILE))
    except (OSError, ValueError):
        return sys.executable
    return python if isinstance(python, str) and os.access(python, os.X_OK) else sys.executable


def _environment() -> dict[str, str]:
    """Return the server's environment, without the kernel's variables that no run may see."""
    variables = for_server()
    if "LYCEUM_MAGIC_HOME" in variables:
        # It may be relative to this process's working directory.
        variables["LYCEUM_MAGIC_HOME"] = str(user_folder())
    return variables


def _open(path: Path) -> int:
    """Open a file in the folder for writing, and make it if it does not exist."""
    try:
        return open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError as exc:
        if is_misplaced(exc, path):
            raise EmbeddedServerError(
                f"The embedded server keeps a file at {path}, and cannot use what is there "
                f"({exc.strerror}); remove it."
            ) from None
        raise unusable(path.parent, exc) from None
