"""The account's storage: a plain folder that stands for its one bucket. Keys in, files out.

The folder is also mounted into containers, whose programs run as anybody, root included, and may
change it at any moment. So no path of the bucket is ever followed as a whole: each folder on the
way is opened by itself, relative to the one above it, and a symbolic link is not a folder. Whoever
puts a link there leads nobody anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..exceptions import LyceumError

#: S3's own limit.
MAX_KEY_BYTES = 1024
#: What file systems take for one name.
MAX_NAME_BYTES = 255

# The bucket lies below a folder that only the server's user may enter. Inside, a container writes
# as whatever user its image names.
_FOLDER_MODE = 0o777
_FILE_MODE = 0o666

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# A container may put a pipe where a file was: opening one would wait for its other end.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
#: How often a folder may vanish under a file that is about to go into it.
_ATTEMPTS = 10


class InvalidKey(LyceumError):
    """No file of the bucket can have this key."""


class UnknownFile(LyceumError):
    """There is no such file, or no such folder."""


class KeyConflict(LyceumError):
    """What is in the bucket already stands against it."""


class StorageFull(LyceumError):
    """The disk has no room left."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of the bucket. `modified_at` in seconds since 1970."""

    key: str
    size: int
    modified_at: float


@dataclass(frozen=True)
class Listing:
    """Files in the order of their keys; `is_truncated` where there are more."""

    files: Sequence[StoredFile]
    is_truncated: bool


class Bucket:
    """The files below `folder`. Its methods block, and may be called from any thread.

    Args:
        folder: the bucket itself.
        drafts: where uploads are kept until they are whole; on the same file system.
    """

    def __init__(self, folder: Path, drafts: Path) -> None:
        self._folder = folder
        self._drafts = drafts

    def open(self) -> None:
        """Makes the folders, and forgets uploads that an earlier server did not finish."""
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.parent.chmod(0o700)
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(_FOLDER_MODE)
        if self._drafts.exists():
            shutil.rmtree(self._drafts)
        self._drafts.mkdir(mode=0o700)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder for the files of one upload; whatever `put` has not taken goes with it."""
        with tempfile.TemporaryDirectory(dir=self._drafts, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def put(self, draft: Path, key: str) -> StoredFile:
        """Moves a whole file into the bucket, in place of what has the key.

        Raises:
            InvalidKey: no file can have this key.
            KeyConflict: it is the name of a folder, or one of its folders is a file.
            StorageFull: there is no room.
        """
        *folders, name = _names(key)
        draft.chmod(_FILE_MODE)
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                with _translated(key), self._entered(folders, make=True) as parent:
                    os.rename(draft, name, dst_dir_fd=parent)
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                break
            except UnknownFile:  # somebody removed the folder as it was empty
                if not attempts_left:
                    raise
        return StoredFile(key, status.st_size, status.st_mtime)

    def open_file(self, key: str) -> int:
        """A descriptor of the file, to read; the caller closes it.

        Raises:
            InvalidKey: no file can have this key.
            UnknownFile: there is no such file.
        """
        *folders, name = _names(key)
        try:
            with _translated(key), self._entered(folders) as parent:
                descriptor = os.open(name, _OPEN_FILE, dir_fd=parent)
        except KeyConflict as exc:
            raise UnknownFile(f"There is no file {key!r}.") from exc
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UnknownFile(
                f"There is no file {key!r}; a folder or something else has this name."
            )
        return descriptor

    def list(self, prefix: str = "", *, limit: int) -> Listing:
        """The first `limit` files whose keys begin with `prefix`.

        Files whose names cannot be keys are left out; only a container can have made them.

        Raises:
            InvalidKey: no key begins so.
        """
        if prefix:
            # A letter more makes a key of every prefix that a key can have.
            _names(f"{prefix}x")
        folder, _, _ = prefix.rpartition("/")
        files: list[StoredFile] = []
        with contextlib.suppress(UnknownFile, KeyConflict):
            for entry in self._walk(folder):
                if not entry.key.startswith(prefix) or not _is_key(entry.key):
                    continue
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    status = os.stat(entry.name, dir_fd=entry.parent, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        files.append(StoredFile(entry.key, status.st_size, status.st_mtime))
        files.sort(key=lambda file: file.key.encode())
        return Listing(files[:limit], len(files) > limit)

    def delete(self, key: str) -> None:
        """Removes a file, and the folders that are empty without it.

        Raises:
            InvalidKey: no file can have this key.
            UnknownFile: there is no such file.
            KeyConflict: it is a folder.
        """
        *folders, name = _names(key)
        with _translated(key), self._entered(folders) as parent:
            os.unlink(name, dir_fd=parent)
        self._prune(folders)

    def delete_folder(self, prefix: str) -> int:
        """Removes a folder with all that is in it; returns the number of files.

        Raises:
            InvalidKey: no folder can have this name.
            UnknownFile: there is no such folder.
            KeyConflict: it is a file.
        """
        folder = prefix.removesuffix("/")
        *above, name = _names(folder)
        removed = 0
        for entry in self._walk(folder):
            with contextlib.suppress(UnknownFile), _translated(entry.key):
                if entry.is_folder:
                    os.rmdir(entry.name, dir_fd=entry.parent)
                else:
                    os.unlink(entry.name, dir_fd=entry.parent)
                    removed += 1
        with _translated(folder), self._entered(above) as parent:
            os.rmdir(name, dir_fd=parent)
        self._prune(above)
        return removed

    # Underneath.

    @contextmanager
    def _entered(self, folders: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder of the bucket, for as long as the block lasts."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in folders:
                below = _enter(descriptor, name, make=make)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _walk(self, folder: str) -> Iterator[_Entry]:
        """All below a folder, what a folder holds before the folder itself."""
        names = _names(folder) if folder else []
        with _translated(folder), self._entered(names) as descriptor:
            yield from _below(descriptor, f"{folder}/" if folder else "")

    def _prune(self, folders: Sequence[str]) -> None:
        """Removes folders that are empty, from the lowest up: S3 knows none."""
        for depth in range(len(folders), 0, -1):
            try:
                with self._entered(folders[: depth - 1]) as parent:
                    os.rmdir(folders[depth - 1], dir_fd=parent)
            except OSError:  # it holds something, or is gone
                return


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a walk comes by. `parent` is the descriptor of the folder that it is in."""

    parent: int
    name: str
    key: str
    is_folder: bool


def _below(folder: int, above: str) -> Iterator[_Entry]:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        key = above + name
        # A container may nest folders as deep as it likes; keys do not reach there.
        if is_folder and len(os.fsencode(key)) < MAX_KEY_BYTES:
            try:
                descriptor = os.open(name, _OPEN_FOLDER, dir_fd=folder)
            except OSError:  # gone, or a link by now, or closed to us
                continue
            try:
                yield from _below(descriptor, f"{key}/")
            finally:
                os.close(descriptor)
        yield _Entry(folder, name, key, is_folder)


def _enter(parent: int, name: str, *, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
            # By itself: the umask has its say in a mkdir.
            os.chmod(name, _FOLDER_MODE, dir_fd=parent)
    return os.open(name, _OPEN_FOLDER, dir_fd=parent)


def _names(key: str) -> list[str]:
    """The names that a key is made of: its folders, then the file.

    Raises:
        InvalidKey: it is empty, too long, or would lead out of the bucket.
    """
    try:
        data = key.encode()
    except UnicodeEncodeError:
        raise InvalidKey(
            "A key is Unicode text; this one holds half of a surrogate pair."
        ) from None
    if not key:
        raise InvalidKey("A key names a file; this one is empty.")
    if len(data) > MAX_KEY_BYTES:
        raise InvalidKey(f"A key has at most {MAX_KEY_BYTES} bytes; this one has {len(data)}.")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        raise InvalidKey(f"The key {key!r} holds control characters, which no key may.")
    if "\\" in key:
        raise InvalidKey(f"The key {key!r} holds a backslash; folders are separated by /.")
    names = key.split("/")
    if not names[0]:
        raise InvalidKey(f"The key {key!r} begins with /; keys are relative to the bucket.")
    if {"", ".", ".."} & set(names):
        raise InvalidKey(f"The key {key!r} holds an empty name, . or .. among its folders.")
    if any(len(name.encode()) > MAX_NAME_BYTES for name in names):
        raise InvalidKey(f"Each name of a key has at most {MAX_NAME_BYTES} bytes: {key[:40]!r}...")
    return names


def _is_key(text: str) -> bool:
    try:
        _names(text)
    except InvalidKey:
        return False
    return True


@contextmanager
def room_needed() -> Iterator[None]:
    """Says StorageFull where what the block writes finds no room; other errors stay."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _NO_SPACE:
            raise
        raise StorageFull("The storage is full: the server's disk has no room left.") from exc


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Says what the operating system refuses in the words of the bucket."""
    try:
        with room_needed():
            yield
    except FileNotFoundError as exc:
        raise UnknownFile(f"There is nothing at {key!r}.") from exc
    except OSError as exc:
        raise KeyConflict(f"{_REASONS.get(exc.errno or 0, exc.strerror)}: {key!r}.") from exc


_REASONS = {
    errno.EISDIR: "A folder has this name; use storage/delete-folder to remove one",
    errno.ENOTDIR: "One of the key's folders is a file or a link, or the folder is none",
    errno.ELOOP: "A link has this name, and links are not followed",
    errno.EEXIST: "A folder has this name",
    errno.ENOTEMPTY: "The folder was written to meanwhile",
    errno.EACCES: "It belongs to another user of this machine, who lets nobody in",
    errno.EPERM: "It belongs to another user of this machine, who lets nobody in",
    errno.ENXIO: "Something that is no file has this name",
}
