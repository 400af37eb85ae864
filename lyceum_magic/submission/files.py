"""The files of `--file` -> their contents; the patterns of `--save`, checked."""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PureWindowsPath

from ..exceptions import OptionError
from ..remote.deflating import deflate
from ..remote.refusals import MAX_BYTES

#: More files than a user names on purpose.
_MAX_FILES = 1000
#: The name of the cell in its run's folder.
_PROGRAM = "cell.py"


def read_files(paths: Iterable[str]) -> dict[str, bytes]:
    """Read the files to send.

    Args:
        paths: files at or below the current folder; or folders, whose files all travel except
            hidden ones and `__pycache__`. `~` is the home folder.

    Returns:
        Path below the current folder, with `/` -> content, in their order.

    Raises:
        OptionError: a path does not exist, cannot be read, is elsewhere, or is too large.
    """
    files: dict[str, bytes] = {}
    left = MAX_BYTES
    for named in paths:
        for name, place in _files_at(_current_folder(named), named):
            if name in files:
                continue
            if len(files) == _MAX_FILES:
                raise OptionError(
                    f"--file {named}: more than {_MAX_FILES} files; send them as one archive."
                )
            content = _read(named, place, left)
            left -= len(content)
            files[name] = content
    return files


def pack_files(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the files as `remote.files.prepare` takes them."""
    return {name: b64encode(deflate(content)).decode("ascii") for name, content in files.items()}


def sizes_of(files: Mapping[str, bytes]) -> dict[str, int]:
    return {name: len(content) for name, content in files.items()}


def check_patterns(patterns: Iterable[str]) -> list[str]:
    """Return the patterns of `--save`, each once.

    Raises:
        OptionError: one that leaves the folder in which the cell runs.
    """
    patterns = list(dict.fromkeys(patterns))
    for pattern in patterns:
        windows = PureWindowsPath(pattern)
        if (
            not pattern.strip("/.")
            or windows.anchor
            or pattern.startswith("~")
            or "\\" in pattern
            or "\0" in pattern
            or ".." in pattern.split("/")
        ):
            raise OptionError(
                f"--save takes a pattern below the cell's own folder, such as out/*.png, not "
                f"{pattern!r}."
            )
    return patterns


def _current_folder(named: str) -> Path:
    try:
        return Path.cwd()
    except OSError:
        raise OptionError(
            f"--file {named}: the current folder was deleted; go to another one with %cd."
        ) from None


def _files_at(folder: Path, named: str) -> Iterator[tuple[str, Path]]:
    """Yield the files that one `--file` means: name below the folder, and path."""
    # Not resolved: a link below the folder stands for what it leads to.
    path = Path(os.path.normpath(folder / os.path.expanduser(named)))
    if not path.is_relative_to(folder):
        raise OptionError(
            f"--file {named}: only files at or below {folder} travel; copy it beside the notebook."
        )
    if "\0" in named or not named.strip() or not path.exists():
        raise OptionError(f"--file {named}: there is no such file in {folder}.")
    if path.is_dir():
        for parent, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if _travels(name))
            for name in sorted(filter(_travels, names)):
                place = Path(parent, name)
                if place.is_file():
                    yield _name(folder, place, named), place
    else:
        yield _name(folder, path, named), path


def _travels(name: str) -> bool:
    return not name.startswith(".") and name != "__pycache__"


def _name(folder: Path, place: Path, named: str) -> str:
    name = place.relative_to(folder).as_posix()
    if name == _PROGRAM:
        raise OptionError(
            f"--file {named}: {_PROGRAM} is what the cell itself is called there; rename the file."
        )
    return name


def _read(named: str, place: Path, left: int) -> bytes:
    try:
        known = place.stat()
        if not stat.S_ISREG(known.st_mode):
            raise OptionError(f"--file {named}: it is not a regular file.")
        if known.st_size <= left:
            return place.read_bytes()
    except OSError as exc:
        raise OptionError(f"--file {named}: it cannot be read: {exc.strerror}.") from exc
    raise OptionError(
        f"--file {named}: {place.name} has {known.st_size:,} bytes, and all files may have "
        f"{MAX_BYTES >> 20} MiB; put it in the account's storage, and read it there."
    )
