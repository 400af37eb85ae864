"""The files of one session's snapshots: packs and manifests, which runs write.

A run may put anything in their places. So no link is followed, only regular files are read, and
names are checked before they become paths.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...protocol.sessions import (
    MANIFEST_SUFFIX,
    MANIFESTS,
    MAX_MANIFEST_BYTES,
    PACK_SUFFIX,
    PACKS,
)

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_PUNCH_HOLE, _KEEP_SIZE = 2, 1
_NAME = re.compile(f"([0-9a-f]{{32}})(?:{re.escape(PACK_SUFFIX)}|{re.escape(MANIFEST_SUFFIX)})")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file.

    Attributes:
        folder: `packs` or `cells`.
        size_bytes: The room that it takes on the disk.
    """

    folder: str
    name: str
    size_bytes: int

    @property
    def snapshot_id(self) -> str:
        """The id in its name; empty for any other name."""
        match = _NAME.fullmatch(self.name)
        return match[1] if match else ""


class SnapshotFiles:
    """The files below the folder of one session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, *, for_any_user: bool = False) -> None:
        """Make the folders that a run writes to.

        Args:
            for_any_user: A container's program may be any user. On this machine only the owner
                gets this far: the folder around is 0700.
        """
        mode = 0o777 if for_any_user else 0o700
        for path in (self.folder, self.folder / PACKS, self.folder / MANIFESTS):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            if status.st_mode & mode != mode:
                path.chmod(mode)
        if for_any_user:
            self._let_read()

    def manifest(self, snapshot_id: str) -> bytes:
        """Return the bytes of a manifest.

        Raises:
            FileNotFoundError: It does not exist.
            OSError: It cannot be read, is too large, or is something else than a file.
        """
        descriptor = self._open(MANIFESTS, snapshot_id + MANIFEST_SUFFIX, os.O_RDONLY)
        with open(descriptor, "rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return content

    def pack_size(self, pack_id: str) -> int | None:
        """Return the size of a pack in bytes; None if it does not exist."""
        with contextlib.suppress(OSError), self._opened(PACKS) as folder:
            status = os.stat(pack_id + PACK_SUFFIX, dir_fd=folder, follow_symlinks=False)
            return status.st_size if stat.S_ISREG(status.st_mode) else None
        return None

    def exists(self, snapshot_id: str) -> bool:
        """Return whether there is a file of this snapshot."""
        return any(file.snapshot_id == snapshot_id for file in self.list())

    def list(self) -> list[StoredFile]:
        """Return everything in the two folders."""
        found = []
        for name in (PACKS, MANIFESTS):
            with contextlib.suppress(OSError), self._opened(name) as folder:
                for entry in os.scandir(folder):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        size = min(status.st_size, status.st_blocks * 512)
                        found.append(StoredFile(name, entry.name, size))
        return found

    def unlink(self, file: StoredFile) -> None:
        """Remove a file; a folder in its place goes with all that it holds."""
        with contextlib.suppress(FileNotFoundError), self._opened(file.folder) as folder:
            try:
                os.unlink(file.name, dir_fd=folder)
            except (IsADirectoryError, PermissionError):
                shutil.rmtree(file.name, dir_fd=folder)

    def thin(self, pack_id: str, spans: Sequence[tuple[int, int]]) -> None:
        """Give the room of spans of a pack back to the disk; what is around them stays in place.

        Args:
            spans: Begin and end of each, in bytes.

        Raises:
            OSError: The file system cannot do that.
        """
        descriptor = self._open(PACKS, pack_id + PACK_SUFFIX, os.O_WRONLY)
        try:
            for begin, end in spans:
                _punch(descriptor, begin, end - begin)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove all of them."""
        if self.folder.is_symlink():
            self.folder.unlink()
        elif self.folder.exists():
            shutil.rmtree(self.folder)

    def _let_read(self) -> None:
        """Let any user read the files, as far as they are ours: other runs may have made them."""
        for file in self.list():
            with contextlib.suppress(OSError):
                descriptor = self._open(file.folder, file.name, os.O_RDONLY)
                try:
                    os.fchmod(descriptor, 0o644)
                finally:
                    os.close(descriptor)

    def _open(self, folder_name: str, name: str, flags: int) -> int:
        """Open a regular file."""
        with self._opened(folder_name) as folder:
            flags |= os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(name, flags, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a regular file")
        return descriptor

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """Open one of the two folders, through no link."""
        session = os.open(self.folder, _FOLDER_FLAGS)
        try:
            descriptor = os.open(name, _FOLDER_FLAGS, dir_fd=session)
        finally:
            os.close(session)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _punch(descriptor: int, offset: int, length: int) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
