"""The account's storage: a plain folder that stands for its one bucket. Keys in, files out.

The folder is also mounted into containers, whose programs run as any user, root included, and may
change it at any moment. So no path of the bucket is ever followed as a whole: each folder on the
way is opened by itself, relative to the one above it, and a symbolic link does not count as a
folder. A link that a container puts there leads nowhere.
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
from typing import IO

from ...exceptions import LyceumError

#: S3's own limit.
MAX_KEY_BYTES = 1024
#: The longest name that file systems take.
MAX_NAME_BYTES = 255

# The bucket lies below a folder that only the server's user may enter. Inside, a container writes
# as whatever user its image names.
_FOLDER_MODE = 0o777
_FILE_MODE = 0o666

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# A container may put a pipe in place of a file: opening one would wait for its other end.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
#: Maximum number of attempts to move a file into its folder, which other clients may remove.
_ATTEMPTS = 10


class InvalidKey(LyceumError):
    """No file of the bucket can have this key."""


class UnknownFile(LyceumError):
    """The bucket has no such file or folder."""


class KeyConflict(LyceumError):
    """The content of the bucket stands in the way, for example a folder with the key of a file."""


class StorageFull(LyceumError):
    """The disk has no room left."""


@dataclass(frozen=True, slots=True)
class BucketFile:
    """One file of the bucket. `modified_at` in seconds since 1970."""

    key: str
    size: int
    modified_at: float


@dataclass(frozen=True)
class Listing:
    """Files in the order of their keys; `is_truncated` if there are more."""

    files: Sequence[BucketFile]
    is_truncated: bool


class Bucket:
    """The files below `folder`. Its methods block, and may be called from any thread.

    Args:
        folder: The bucket itself.
        drafts: The folder of incomplete files; on the same file system.
    """

    def __init__(self, folder: Path, drafts: Path) -> None:
        self._folder = folder
        self._drafts = drafts

    def open(self) -> None:
        """Make the folders, and remove uploads that an earlier server did not finish."""
        self.make()
        if self._drafts.exists():
            shutil.rmtree(self._drafts)
        self._drafts.mkdir(mode=0o700)

    def make(self) -> None:
        """Make the bucket's folder if it is missing: a user may have removed it."""
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.parent.chmod(0o700)
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(_FOLDER_MODE)

    def put(self, content: IO[bytes], key: str) -> BucketFile:
        """Copy a file into the bucket. It replaces the one with the same key at once.

        Raises:
            InvalidKey: No file can have this key.
            KeyConflict: A folder has the key, or one of its folders is a file.
            StorageFull: The disk has no room.
        """
        *folders, name = _names(key)
        with self._draft(content) as draft:
            status = draft.stat()
            for attempts_left in reversed(range(_ATTEMPTS)):
                try:
                    with _translated(key), self._entered(folders, make=True) as parent:
                        os.rename(draft, name, dst_dir_fd=parent)
                    break
                except UnknownFile as exc:  # another client removed the folder while it was empty
                    if not attempts_left:
                        raise KeyConflict(f"The folders of {key!r} are being removed.") from exc
        return BucketFile(key, status.st_size, status.st_mtime)

    def open_file(self, key: str) -> int:
        """Return a descriptor of the file, to read; the caller closes it.

        Raises:
            InvalidKey: No file can have this key.
            UnknownFile: There is no such file.
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
                f"There is no file {key!r}. A folder or something else has this name."
            )
        return descriptor

    def list(self, prefix: str = "", *, limit: int) -> Listing:
        """Return the first `limit` files whose keys begin with `prefix`.

        Files whose names cannot be keys are left out; only a container can have made them.

        Raises:
            InvalidKey: No key begins with this prefix.
        """
        if prefix:
            # One more letter makes a key of every valid prefix.
            _names(f"{prefix}x")
        folder, _, _ = prefix.rpartition("/")
        files: list[BucketFile] = []
        with contextlib.suppress(UnknownFile, KeyConflict):
            for entry in self._walk(folder, reach=MAX_KEY_BYTES):
                if not entry.key.startswith(prefix) or not _is_key(entry.key):
                    continue
                with contextlib.suppress(FileNotFoundError):  # removed in the meantime
                    status = os.stat(entry.name, dir_fd=entry.parent, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        files.append(BucketFile(entry.key, status.st_size, status.st_mtime))
        files.sort(key=lambda file: file.key.encode())
        return Listing(files[:limit], len(files) > limit)

    def delete(self, key: str) -> None:
        """Remove a file, and the folders that are empty without it.

        Raises:
            InvalidKey: No file can have this key.
            UnknownFile: There is no such file.
            KeyConflict: It is a folder.
        """
        *folders, name = _names(key)
        with _translated(key), self._entered(folders) as parent:
            os.unlink(name, dir_fd=parent)
        self._prune(folders)

    def delete_folder(self, prefix: str) -> int:
        """Remove a folder with everything in it; return the number of files.

        Raises:
            InvalidKey: No folder can have this name.
            UnknownFile: There is no such folder.
            KeyConflict: It is a file.
        """
        folder = prefix.removesuffix("/")
        *above, name = _names(folder)
        removed = 0
        for entry in self._walk(folder):
            try:
                if entry.is_folder:
                    os.rmdir(entry.name, dir_fd=entry.parent)
                else:
                    os.unlink(entry.name, dir_fd=entry.parent)
                    removed += 1
            except FileNotFoundError:  # removed in the meantime
                continue
            except OSError as exc:
                raise _refusal(exc, entry.key) from exc
        with _translated(folder), self._entered(above) as parent:
            os.rmdir(name, dir_fd=parent)
        self._prune(above)
        return removed

    @contextmanager
    def _draft(self, content: IO[bytes]) -> Iterator[Path]:
        """Copy a file to the bucket's file system; the copy is removed unless it was moved away."""
        with (
            room_needed(),
            tempfile.TemporaryDirectory(dir=self._drafts, ignore_cleanup_errors=True) as folder,
        ):
            draft = Path(folder, "draft")
            with draft.open("wb") as file:
                shutil.copyfileobj(content, file)
            draft.chmod(_FILE_MODE)
            yield draft

    @contextmanager
    def _entered(self, folders: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Yield a descriptor of a folder of the bucket."""
        if make:
            self.make()
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in folders:
                below = _enter(descriptor, name, make=make)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _walk(self, folder: str, *, reach: int | None = None) -> Iterator[_Entry]:
        """Yield everything below a folder, the content of a folder before the folder itself.

        Args:
            folder: Its key, without a slash at its end; empty for the whole bucket.
            reach: The length in bytes from which on a folder's key is too long to enter the folder;
                None enters every folder.
        """
        names = _names(folder) if folder else []
        with _translated(folder), self._entered(names) as descriptor:
            yield from _below(descriptor, names, reach)

    def _prune(self, folders: Sequence[str]) -> None:
        """Remove empty folders, from the lowest up: S3 knows no empty folders."""
        for depth in range(len(folders), 0, -1):
            try:
                with self._entered(folders[: depth - 1]) as parent:
                    os.rmdir(folders[depth - 1], dir_fd=parent)
            except OSError:  # it holds something, or is gone
                return


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file or folder of a walk, to be used before the walk goes on.

    `parent` is the descriptor of its folder, `folders` are the names on the way there.
    """

    parent: int
    folders: Sequence[str]
    name: str
    is_folder: bool

    @property
    def key(self) -> str:
        return "/".join([*self.folders, self.name])


def _below(top: int, folders: Sequence[str], reach: int | None) -> Iterator[_Entry]:
    """Walk through an open folder, whose names from the bucket on are `folders`."""
    with contextlib.closing(_Position(top, folders)) as position:
        length = len(os.fsencode("/".join(folders)))
        levels = [(length, _content(top))]
        while True:
            length, rest = levels[-1]
            if rest:
                name, is_folder = rest.pop()
                length += len(os.fsencode(name)) + 1
                if is_folder and (reach is None or length < reach) and position.enter(name):
                    levels.append((length, _content(position.folder)))
                    continue
            elif len(levels) > 1:
                name, is_folder = position.names[-1], True
                levels.pop()
                position.leave()
                if position.depth < len(levels) - 1:  # the folder was moved, and some above it
                    del levels[position.depth + 1 :]
                    continue
            else:
                return
            yield _Entry(position.folder, position.names, name, is_folder)


def _content(folder: int) -> list[tuple[str, bool]]:
    """Return the names in a folder, each with whether it is a folder."""
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


class _Position:
    """The place of a walk: one open folder, at the end of `names` from the bucket.

    A container may nest folders deeper than Python's stack, than the limit of open files and than a
    path may be long. So the way back is `..`, as long as that leads to where the walk came from.
    """

    def __init__(self, top: int, names: Sequence[str]) -> None:
        self.names = list(names)
        self._above = len(names)
        self._top = top
        self._identities = [_identity(top)]
        self.folder = os.dup(top)

    @property
    def depth(self) -> int:
        """The number of folders below the top."""
        return len(self._identities) - 1

    def enter(self, name: str, expected: tuple[int, int] | None = None) -> bool:
        """Go down by one; return False if the folder is gone, closed, a link or another one."""
        try:
            below = os.open(name, _OPEN_FOLDER, dir_fd=self.folder)
        except OSError:
            return False
        identity = _identity(below)
        if expected not in {None, identity}:
            os.close(below)
            return False
        self._move(below)
        self.names.append(name)
        self._identities.append(identity)
        return True

    def leave(self) -> None:
        """Go up by one; further up if folders on the way were moved in the meantime."""
        self.names.pop()
        self._identities.pop()
        with contextlib.suppress(OSError):
            self._move(os.open("..", _OPEN_FOLDER, dir_fd=self.folder))
            if _identity(self.folder) == self._identities[-1]:
                return
        below, identities = self.names[self._above :], self._identities[1:]
        del self.names[self._above :], self._identities[1:]
        self._move(os.dup(self._top))
        for name, identity in zip(below, identities, strict=True):
            if not self.enter(name, identity):
                return

    def close(self) -> None:
        os.close(self.folder)

    def _move(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder


def _identity(folder: int) -> tuple[int, int]:
    status = os.fstat(folder)
    return status.st_dev, status.st_ino


def _enter(parent: int, name: str, *, make: bool) -> int:
    made = False
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
            made = True
    folder = os.open(name, _OPEN_FOLDER, dir_fd=parent)
    if made:
        # Not by mkdir, which applies the umask, and by the descriptor: a container may have put a
        # link in place of the new folder.
        try:
            os.fchmod(folder, _FOLDER_MODE)
        except BaseException:
            os.close(folder)
            raise
    return folder


def _names(key: str) -> list[str]:
    """Return the names in a key: its folders, then the file.

    Raises:
        InvalidKey: It is empty, too long, or would lead out of the bucket.
    """
    try:
        data = key.encode()
    except UnicodeEncodeError:
        raise InvalidKey(
            "A key must be Unicode text. This one holds half of a surrogate pair."
        ) from None
    if not key:
        raise InvalidKey("A key must name a file. This one is empty.")
    if len(data) > MAX_KEY_BYTES:
        raise InvalidKey(f"A key may have {MAX_KEY_BYTES} bytes. This one has {len(data)}.")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        raise InvalidKey(f"The key {key!r} holds control characters, which are not allowed.")
    if "\\" in key:
        raise InvalidKey(f"The key {key!r} holds a backslash. Separate folders by /.")
    names = key.split("/")
    if not names[0]:
        raise InvalidKey(f"The key {key!r} begins with /. Keys are relative to the bucket.")
    if {"", ".", ".."} & set(names):
        raise InvalidKey(f"The key {key!r} holds an empty name, . or .. among its folders.")
    if any(len(name.encode()) > MAX_NAME_BYTES for name in names):
        raise InvalidKey(f"Each name in a key may have {MAX_NAME_BYTES} bytes: {key[:40]!r}...")
    return names


def _is_key(text: str) -> bool:
    try:
        _names(text)
    except InvalidKey:
        return False
    return True


@contextmanager
def room_needed() -> Iterator[None]:
    """Raise StorageFull if a write in the block finds no room; other errors stay."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _NO_SPACE:
            raise
        raise StorageFull(
            "The storage is full: the server's disk has no room or no free inodes left. Remove "
            "files there."
        ) from exc


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Raise the bucket's own errors for the operating system's."""
    try:
        with room_needed():
            yield
    except OSError as exc:
        raise _refusal(exc, key) from exc


def _refusal(error: OSError, key: str) -> LyceumError:
    if error.errno == errno.ENOENT:
        return UnknownFile(f"There is nothing at {key!r}.")
    shown = repr(key) if len(key) <= MAX_KEY_BYTES else f"{key[:40]!r}..."
    return KeyConflict(f"{_REASONS.get(error.errno or 0, error.strerror)}: {shown}.")


_REASONS = {
    errno.EISDIR: "A folder has this name; use storage/delete-folder to remove one",
    errno.ENOTDIR: "One of the key's folders is a file or a link, or the folder is not one",
    errno.ELOOP: "A link has this name, and links are not followed",
    errno.EEXIST: "A folder has this name",
    errno.ENOTEMPTY: "The folder was in use, or holds files that the server may not remove",
    errno.EACCES: "It belongs to another user of this machine, and is closed to others",
    errno.EPERM: "It belongs to another user of this machine, and is closed to others",
    errno.ENXIO: "Something other than a file has this name",
}
