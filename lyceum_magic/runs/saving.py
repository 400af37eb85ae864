"""Files that a run sent home -> files in a folder of this machine, and nowhere else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath


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
            saved.refused[path] = exc.strerror or str(exc)
    return saved


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
    try:
        with place.open("xb") as file:  # never through a link, never over a file
            file.write(content)
        saved.written.append(path)
        return
    except FileExistsError:
        pass
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
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".lyceum-", delete=False) as file:
        try:
            file.write(content)
            file.close()
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, place)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
