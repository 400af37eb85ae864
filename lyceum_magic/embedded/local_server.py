"""The embedded server of this environment: which folder it has, and the account that opens it.

Each environment has a server and a state folder of its own, and a folder is served by the Python
of its environment, whichever process starts the server.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .. import __version__
from ..config import Account
from ..exceptions import EmbeddedServerError
from ..folders import earlier_server_folder, server_folder
from ..own_files import read_own
from ..protocol.callbacks import LEFT_FILE, DeliveriesLeft
from ..protocol.state_folder import LOCK_FILE, MOVES_FILE, RECORDS_FILE, SERVER_FILE
from . import starting
from .holder import (
    LOOK_S,
    check,
    end_if_idle,
    holder_of,
    is_live,
    read_server,
    server_of,
    version_of,
)

_Seen = TypeVar("_Seen")

#: The time in which a server that holds its folder must say where it listens.
_MEND_LIMIT_S = 10.0


def current_folder(*, make_room: bool = False) -> Path:
    """Return the state folder in which this environment's runs begin now.

    This is its own, with one exception: an earlier version kept the state of all environments in
    `LYCEUM_MAGIC_HOME` itself. As long as a server of this environment runs there, that folder is
    used. The next start moves its state to the environment's own folder.

    Args:
        make_room: end such a server if it has no runs.
    """
    own, earlier = server_folder(), earlier_server_folder()
    check(own)
    if earlier is None or holder_of(earlier) is None or (own / RECORDS_FILE).exists():
        return own
    # A server that is starting is waited for. If it were taken for another environment's, it would
    # be left alone, and so would a state that is ours.
    server = _awaited(earlier, server_of)
    if server is None or not _is_of_this_environment(server.pid):
        return own
    return own if make_room and end_if_idle(server, earlier) else earlier


def present_folder(folder: Path, at: float) -> Path:
    """Return the state folder that now has the runs which began in `folder`.

    Args:
        at: when they began, in seconds since 1970.
    """
    check(folder)
    try:
        for move in json.loads(read_own(folder / MOVES_FILE)):
            if at <= move["at"]:
                return Path(move["to"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing has ever moved
    if folder != earlier_server_folder() or holder_of(folder) is not None:
        return folder
    own = server_folder()
    # Its next start takes over what it does not have yet.
    return folder if (own / RECORDS_FILE).exists() else own


def ensure(folder: Path | None = None) -> Account:
    """Return the account of a server that runs and has proved itself, and start it if need be.

    Any number of processes may call this at once: one of them starts a server, the others find it.

    Args:
        folder: the server's state folder; this environment's own if None.

    Raises:
        EmbeddedServerError: it cannot run here, or did not start.
    """
    folder = folder or server_folder()
    if sys.platform == "win32":
        raise EmbeddedServerError(
            "The embedded server does not run on Windows; use WSL, or set LYCEUM_API_KEY "
            "to use the cloud."
        )
    check(folder)
    if (account := _usable(folder)) is not None:
        return account
    with starting.sole_starter(folder):
        # Another process may have started it before this one got the lock.
        account = _usable(folder) or _awaited(folder, _usable)
        if account is None:
            starting.start(folder)
            account = _usable(folder)
    if account is None:
        raise EmbeddedServerError(
            f"The embedded server started and cannot be reached; its log is {folder}/server.log."
        )
    return account


def find(folder: Path | None = None) -> Account | None:
    """Return the account of a server that runs and has proved itself, whatever its version.

    Returns:
        None if there is none; nothing is started.
    """
    folder = folder or server_folder()
    check(folder)
    server = server_of(folder)
    return None if server is None else server.account


def end(folder: Path) -> bool:
    """End the folder's server unless it has runs to care for; return whether none runs now."""
    check(folder)
    server = server_of(folder)
    return server is None or end_if_idle(server, folder)


def guard(folder: Callable[[], Path], base_url: Callable[[], str]) -> Callable[[], None]:
    """Return a check for before each request: does our server still hold its address?

    Args:
        folder: returns its present state folder.
        base_url: returns its address.

    Returns:
        A function that raises httpx.ConnectError if it does not, as for a port without a listener.
    """

    def guarded() -> None:
        if not is_live(folder(), base_url()):
            import httpx

            raise httpx.ConnectError("the embedded server is gone")

    return guarded


def unreachable(folder: Path) -> str:
    """Say why the server that holds a folder cannot be reached, and what to do.

    Returns:
        An empty text if it can be reached, or if the folder has no server.
    """
    import psutil

    check(folder)
    holder = holder_of(folder)
    if holder is None or server_of(folder) is not None:
        return ""
    server = read_server(folder)
    if not holder.address:
        problem = "is starting or ending, and does not say where it listens"
    elif server is not None and server.account.base_url == holder.address:
        problem = f"does not answer at {holder.address}"
    else:
        problem = (
            f"{folder / SERVER_FILE} does not say how to reach it, which a server mends by itself "
            "within seconds"
        )
    # If the holder is not a server, the number in the file is that of an earlier one.
    pid = holder.pid if psutil.pid_exists(holder.pid) else 0
    who = f"Process {pid}" if pid else "A process"
    remedy = f"kill {pid}" if pid else f"fuser -k {folder / LOCK_FILE}"
    if pid and psutil.Process(pid).status() == psutil.STATUS_STOPPED:
        remedy = f"kill -9 {pid}"  # a stopped process heeds no other signal
    return (
        f"{who} serves {folder}, and {problem}. If it stays so, end it with `{remedy}`: its runs "
        "go on, and the next cell starts another one."
    )


def earlier_state() -> str:
    """Say which state of an earlier version has not been taken over, and by which environment.

    `LYCEUM_MAGIC_HOME` itself may have held a server of another environment, with the state of all,
    when this environment's first server started: that one has begun with an empty state.

    Returns:
        An empty text if there is no such state.
    """
    own, earlier = server_folder(), earlier_server_folder()
    if earlier is None or not (earlier / RECORDS_FILE).exists():
        return ""
    if not (own / RECORDS_FILE).exists():
        return ""  # its first server takes it over, or uses the server there
    which = "the next environment that starts its first server"
    if (holder := holder_of(earlier)) is not None:
        who = f"process {holder.pid}" if holder.pid else "the server there"
        which = f"{who}, which serves them; then for {which}"
    return (
        f"Runs, secrets and storage of an earlier version lie in {earlier} and wait for {which}. "
        f"This environment has begun with a state of its own, in {own}. To have the earlier one "
        f"here, end both servers and move {own} away before the next cell."
    )


def callbacks_left(folder: Path) -> DeliveriesLeft | None:
    """Return how many callbacks the last server of a folder left to be sent.

    Returns:
        None if it has not said, or still runs; zeros for a folder that never had a server.
    """
    try:
        said = json.loads(read_own(folder / LEFT_FILE))
        return {
            "pending": int(said["pending"]),
            "failing": int(said["failing"]),
            "dead": int(said["dead"]),
            "next_attempt_at": said["next_attempt_at"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        if (folder / SERVER_FILE).exists():
            return None
        return {"pending": 0, "failing": 0, "dead": 0, "next_attempt_at": None}


def _awaited(folder: Path, look: Callable[[Path], _Seen | None]) -> _Seen | None:
    """Wait for the server that holds a folder: it may be starting, or writing `server.json` again.

    Args:
        look: returns None as long as the server cannot be reached.

    Returns:
        What `look` returns; None if no server holds the folder, or not any more.

    Raises:
        EmbeddedServerError: it still cannot be reached after the time that this may take.
    """
    since = time.monotonic()
    while (holder := holder_of(folder)) is not None:
        if (seen := look(folder)) is not None:
            return seen
        limit_s = _MEND_LIMIT_S if holder.address else starting.START_LIMIT_S
        if time.monotonic() - since > limit_s and (problem := unreachable(folder)):
            raise EmbeddedServerError(problem)
        time.sleep(LOOK_S)
    return None


def _usable(folder: Path) -> Account | None:
    """Return the account of a server of our version or a later one; end an older one if idle."""
    server = server_of(folder)
    if server is None:
        return None
    # A server of another environment has that environment's version, also when it starts again.
    is_ours = starting.interpreter_of(folder) == sys.executable
    if is_ours and server.version < version_of(__version__) and end_if_idle(server, folder):
        return None
    return server.account


def _is_of_this_environment(pid: int) -> bool:
    """Return whether a process was started with the Python of this environment."""
    import psutil

    try:
        python = psutil.Process(pid).cmdline()[0]
    except (psutil.Error, IndexError):
        return False
    # An environment's Python has several names in one folder, and all lead to one file.
    ours = Path(sys.executable)
    return Path(python).parent == ours.parent and Path(python).resolve() == ours.resolve()
