"""Files that a run sent home -> files in a folder of this machine, and nowhere else."""

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
    """What became of each file; paths as the run named them.

    Attributes:
        written: new here, or written over.
        same: here already, with this very content.
        kept: here already, with another content, which was kept.
        refused: path -> why it cannot be written.
    """

    written: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def problems(self, way_out: str) -> list[str]:
        """What kept files from being written, in sentences.

        Args:
            way_out: how those that were kept could be written, in words.
        """
        problems = [f"{path} was not written: {why}." for path, why in self.refused.items()]
        if self.kept:
            kept = ", ".join(self.kept)
            problems.append(f"{kept}: already here, and not written over; {way_out}.")
        return [one_line(problem) for problem in problems]  # the program chose the names


def write_files(files: Mapping[str, bytes], folder: Path, *, overwrite: bool) -> Saved:
    """Writes files below a folder, making folders as needed.

    Args:
        files: path with `/` -> content; paths come from the run's program and are not trusted.
        overwrite: whether what is there may be replaced.
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
    """Names that Windows gives another meaning: devices, and an end in a dot or a space."""
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
                pass  # another one was first
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
    """Whole or not at all; a link is replaced itself, not what it leads to."""
    with _written(content, place.parent) as temporary:
        os.replace(temporary, place)


@contextmanager
def _written(content: bytes, folder: Path) -> Iterator[Path]:
    """A file with the content, under a name that is gone at the end."""
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
    """Gives a file its name, never over another.

    Raises:
        FileExistsError: there is one of that name.
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
