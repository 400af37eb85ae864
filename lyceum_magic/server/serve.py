"""The server process: takes the state folder and a port, and serves until it is told to end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from .. import __version__
from ..disks import reason
from ..exceptions import EmbeddedServerError
from .descriptors import raise_limit
from .peers import OwnUsersListener
from .settings import ServerSettings
from .state_folder import (
    Residence,
    ServerFile,
    ServerLock,
    boot_id,
    lock_for_life,
    new_key,
    note_interpreter,
    prepare,
    read_server_file,
    write_server_file,
)

_PR_SET_DUMPABLE = 4


def serve(settings: ServerSettings, on_ready: Callable[[ServerFile], None]) -> None:
    """Serve until a signal, a shutdown request or idleness ends it.

    Args:
        on_ready: Called once, when requests are accepted and `server.json` says so.

    Raises:
        AlreadyServed: Another server holds the state folder.
        EmbeddedServerError: The server cannot run here, or not with these settings.
    """
    if settings.memory_limit_bytes is not None and sys.platform != "linux":
        raise EmbeddedServerError(
            "--memory-limit works on Linux alone. Serve without it on this system."
        )
    folder = settings.state_dir
    raise_limit()
    prepare(folder)
    _close_to_runs()
    # Uploads are spooled there: the system's own folder may be memory.
    tempfile.tempdir = os.fspath(settings.uploads)
    with _explained(folder), lock_for_life(folder) as lock:
        if settings.earlier is not None:
            # Imported late, as below.
            from .moving import move_in, remove_links

            move_in(settings.earlier, folder)
            remove_links(settings.earlier)
        last = read_server_file(folder)
        kind = OwnUsersListener if settings.profile == "local" else socket.socket
        with contextlib.closing(_listen(kind, settings.port, last)) as listener:
            content = _new_server_file(folder, listener.getsockname()[1], last, lock)
            settings = replace(settings, port=content.port, api_key=content.api_key)

            def ready() -> None:
                note_interpreter(folder)
                write_server_file(folder, content)
                lock.show_address(content.base_url)
                on_ready(content)

            # Imported late: a second server on the folder is refused before this costs it half a
            # second.
            from .lifetime import run

            run(listener, settings, ready, Residence(lock, content))


def _new_server_file(
    folder: Path, port: int, last: ServerFile | None, lock: ServerLock
) -> ServerFile:
    """Return the content of `server.json`.

    A key is valid until a server ends in order, so that a stolen one is worth nothing then. After a
    kill it stays valid, as the runs go on too.
    """
    keeps_key = lock.last_end == "cut short" or (
        lock.last_end == "unknown" and _has_live_runs(folder)
    )
    return ServerFile(
        base_url=f"http://127.0.0.1:{port}",
        api_key=last.api_key if last is not None and keeps_key else new_key(),
        pid=os.getpid(),
        boot_id=boot_id(),
        version=__version__,
    )


def _has_live_runs(folder: Path) -> bool:
    from .moving import has_live_runs  # imported late, as in `serve`

    return has_live_runs(folder)


def _close_to_runs() -> None:
    """Keep runs from reading this process in `/proc`, or tracing it, though the user is the same.

    Programs started from here are open again from their first instruction on. This keeps nothing
    from root, and has no effect on systems other than Linux.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Name the disk's problem if the block cannot write to a folder."""
    try:
        yield
    except OSError as exc:
        raise EmbeddedServerError(
            f"The server cannot use {exc.filename or folder} ({reason(exc, folder)}). Check its "
            "disk, owner and mode, then start the server again."
        ) from exc


def _listen(kind: type[socket.socket], port: int, last: ServerFile | None) -> socket.socket:
    if port:
        try:
            return _bind(kind, port)
        except OSError as exc:
            raise EmbeddedServerError(
                f"Port {port} cannot be used ({exc.strerror}). Choose another with --port."
            ) from exc
    if last is not None:
        with contextlib.suppress(OSError):  # another program has the port
            return _bind(kind, last.port)
    return _bind(kind, 0)


def _bind(kind: type[socket.socket], port: int) -> socket.socket:
    # With a named protocol asyncio switches Nagle's algorithm off. Otherwise every reply of two
    # writes waits 40 ms for the client's delayed acknowledgement.
    listener = kind(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Lingering connections of the last server must not keep its port from this one.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        # At once: until then another user with the same option could take the port.
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener
