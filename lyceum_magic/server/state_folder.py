"""The server's state folder: one server at a time, on a local disk, readable by its user alone."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..config import Secret
from ..disks import reason
from ..exceptions import EmbeddedServerError
from ..own_files import (
    check_owner,
    is_misplaced,
    is_private,
    open_own,
    own_folder,
    put_own,
    read_own,
)
from ..protocol.callbacks import LEFT_FILE, DeliveriesLeft
from ..protocol.state_folder import (
    INTERPRETER_FILE,
    LOCK_ADDRESS_BYTES,
    LOCK_FILE,
    SERVER_FILE,
    server_facts,
)

logger = logging.getLogger(__name__)

#: File systems with unreliable shared memory and file locks, which SQLite needs.
_NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs",
        "beegfs", "davfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone",
        "fuse.glusterfs", "fuse.davfs2", "fuse.juicefs",
    }
)  # fmt: skip


class AlreadyServed(EmbeddedServerError):
    """Another server holds the folder."""


@dataclass(frozen=True)
class ServerFile:
    """The content of `server.json`, for clients of this user: the server's address and its key."""

    base_url: str
    api_key: Secret = field(repr=False)
    pid: int
    boot_id: str
    version: str

    @property
    def port(self) -> int:
        return int(self.base_url.rpartition(":")[2])


def server_file(folder: Path) -> Path:
    """Return the path of `server.json` in a state folder."""
    return folder / SERVER_FILE


def read_server_file(folder: Path) -> ServerFile | None:
    """Return the content that the last server wrote; None if it is missing or broken.

    A broken file is replaced later. If others could read its key, the key is not used again.

    Raises:
        EmbeddedServerError: The file is not ours, or the disk fails.
    """
    path = server_file(folder)
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read()
        if not is_private(mode):
            raise ValueError("others could read its key")
        members = server_facts(content)
        return ServerFile(**{**members, "api_key": Secret(members["api_key"])})
    except FileNotFoundError:
        return None
    except OSError as exc:
        if not is_misplaced(exc, path):
            raise EmbeddedServerError(
                f"{path} cannot be read ({exc.strerror}). Remove it."
            ) from exc
        problem: Exception = exc
    except (ValueError, TypeError) as exc:
        problem = exc
    logger.warning("%s is broken (%s) and is written again", path, problem)
    return None


def write_server_file(folder: Path, content: ServerFile) -> None:
    """Write `server.json` at once: a reader sees the old file or the new one."""
    put(server_file(folder), {**vars(content), "api_key": content.api_key.reveal()})


def write_deliveries_left(folder: Path, content: DeliveriesLeft) -> None:
    """Note the callbacks that are still to be sent; a full disk takes no note."""
    try:
        put(folder / LEFT_FILE, content)
    except OSError as exc:
        logger.warning("%s cannot be written: %s", folder / LEFT_FILE, exc.strerror)


def forget_deliveries_left(folder: Path) -> None:
    """Remove the note: from now on clients can ask the server itself."""
    path = folder / LEFT_FILE
    try:
        if path.is_dir() and not path.is_symlink():
            put(path, {})  # which moves the folder aside
        path.unlink(missing_ok=True)
    except OSError as exc:
        logger.warning("%s cannot be removed: %s", folder / LEFT_FILE, exc.strerror)


def put(path: Path, content: object) -> None:
    """Write JSON, see `put_own`."""
    put_own(path, json.dumps(content, indent=2))


def note_interpreter(folder: Path) -> None:
    """Note the environment that the folder belongs to."""
    put(folder / INTERPRETER_FILE, sys.executable)


def new_key() -> Secret:
    """Return a key of 256 random bits, with the prefix of keys that never expire."""
    return Secret(f"lk_{secrets.token_urlsafe(32)}")


def prepare(folder: Path, *, mounts: Path = Path("/proc/mounts")) -> None:
    """Make the folder with mode 0700, and check that everything in it is this user's.

    Raises:
        EmbeddedServerError: It is on a network file system, not ours, or cannot be made.
    """
    try:
        own_folder(folder)
        for path in folder.iterdir():
            check_owner(path.lstat(), path)
    except OSError as exc:
        raise EmbeddedServerError(
            f"The state folder {folder} cannot be used ({exc.filename or folder}: "
            f"{reason(exc, folder)}). Set LYCEUM_MAGIC_HOME to another folder, or remove what is "
            "not yours."
        ) from exc
    kind = file_system(folder, mounts=mounts)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise EmbeddedServerError(
            f"The state folder {folder} is on a network file system ({kind}), where the server's "
            "database and locks are not safe. Set LYCEUM_MAGIC_HOME to a folder on a local disk."
        )


def file_system(folder: Path, *, mounts: Path) -> str | None:
    """Return the type of the file system that holds `folder`; None if the system does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except FileNotFoundError:
        return None  # not Linux
    resolved = folder.resolve()
    found: tuple[int, str] | None = None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # proc(5): blanks and backslashes in a mount point are octal escapes.
        point = Path(fields[1].encode(errors="surrogateescape").decode("unicode_escape"))
        depth = len(point.parts)
        # Of two mounts on one point the later hides the earlier.
        if resolved.is_relative_to(point) and (found is None or depth >= found[0]):
            found = depth, fields[2]
    return found[1] if found else None


@contextmanager
def lock_for_life(folder: Path) -> Iterator[ServerLock]:
    """Take the folder for the time of the block, or of this process, however that ends.

    Raises:
        AlreadyServed: Another server has it.
        EmbeddedServerError: The lock file cannot be opened.
    """
    # Not inheritable: a program that starts later does not keep the lock alive.
    path = folder / LOCK_FILE
    try:
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    except OSError as exc:
        raise EmbeddedServerError(
            f"{path} cannot be locked ({reason(exc, folder)}). Remove what is there, or make room."
        ) from exc
    try:
        if not _take(descriptor):
            pid = os.pread(descriptor, LOCK_ADDRESS_BYTES, LOCK_ADDRESS_BYTES).decode().strip()
            raise AlreadyServed(
                f"Another server of lyceum-magic{pid and f', process {pid},'} already serves "
                f"{folder}. Use that one, or end it{pid and f' with `kill {pid}`'}."
            )
        yield ServerLock(path, descriptor, _last_end(descriptor))
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    """Return whether the lock could be taken.

    Clients check for a live server by taking the lock themselves, for some microseconds. So one
    refusal says nothing, and refusals for a tenth of a second do.
    """
    deadline = time.monotonic() + 0.1
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        else:
            return True


#: The end of a folder's last server; "unknown" for earlier versions, which never removed their
#: address.
LastEnd = Literal["in order", "cut short", "unknown"]


def _last_end(descriptor: int) -> LastEnd:
    if not os.pread(descriptor, LOCK_ADDRESS_BYTES, 0).strip():
        return "in order"
    # Earlier versions did not write their process id either.
    return "cut short" if os.pread(descriptor, 1, LOCK_ADDRESS_BYTES) else "unknown"


class ServerLock:
    """The lock that a server holds. Its file names the process and the address of the server.

    `server.json` outlives its server, and its port may then belong to any program. The lock does
    not: a client that finds it held may trust what is in it.

    Attributes:
        last_end: How the server before this one ended.
    """

    def __init__(self, path: Path, descriptor: int, last_end: LastEnd) -> None:
        self._path = path
        self._descriptor = descriptor
        self._folder = path.parent.stat()
        self.last_end = last_end
        self.take_address_back()
        # Padded to overwrite an earlier id: on a full disk no new file can be written.
        os.pwrite(descriptor, f"{os.getpid():<20}\n".encode(), LOCK_ADDRESS_BYTES)

    def show_address(self, base_url: str) -> None:
        os.pwrite(self._descriptor, f"{base_url}\n".encode(), 0)

    def take_address_back(self) -> None:
        """Remove the address. Call it while the port is still ours."""
        os.pwrite(self._descriptor, b" " * LOCK_ADDRESS_BYTES, 0)

    @property
    def folder(self) -> Path:
        return self._path.parent

    @property
    def is_in_place(self) -> bool:
        """True while the locked file is at its path."""
        return _is_at(self._path, os.fstat(self._descriptor))

    @property
    def has_folder(self) -> bool:
        """True while the lock's folder is there, and the same."""
        return _is_at(self._path.parent, self._folder)


def _is_at(path: Path, known: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), known)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # the disk may fail only for a while
        return True


class Residence:
    """A server's place in its folder, which other programs may disturb.

    Args:
        lock: Taken for life.
        content: The content of `server.json` as long as the server lives.
    """

    def __init__(self, lock: ServerLock, content: ServerFile) -> None:
        self._lock = lock
        self._content = content
        self._problem = ""

    @property
    def has_folder(self) -> bool:
        """True while the folder is there, and the same."""
        return self._lock.has_folder

    def keep(self) -> bool:
        """Write `server.json` again if it is broken; return False if the place is lost.

        The place is lost if folder or lock file are gone: another server may have the folder by
        now.
        """
        folder = self._lock.folder
        if not (self._lock.has_folder and self._lock.is_in_place):
            logger.error("%s was removed, or its lock was: the server ends", folder)
            return False
        try:
            if not self._is_said():
                write_server_file(folder, self._content)
                logger.warning("%s was broken and is written again", server_file(folder))
            self._problem = ""
        except OSError as exc:
            if self._problem != str(exc):  # once, not every second
                self._problem = str(exc)
                logger.error("%s is broken and cannot be written: %s", server_file(folder), exc)
        return True

    def leave(self) -> None:
        """See `ServerLock.take_address_back`."""
        self._lock.take_address_back()

    def _is_said(self) -> bool:
        """Return whether `server.json` leads to this server, and only this user can read it."""
        path = server_file(self._lock.folder)
        try:
            facts = server_facts(read_own(path))
            if not is_private(path.stat().st_mode):
                return False
        except (OSError, ValueError):
            return False
        content = self._content
        return (facts["base_url"], facts["api_key"], facts["pid"]) == (
            content.base_url, content.api_key.reveal(), content.pid,
        )  # fmt: skip


def boot_id() -> str:
    """Return a name for this boot of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except FileNotFoundError:  # not Linux
        import psutil

        return str(int(psutil.boot_time()))
