"""Files and folders of this user alone: nothing of another user's is read, written or followed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .folders import user_folder

if TYPE_CHECKING:
    import sqlite3


def own_folder(folder: Path) -> None:
    """Make a folder that this user alone can enter (0700), or make the existing one so.

    The same holds for the folders above it, from `user_folder()` on: their owners could put
    another folder in its place.

    Raises:
        OSError: one of them belongs to another user, leads to another user's, or cannot be made.
    """
    for path in _from_user_folder(folder):
        check_folder(path)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_folder(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o700)


def check_folders(folder: Path) -> None:
    """Check that a folder and those above it, as far as they exist, belong to this user.

    Raises:
        PermissionError: one of them belongs to another user, or leads to another user's.
    """
    for path in _from_user_folder(folder):
        check_folder(path)


def check_folder(path: Path) -> None:
    """Check that what is at a path, if anything, belongs to this user.

    Raises:
        PermissionError: it belongs to another user, or leads to another user's.
    """
    for look in (path.lstat, path.stat):  # a link's own owner decides where it leads
        try:
            check_owner(look(), path)
        except FileNotFoundError:
            return


def _from_user_folder(folder: Path) -> list[Path]:
    home = user_folder()
    return [*(path for path in reversed(folder.parents) if path.is_relative_to(home)), folder]


def check_owner(status: os.stat_result, path: Path) -> None:
    """Check that the file with this status belongs to this user.

    Raises:
        PermissionError: it belongs to another user.
    """
    if sys.platform != "win32" and status.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it belongs to another user", str(path))


def open_own(path: Path, flags: int) -> int:
    """Open a file of this user's, and return its descriptor.

    The owner is checked before anything happens to the file, and links are not followed: another
    user may have put it there before the folder was closed to others.

    Args:
        flags: as for `os.open`, without O_TRUNC. A file that they create has mode 0600.

    Raises:
        OSError: the file does not exist, belongs to another user, or is not a regular file.
    """
    # O_NONBLOCK: opening a pipe would wait. Windows has O_BINARY alone.
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as exc:
        if path.is_symlink():
            raise OSError(exc.errno, "it is a symbolic link", str(path)) from None
        raise
    try:
        _check_file(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_private(mode: int) -> bool:
    """Return whether a file can be read or written by its owner alone, and not be executed."""
    return not stat.S_IMODE(mode) & 0o177


def is_misplaced(error: OSError, path: Path) -> bool:
    """Return whether what is at a path can be replaced, although it could not be opened.

    This is so if it is not a regular file, or if its mode keeps its own user out.
    """
    try:
        status = path.lstat()
    except OSError:
        return False
    is_ours = sys.platform == "win32" or status.st_uid == os.getuid()
    return is_ours and (not stat.S_ISREG(status.st_mode) or error.errno == errno.EACCES)


def read_own(path: Path) -> bytes:
    """Return the content of a file of this user's.

    Raises:
        OSError: see `open_own`.
    """
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        return file.read()


def put_own(path: Path, text: str) -> None:
    """Write a file of this user's (0600) in one step: readers see the old text or the new one.

    A folder in its place is renamed. If the file cannot be written, nothing of it is left.

    Raises:
        OSError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{path.name}.{time.time_ns()}"))
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()  # it may hold a part of a key
        raise


def own_database(path: Path) -> None:
    """Make a file for SQLite (0600), or check the existing one and the files that belong to it.

    SQLite gives the others the mode of the first.

    Raises:
        OSError: one belongs to another user, is not a regular file, or cannot be made.
    """
    for suffix in ("-wal", "-shm", "-journal"):
        beside = path.with_name(path.name + suffix)
        if os.path.lexists(beside):
            _check_file(beside.lstat(), beside)
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        if sys.platform != "win32":
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Keep all changes of a block, or none if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some failures of the disk end it
            connection.execute("ROLLBACK")
        raise


def _check_file(status: os.stat_result, path: Path) -> None:
    check_owner(status, path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a file", str(path))
