"""Files that travel with the cell, and those that it wrote on their way back."""

from __future__ import annotations

import glob
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 10 * 1024 * 1024
#: Sent files are made this old, so that whatever is written after them is newer by any clock.
_AGE_NS = 10_000_000_000

_folder = ""
_before: dict[str, object] = {}


def prepare(files: dict[str, str], patterns: list[str]) -> None:
    """Before the cell runs: writes what was sent, and notes what there is.

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
    """Sends the files that match and that the cell wrote; says so of a pattern without any."""
    from .frames import send

    left = MAX_BYTES
    sent = set()
    for pattern in patterns:
        found = [path for path in _matches(pattern) if _before.get(path) != _state(path)]
        if not found:
            problem = f"--save {pattern}: the cell wrote no such file"
            send("file", {"path": pattern, "problem": problem}, readable=f"[{problem}]")
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
                send("file", {"path": path}, content, readable=about)
                continue
            send("file", {"path": path, "problem": problem}, readable=f"[{problem}]")


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
    """The regular files below the folder that a pattern means; a plain folder means all in it.

    Links to folders are not followed, nor those that lead out of it.
    """
    home = os.path.realpath(_folder)
    if os.path.isdir(os.path.join(_folder, pattern)) and not glob.has_magic(pattern):
        pattern = f"{pattern.rstrip('/')}/**"
    place = os.path.join(glob.escape(_folder), *pattern.split("/"))
    for found in sorted(glob.glob(place, recursive=True)):
        path = os.path.relpath(found, _folder)
        parent = os.path.dirname(path)
        is_inside = os.path.realpath(found).startswith(os.path.join(home, ""))
        is_straight = os.path.realpath(os.path.join(_folder, parent)) == os.path.normpath(
            os.path.join(home, parent)
        )
        if is_inside and is_straight and os.path.isfile(found):
            yield path.replace(os.sep, "/")
