"""The server that holds a state folder: found by the lock it holds, and proved by its key.

The key is never sent on the strength of a file. A server proves by an HMAC that it knows the key,
and before each request its lock is looked at, so that a port which another program has taken over
is never spoken to.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from ..config import Account, Secret
from ..disks import reason
from ..exceptions import EmbeddedServerError
from ..own_files import check_folders, is_misplaced, is_private, open_own
from ..protocol import paths
from ..protocol.proof import proof
from ..protocol.state_folder import LOCK_ADDRESS_BYTES, LOCK_FILE, SERVER_FILE, server_facts

#: The pause between two looks at a lock.
LOOK_S = 0.02
_ANSWER_LIMIT_S = 5.0


@dataclass(frozen=True)
class Holder:
    """The process that holds a folder's lock.

    Attributes:
        address: empty while the server starts, and from the moment when it begins to end.
        pid: 0 if it is not known.
    """

    address: str
    pid: int


@dataclass(frozen=True)
class Server:
    """A server as `server.json` describes it, with its version as a tuple that can be compared."""

    account: Account
    pid: int
    version: tuple[int, ...]


def holder_of(folder: Path) -> Holder | None:
    """Return the process that holds a folder; None if there is none.

    A server locks the lock file for life. It writes its process id into it, and its address once it
    listens; both are its own as long as the lock is held. Looking costs some microseconds.
    """
    try:
        descriptor = open_own(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    import fcntl  # Windows has neither this module nor such a file

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 2 * LOCK_ADDRESS_BYTES).decode("ascii", "replace")
        pid = text[LOCK_ADDRESS_BYTES:].strip()
        return Holder(text[:LOCK_ADDRESS_BYTES].strip(), int(pid) if pid.isdecimal() else 0)
    else:
        return None
    finally:
        os.close(descriptor)


def is_live(folder: Path, base_url: str) -> bool:
    """Return whether a server holds a folder and serves at `base_url`."""
    holder = holder_of(folder)
    return holder is not None and holder.address == base_url


def server_of(folder: Path) -> Server | None:
    """Return the server of a folder that runs and has proved itself; None if there is none.

    Raises:
        EmbeddedServerError: the folder cannot be used.
    """
    server = read_server(folder)
    if server is None or not is_live(folder, server.account.base_url):
        return None
    return _proved(server)


def read_server(folder: Path) -> Server | None:
    """Return what `server.json` says; None if it is absent, broken or readable by others.

    Raises:
        EmbeddedServerError: the file cannot be read.
    """
    path = folder / SERVER_FILE
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            mode, facts = os.fstat(file.fileno()).st_mode, server_facts(file.read())
    except PermissionError as exc:
        if is_misplaced(exc, path):
            return None
        raise unusable(folder, exc) from None
    except (OSError, ValueError):
        return None  # its server, or a new one, writes it again
    if not is_private(mode):
        return None  # likewise; until then, others may have written their own facts into it
    account = Account(
        facts["base_url"], Secret(facts["api_key"]), "the embedded server", is_embedded=True
    )
    return Server(account, facts["pid"], version_of(facts["version"]))


def version_of(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, which can be compared."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _proved(server: Server) -> Server | None:
    """Return a server with what its health tells, if it knows the key; the key is not sent."""
    nonce = secrets.token_hex(16)
    try:
        status, body = _ask(server, "GET", f"{paths.HEALTH}?nonce={nonce}", {})
        answer = json.loads(body)
        expected = proof(server.account.token.reveal(), nonce)
        if status != 200 or not secrets.compare_digest(str(answer["proof"]), expected):
            return None
        bootstrap = str(answer.get("bootstrap", ""))  # older servers do not tell it
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return replace(server, account=replace(server.account, bootstrap=bootstrap))


def end_if_idle(server: Server, folder: Path) -> bool:
    """Ask a server that has proved itself to end; return False if it has runs to care for."""
    headers = {"Authorization": f"Bearer {server.account.token.reveal()}"}
    try:
        status, _ = _ask(server, "POST", paths.SHUTDOWN, headers)
    except OSError:
        return False
    if status != 200:
        return False
    until = time.monotonic() + _ANSWER_LIMIT_S
    while (is_held := holder_of(folder) is not None) and time.monotonic() < until:
        time.sleep(LOOK_S)
    return not is_held  # without its lock, it is gone


def _ask(server: Server, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return the status and the body of a reply.

    Raises:
        OSError: the server cannot be reached, or does not speak HTTP.
        ValueError: its address is not on this machine.
    """
    # Not httpx, which might use a proxy; and this module is imported in every kernel.
    import http.client

    parts = urlsplit(server.account.base_url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("server.json names another machine")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_ANSWER_LIMIT_S)
    try:
        connection.request(method, path, headers={"Content-Length": "0", **headers})
        response = connection.getresponse()
        return response.status, response.read(65536)
    except http.client.HTTPException as exc:
        raise OSError(str(exc)) from exc
    finally:
        connection.close()


def check(folder: Path) -> None:
    """Check that other users cannot change a folder, before anything in it is believed.

    Raises:
        EmbeddedServerError: they can.
    """
    try:
        check_folders(folder)
    except OSError as exc:
        raise unusable(folder, exc) from None


def unusable(folder: Path, exc: OSError) -> EmbeddedServerError:
    """Return the exception that says why a folder cannot be used, and what to do."""
    where = f"{exc.filename}: " if exc.filename not in (None, str(folder)) else ""
    return EmbeddedServerError(
        f"The embedded server needs a folder of its own, and {folder} cannot be used "
        f"({where}{reason(exc, folder)}); set LYCEUM_MAGIC_HOME to a folder of yours on a local "
        "disk."
    )
