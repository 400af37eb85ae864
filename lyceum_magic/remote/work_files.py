"""Files below the folder of a run <-> blobs of a snapshot."""

from __future__ import annotations

import importlib
import os
import stat

from . import own_file
from .packs import Broken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .packs import PackReader, PackWriter

MAX_BYTES = 64 << 20
MAX_FILES = 10_000
#: Folders that programs make by themselves.
_LEFT_OUT = frozenset({"__pycache__", ".ipynb_checkpoints", ".git", ".cache", ".pytest_cache"})


class WorkFiles:
    """The files of a run.

    Args:
        home: the folder of the run, as yet without what this session has.
    """

    def __init__(self, home: str) -> None:
        self._home = home
        self._device = os.stat(home).st_dev
        self._before = {path: _state(known) for path, known in self._found()}
        self._entries: dict[str, Any] = {}
        self._folders_before = set(self._folders())

    def restore(self, files: dict[str, Any], folders: list[str], reader: PackReader) -> None:
        """Write the files of the last cell.

        Raises:
            Broken: a file is not as it was saved.
        """
        for folder in folders:
            os.makedirs(self._place(folder), exist_ok=True)
        for path, entry in files.items():
            place = self._place(path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                reader.copy_to(entry[:4], file)
                os.fchmod(file.fileno(), entry[4] & 0o777)
            self._entries[path] = (entry, _state(os.lstat(place)))
        if files:
            importlib.invalidate_caches()

    def save(self, writer: PackWriter, lost: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
        """Write the files that this session has made; return their entries, and the folders.

        Args:
            lost: takes what is not kept.
        """
        kept: dict[str, Any] = {}
        left = MAX_BYTES
        for path, known in self._found():
            state = _state(known)
            if self._before.get(path) == state:
                continue
            if known.st_size > left:
                lost[f"file {path}"] = (
                    f"the files below the folder have more than {MAX_BYTES >> 20} MiB in all"
                )
                continue
            left -= known.st_size
            entry, restored = self._entries.get(path, (None, None))
            if restored != state:
                try:
                    with open(self._place(path), "rb") as file:
                        content = file.read(known.st_size)
                except OSError as exc:
                    lost[f"file {path}"] = f"it cannot be read ({exc.strerror})"
                    continue
                entry = [*writer.add(content), stat.S_IMODE(known.st_mode)]
            kept[path] = entry
        return kept, sorted(set(self._folders()) - self._folders_before)

    def _place(self, path: str) -> str:
        place = os.path.normpath(os.path.join(self._home, path))
        if not place.startswith(os.path.join(self._home, "")):
            raise Broken(f"a file of it lies outside of its folder: {path!r}")
        return place

    def _walk(self) -> Iterator[tuple[str, list[str], list[str]]]:
        count = 0
        for folder, folders, names in os.walk(self._home):
            folders[:] = sorted(
                name
                for name in folders
                if name not in _LEFT_OUT and self._is_ours(os.path.join(folder, name))
            )
            count += len(folders) + len(names)
            if count > MAX_FILES:
                return
            yield folder, folders, names

    def _is_ours(self, folder: str) -> bool:
        try:
            return os.lstat(folder).st_dev == self._device
        except OSError:
            return False

    def _folders(self) -> Iterator[str]:
        for folder, folders, _ in self._walk():
            for name in folders:
                yield os.path.relpath(os.path.join(folder, name), self._home)

    def _found(self) -> Iterator[tuple[str, os.stat_result]]:
        for folder, _, names in self._walk():
            for name in sorted(names):
                place = os.path.join(folder, name)
                if place == own_file.program:
                    continue
                try:
                    known = os.lstat(place)
                    path = os.path.relpath(place, self._home)
                    path.encode()
                except (OSError, UnicodeEncodeError):
                    continue
                if stat.S_ISREG(known.st_mode):
                    yield path, known


def _state(known: os.stat_result) -> tuple[int, ...]:
    return known.st_mtime_ns, known.st_ctime_ns, known.st_size, known.st_ino
