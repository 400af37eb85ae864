"""Files that travel with the cell, and files that it wrote on their way back."""

from __future__ import annotations

import glob
import os
from fnmatch import fnmatchcase
from itertools import takewhile

from .refusals import MAX_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: Sent files get this age, so that every later file is newer by any clock.
_AGE_NS = 10_000_000_000

_folder = ""
_before: dict[str, object] = {}


def receive_files(files: dict[str, str], patterns: list[str]) -> None:
    """Write the files that were sent, and note all that exist, before the cell runs.

    Args:
        files: path below the run's folder, with `/` -> content, compressed, in base64.
        patterns: of the files to send back.
    """
    global _folder
    _folder = os.getcwd()  # the cell may go elsewhere
    import zlib
    from binascii import a2b_base64

    for path, content in files.items():
        place = os.path.join(_folder, *path.split("/"))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(zlib.decompress(a2b_base64(content)))
        written = os.stat(place).st_mtime_ns - _AGE_NS
        os.utime(place, ns=(written, written))
    for pattern in patterns:
        for path in _matches(pattern):
            _before[path] = _state(path)


def send_files(patterns: list[str]) -> None:
    """Send the files that match and that the cell wrote; report a pattern without any."""
    from .frames import send

    left = MAX_BYTES
    sent = set()
    for pattern in patterns:
        found = [path for path in _matches(pattern) if _before.get(path) != _state(path)]
        if not found:
            problem = f"--save {pattern}: the cell wrote no such file"
            about = f"[{problem}]"
            send("file", {"problem": problem}, exact={"path": pattern}, readable=about)
        for path in found:
            if path in sent:
                continue
            sent.add(path)
            try:
                content = _read(path, left)
            except OSError as exc:
                problem = str(exc)
            else:
                left -= len(content)
                about = f"[file {path}, {len(content):,} bytes]"
                send("file", {}, content, exact={"path": path}, readable=about)
                continue
            about = f"[{problem}]"
            send("file", {"problem": problem}, exact={"path": path}, readable=about)


def _read(path: str, left: int) -> bytes:
    with open(os.path.join(_folder, path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > left else file.read(left + 1)
    size = max(size, len(content))
    if size > left:
        raise OSError(
            f"{path} has {size:,} bytes, more than is left of the {MAX_BYTES >> 20} MiB that "
            "--save brings back; put it in the account's storage"
        )
    return content


def _state(path: str) -> object:
    try:
        known = os.stat(os.path.join(_folder, path))
    except OSError:
        return None
    return known.st_mtime_ns, known.st_ctime_ns, known.st_size, known.st_ino


def _matches(pattern: str) -> Iterator[str]:
    """Return the regular files below the folder that a pattern matches, as `glob` would.

    A plain folder matches all files in it, hidden ones too, since some formats have them. Links
    to folders are not followed, nor those that lead out of it.
    """
    home = os.path.realpath(_folder)
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    is_folder = not glob.has_magic(pattern) and os.path.isdir(os.path.join(home, *parts))
    fixed = parts if is_folder else list(takewhile(lambda p: not glob.has_magic(p), parts[:-1]))
    rest = parts[len(fixed) :]
    top = os.path.join(home, *fixed)
    if os.path.realpath(top) != top:
        return
    for folder, folders, names in os.walk(top):
        way = [] if folder == top else os.path.relpath(folder, top).split(os.sep)
        folders[:] = sorted(
            name for name in folders if is_folder or _fits([*way, name], rest, is_start=True)
        )
        for name in sorted(names):
            place = os.path.join(folder, name)
            if (
                (is_folder or _fits([*way, name], rest))
                and os.path.realpath(place).startswith(os.path.join(home, ""))
                and os.path.isfile(place)
            ):
                yield "/".join([*fixed, *way, name])


def _fits(names: list[str], parts: list[str], *, is_start: bool = False) -> bool:
    """Return whether a path matches the parts of a pattern, or is the beginning of a match."""
    if not names and is_start:
        return bool(parts)
    if not parts:
        return not names
    first, *rest = parts
    if first == "**" and _fits(names, rest, is_start=is_start):
        return True
    if not names or (names[0].startswith(".") and not first.startswith(".")):
        return False
    if first == "**":
        return _fits(names[1:], parts, is_start=is_start)
    return fnmatchcase(names[0], first) and _fits(names[1:], rest, is_start=is_start)
