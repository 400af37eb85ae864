"""Finds the embedded server of this environment, starts it where there is none, and proves it.

Each environment has a server and a state folder of its own, and a folder is served by the Python
of its environment, whoever starts the server.

Nobody is sent the key on the strength of a file: a server that is adopted first proves by an HMAC
that it knows the key, and before each request the lock that it holds for life is looked at, so
that a port which another program took over is never spoken to.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from .. import __version__
from ..config import Account, Secret
from ..disks import reason, shortage
from ..exceptions import EmbeddedServerError
from ..folders import earlier_server_folder, server_folder, user_folder
from ..own_files import check_folders, is_misplaced, is_private, open_own, own_folder, read_own
from ..protocol import paths
from ..protocol.callbacks import LEFT_FILE, DeliveriesLeft
from ..protocol.proof import proof
from ..protocol.state_folder import (
    INTERPRETER_FILE,
    LOCK_ADDRESS_BYTES,
    LOCK_FILE,
    MOVES_FILE,
    RECORDS_FILE,
    SERVER_FILE,
    server_facts,
)
from ..variables import for_server

_Seen = TypeVar("_Seen")

#: An on-demand server ends after this long without a run or a follower.
IDLE_EXIT_S = 30 * 60
#: How long a server may take to listen, on a machine that is busy with other things.
START_LIMIT_S = 60.0
_ANSWER_LIMIT_S = 5.0
#: The pause between two looks at a lock.
_LOOK_S = 0.02
#: How long a server that holds its folder may take until it says how to reach it.
_MEND_LIMIT_S = 10.0


@dataclass(frozen=True)
class Found:
    """What `server.json` says. `version` as a tuple, so that it can be compared."""

    account: Account
    pid: int
    version: tuple[int, ...]


def current_folder(*, make_room: bool = False) -> Path:
    """The state folder in which this environment's runs begin now.

    Its own; but as long as a server of this environment runs in `LYCEUM_MAGIC_HOME` itself, where
    an earlier version kept the state of all environments, that one is used. Its state moves to the
    environment's own folder with the next start.

    Args:
        make_room: ends such a server if it has no runs.
    """
    own, earlier = server_folder(), earlier_server_folder()
    _check(own)
    if earlier is None or _holder(earlier) is None or (own / RECORDS_FILE).exists():
        return own
    # One that is only starting is waited for: taken for another environment's, it would be left
    # alone, and with it a state that is ours.
    found = _awaited(earlier, _proven)
    if found is None or not _is_of_this_environment(found.pid):
        return own
    return own if make_room and _end_if_idle(found, earlier) else earlier


def present_folder(folder: Path, at: float) -> Path:
    """The state folder that now has the runs which began in `folder`.

    Args:
        at: when they began, in seconds since 1970.
    """
    _check(folder)
    try:
        for move in json.loads(read_own(folder / MOVES_FILE)):
            if at <= move["at"]:
                return Path(move["to"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing has ever moved
    if folder != earlier_server_folder() or _holder(folder) is not None:
        return folder
    own = server_folder()
    # Its next start takes over what it does not have yet.
    return folder if (own / RECORDS_FILE).exists() else own


def ensure(folder: Path | None = None) -> Account:
    """The account of a server that runs and has proved itself; starts one where there is none.

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
    _check(folder)
    if (account := _usable(folder)) is not None:
        return account
    _make_folder(folder)
    with _start_lock(folder):
        # Whoever held the lock before us may have started it.
        account = _usable(folder) or _awaited(folder, _usable)
        if account is None:
            _start(folder)
            account = _usable(folder)
    if account is None:
        raise EmbeddedServerError(
            f"The embedded server started and cannot be reached; its log is {folder}/server.log."
        )
    return account


def find(folder: Path | None = None) -> Account | None:
    """The account of a server that runs and has proved itself, whatever its version; never starts
    one."""
    folder = folder or server_folder()
    _check(folder)
    found = _proven(folder)
    return None if found is None else found.account


def unreachable(folder: Path) -> str:
    """Why the server that holds a folder cannot be reached, and what to do; empty if none does."""
    import psutil

    _check(folder)
    holder = _holder(folder)
    if holder is None or _proven(folder) is not None:
        return ""
    found = _read(folder)
    if not holder.address:
        problem = "is starting or ending, and does not say where it listens"
    elif found is not None and found.account.base_url == holder.address:
        problem = f"does not answer at {holder.address}"
    else:
        problem = (
            f"{folder / SERVER_FILE} does not say how to reach it, which a server mends by itself "
            "within seconds"
        )
    # Of a program that is no server, the number in the file is that of an earlier one.
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
    """Whom the state waits for that an earlier version left; empty if none waits.

    `LYCEUM_MAGIC_HOME` itself may have held a server of another environment, with the state of all,
    when this environment's first server started: that one has begun with an empty state.
    """
    own, earlier = server_folder(), earlier_server_folder()
    if earlier is None or not (earlier / RECORDS_FILE).exists():
        return ""
    if not (own / RECORDS_FILE).exists():
        return ""  # its first server takes it over, or uses the server there
    which = "the next environment that starts its first server"
    if (holder := _holder(earlier)) is not None:
        who = f"process {holder.pid}" if holder.pid else "the server there"
        which = f"{who}, which serves them; then for {which}"
    return (
        f"Runs, secrets and storage of an earlier version lie in {earlier} and wait for {which}. "
        f"This environment has begun with a state of its own, in {own}. To have the earlier one "
        f"here, end both servers and move {own} away before the next cell."
    )


def callbacks_left(folder: Path) -> DeliveriesLeft | None:
    """What the last server of a folder left to be sent; None if it has not said, or is not over.

    Of a folder without a server so far it is nothing.
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


def end(folder: Path) -> bool:
    """Ends the folder's server unless it has runs to care for; returns whether none is left."""
    _check(folder)
    found = _proven(folder)
    return found is None or _end_if_idle(found, folder)


def guard(folder: Callable[[], Path], base_url: Callable[[], str]) -> Callable[[], None]:
    """A check to make before each request: does our server still hold this address?

    Args:
        folder: gives its state folder now.
        base_url: gives its address.

    Returns:
        A function that raises httpx.ConnectError, as a port that nobody listens on would.
    """

    def check() -> None:
        if not is_live(folder(), base_url()):
            raise httpx.ConnectError("the embedded server is gone")

    return check


def is_live(folder: Path, base_url: str) -> bool:
    """Whether a server holds the folder's lock and serves at `base_url`.

    A server locks `server.lock` for life, and writes its process id into it, and its address once
    it listens; both are its own as long as the lock is held. This costs some microseconds.
    """
    holder = _holder(folder)
    return holder is not None and holder.address == base_url


@dataclass(frozen=True)
class _Holder:
    """Who holds a folder's lock.

    Attributes:
        address: empty while the server starts, and once it begins to end.
        pid: 0 where it does not say.
    """

    address: str
    pid: int


def _holder(folder: Path) -> _Holder | None:
    """The server that holds a folder; None if there is none."""
    try:
        descriptor = open_own(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    import fcntl  # which Windows lacks, where there is no such file

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 2 * LOCK_ADDRESS_BYTES).decode("ascii", "replace")
        pid = text[LOCK_ADDRESS_BYTES:].strip()
        return _Holder(text[:LOCK_ADDRESS_BYTES].strip(), int(pid) if pid.isdecimal() else 0)
    else:
        return None
    finally:
        os.close(descriptor)


def _awaited(folder: Path, look: Callable[[Path], _Seen | None]) -> _Seen | None:
    """What `look` sees of the server that holds the folder, which may only be starting, or mend
    its `server.json`.

    None if nobody holds it, or not any more.

    Raises:
        EmbeddedServerError: it cannot be reached all the same.
    """
    since = time.monotonic()
    while (holder := _holder(folder)) is not None:
        if (seen := look(folder)) is not None:
            return seen
        limit_s = _MEND_LIMIT_S if holder.address else START_LIMIT_S
        if time.monotonic() - since > limit_s and (problem := unreachable(folder)):
            raise EmbeddedServerError(problem)
        time.sleep(_LOOK_S)
    return None


def _interpreter(folder: Path) -> str:
    """The Python of the environment that a folder belongs to; this one where there is none."""
    if folder == server_folder():
        return sys.executable
    try:
        python = json.loads(read_own(folder / INTERPRETER_FILE))
    except (OSError, ValueError):
        return sys.executable
    return python if isinstance(python, str) and os.access(python, os.X_OK) else sys.executable


def _is_of_this_environment(pid: int) -> bool:
    """Whether a process was started with the Python of this environment."""
    import psutil

    try:
        python = psutil.Process(pid).cmdline()[0]
    except (psutil.Error, IndexError):
        return False
    # An environment's Python has several names in one folder, and all lead to one file.
    ours = Path(sys.executable)
    return Path(python).parent == ours.parent and Path(python).resolve() == ours.resolve()


def _usable(folder: Path) -> Account | None:
    """A proven server of our version or a later one; an older one that is idle is ended."""
    found = _proven(folder)
    if found is None:
        return None
    is_ours = _interpreter(folder) == sys.executable  # else its next version is no other
    if is_ours and found.version < _version(__version__) and _end_if_idle(found, folder):
        return None
    return found.account


def _proven(folder: Path) -> Found | None:
    """The server that `server.json` names, if it lives and has proved itself."""
    found = _read(folder)
    if found is None or not is_live(folder, found.account.base_url):
        return None
    return _proved(found)


def _read(folder: Path) -> Found | None:
    """`server.json`, if it is there, ours and whole."""
    path = folder / SERVER_FILE
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            mode, facts = os.fstat(file.fileno()).st_mode, server_facts(file.read())
    except PermissionError as exc:
        if is_misplaced(exc, path):
            return None
        raise _unusable(folder, exc) from None
    except (OSError, ValueError):
        return None  # absent or broken: its server, or a new one, writes it again
    if not is_private(mode):
        return None  # likewise; until then others may have put their own into it
    account = Account(
        facts["base_url"], Secret(facts["api_key"]), "the embedded server", is_embedded=True
    )
    return Found(account, facts["pid"], _version(facts["version"]))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _proved(found: Found) -> Found | None:
    """The server with what it says of itself, if it knows the key; it is not told the key."""
    nonce = secrets.token_hex(16)
    try:
        status, body = _ask(found, "GET", f"{paths.HEALTH}?nonce={nonce}", {})
        answer = json.loads(body)
        expected = proof(found.account.token.reveal(), nonce)
        if status != 200 or not secrets.compare_digest(str(answer["proof"]), expected):
            return None
        bootstrap = str(answer.get("bootstrap", ""))  # an older server has none
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    return replace(found, account=replace(found.account, bootstrap=bootstrap))


def _end_if_idle(found: Found, folder: Path) -> bool:
    """Asks a server that has proved itself to make room; False if it has runs to care for."""
    headers = {"Authorization": f"Bearer {found.account.token.reveal()}"}
    try:
        status, _ = _ask(found, "POST", paths.SHUTDOWN, headers)
    except (OSError, http.client.HTTPException):
        return False
    if status != 200:
        return False
    return _wait_for_lock(folder)


def _wait_for_lock(folder: Path) -> bool:
    """Waits until the server has let go of its lock: by then it is gone."""
    import fcntl

    until = time.monotonic() + _ANSWER_LIMIT_S
    with open(open_own(folder / LOCK_FILE, os.O_RDONLY), "rb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > until:
                    return False
                time.sleep(_LOOK_S)


def _ask(found: Found, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    # Not httpx: this comes before anything else is known, and must never see a proxy.
    parts = urlsplit(found.account.base_url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("server.json names another machine")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_ANSWER_LIMIT_S)
    try:
        connection.request(method, path, headers={"Content-Length": "0", **headers})
        response = connection.getresponse()
        return response.status, response.read(65536)
    finally:
        connection.close()


def _start(folder: Path) -> None:
    """Starts a server that outlives this process, and returns when it listens."""
    log_path = folder / "server.log"
    log = _open(log_path)
    os.ftruncate(log, 0)
    read_end, write_end = os.pipe()
    command = [
        _interpreter(folder), "-P", "-m", "lyceum_magic.cli", "serve",
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
            start_new_session=True,  # so that no interrupt of the kernel's reaches it
        )
    finally:
        os.close(log)
        os.close(write_end)
    try:
        ready, _, _ = select.select([read_end], [], [], START_LIMIT_S)
        if ready and os.read(read_end, 16):
            # It outlives us; should it end before, somebody has to bury it.
            threading.Thread(target=process.wait, name="lyceum-server", daemon=True).start()
            return
    finally:
        os.close(read_end)
    if not ready:
        process.kill()
    process.wait()
    lines = read_own(log_path).decode("utf-8", "replace").strip().splitlines()
    # On a full disk it could not say anything.
    said = lines[-1] if lines else shortage(folder) or "it said nothing"
    raise EmbeddedServerError(
        f"The embedded server did not start: {said.rstrip('.')}; its log is {log_path}."
    )


def _environment() -> dict[str, str]:
    """The server's environment: nothing of the kernel's that no run must find."""
    variables = for_server()
    if "LYCEUM_MAGIC_HOME" in variables:
        variables["LYCEUM_MAGIC_HOME"] = str(
            user_folder()
        )  # it may be relative to a folder of ours
    return variables


def _check(folder: Path) -> None:
    """Refuses a folder that another user could change, before anything in it is believed."""
    try:
        check_folders(folder)
    except OSError as exc:
        raise _unusable(folder, exc) from None


def _make_folder(folder: Path) -> None:
    try:
        own_folder(folder)
    except OSError as exc:
        raise _unusable(folder, exc) from None


def _open(path: Path) -> int:
    """A file of the folder's, made if it is not there, to be written."""
    try:
        return open_own(path, os.O_WRONLY | os.O_CREAT)
    except OSError as exc:
        if is_misplaced(exc, path):
            raise EmbeddedServerError(
                f"The embedded server keeps a file at {path}, and cannot use what is there "
                f"({exc.strerror}); remove it."
            ) from None
        raise _unusable(path.parent, exc) from None


def _unusable(folder: Path, exc: OSError) -> EmbeddedServerError:
    where = f"{exc.filename}: " if exc.filename not in (None, str(folder)) else ""
    return EmbeddedServerError(
        f"The embedded server needs a folder of its own, and {folder} cannot be used "
        f"({where}{reason(exc, folder)}); set LYCEUM_MAGIC_HOME to a folder of yours on a local "
        "disk."
    )


@contextmanager
def _start_lock(folder: Path) -> Iterator[None]:
    import fcntl

    with open(_open(folder / "start.lock"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
