"""Files that a run sent home -> files below a folder of this machine, never outside it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..protocol.lines import one_line

#: On Windows, bytes as they are.
_BINARY: int = getattr(os, "O_BINARY", 0)


@dataclass
class Saved:
    """The fate of each file; paths as the run named them.

    Attributes:
        written: new files, and files that were overwritten.
        same: files that existed with the same content.
        kept: files that existed with other content, which was kept.
        refused: path -> why it cannot be written.
    """

    written: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def problems(self, way_out: str) -> list[str]:
        """Return sentences that say why files were not written.

        Args:
            way_out: what the user can do to write those that were kept.
        """
        problems = [f"{path} was not written: {why}." for path, why in self.refused.items()]
        if self.kept:
            kept = ", ".join(self.kept)
            problems.append(f"{kept}: already here, and not written over; {way_out}.")
        return [one_line(problem) for problem in problems]  # the program chose the names


def write_files(files: Mapping[str, bytes], folder: Path, *, overwrite: bool) -> Saved:
    """Write files below a folder, making folders as needed.

    Args:
        files: path with `/` -> content; paths come from the run's program and are not trusted.
        overwrite: whether existing files may be replaced.
    """
    saved = Saved()
    for path, content in files.items():
        if not _is_below(path):
            saved.refused[path] = "it is no path below a folder"
            continue
        try:
            _write(path, content, folder, overwrite, saved)
        except OSError as exc:
            saved.refused[path] = _why(exc)
    return saved


def _why(problem: OSError) -> str:
    try:
        os.getcwd()
    except OSError:
        return "the current folder was deleted; go to another one"
    return problem.strerror or str(problem)


def _is_below(path: str) -> bool:
    windows = PureWindowsPath(path)
    parts = path.split("/")
    return (
        not PurePosixPath(path).is_absolute()
        and not windows.anchor
        and "\\" not in path
        and "\0" not in path
        and not {"", ".", ".."} & set(parts)
        and (os.name != "nt" or not (":" in path or _is_reserved(windows)))
    )


def _is_reserved(path: PureWindowsPath) -> bool:
    """Return whether Windows gives a name another meaning: a device, or a final dot or space."""
    devices = {"CON", "PRN", "AUX", "NUL", *(f"{d}{n}" for d in ("COM", "LPT") for n in range(10))}
    return any(
        part.partition(".")[0].rstrip().upper() in devices or part != part.rstrip(". ")
        for part in path.parts
    )


def _write(path: str, content: bytes, folder: Path, overwrite: bool, saved: Saved) -> None:
    place = folder.joinpath(*path.split("/"))
    home = folder.resolve()
    # Before a folder is made: one of those above may be a link that leads away.
    if not place.parent.resolve().is_relative_to(home):
        saved.refused[path] = "a link leads out of the folder"
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(place):
        with _written(content, place.parent) as temporary:
            try:
                name_file(temporary, place)
                saved.written.append(path)
                return
            except FileExistsError:
                pass  # another process was first
    if place.is_file() and not place.is_symlink() and place.read_bytes() == content:
        saved.same.append(path)
    elif not overwrite:
        saved.kept.append(path)
    elif place.is_dir():
        saved.refused[path] = "a folder has this name"
    else:
        _replace(place, content)
        saved.written.append(path)


def _replace(place: Path, content: bytes) -> None:
    """Write a file whole or not at all. A link itself is replaced, not its target."""
    with _written(content, place.parent) as temporary:
        os.replace(temporary, place)


@contextmanager
def _written(content: bytes, folder: Path) -> Iterator[Path]:
    """Yield a temporary file with the content."""
    temporary = folder / f".lyceum-{uuid.uuid4().hex}"
    # As `open` makes files: with what the user's umask leaves of the permissions.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def name_file(temporary: Path, place: Path) -> None:
    """Give a file its final name, never over another file.

    Raises:
        FileExistsError: a file of that name exists.
    """
    if os.name == "nt":
        os.rename(temporary, place)  # there it never replaces
        return
    try:
        os.link(temporary, place)
    except FileExistsError:
        raise
    except OSError:  # the file system has no second names
        if os.path.lexists(place):
            raise FileExistsError(str(place)) from None
        os.rename(temporary, place)
