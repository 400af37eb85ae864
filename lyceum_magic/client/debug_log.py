"""The client's file of the debug trail: begun by the workspace, shown by `%lyceum doctor --log`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from .. import trail

#: A longer file is put aside when a kernel begins to write; the one before it is removed.
MAX_BYTES = 64 * 1024 * 1024


def path_in(journal_folder: Path) -> Path:
    """Return the file that this user's kernels write their lines to."""
    return journal_folder / "debug.log"


def begin(journal_folder: Path) -> None:
    """Send this process's lines of the trail to the file, if the trail is on."""
    if not trail.is_on:
        return
    path = path_in(journal_folder)
    with contextlib.suppress(OSError):
        if path.stat().st_size > MAX_BYTES:
            path.replace(path.with_suffix(".log.old"))
    trail.write_to(path)


def last_lines(
    journal_folder: Path, others: Iterable[Path], run_id: str = "", count: int = 100
) -> str:
    """Return the trail's last lines of a run, or of all runs, as text for the user.

    Args:
        others: the logs of the server and its supervisors, which hold their lines.
        run_id: whole; empty for all runs. The sums of one run's bytes follow its lines.
        count: maximum number of lines, the latest ones.
    """
    path = path_in(journal_folder)
    on = f"on: this kernel writes to {path}" if trail.is_on else f"off in this kernel ({path})"
    text = [f"The debug trail is {on}."]
    if not trail.is_on:
        text.append(
            f"Set {trail.VARIABLE}={trail.ON} where the kernel starts, and end the embedded server "
            "so that it starts again with it."
        )
    files: list[str | os.PathLike[str]] = [path.with_suffix(".log.old"), path, *others]
    lines = trail.run_lines(files, run_id)
    if len(lines) > count:
        text.append(f"The last {count} of {len(lines):,} lines:")
    whose = f"run {run_id}" if run_id else "any run"
    text += lines[-count:] or [f"There are no lines of {whose}."]
    if run_id and lines:
        text += ["", *_sums(lines)]
    return "\n".join(text)


def _sums(lines: list[str]) -> list[str]:
    """Return a table of the bytes at each border of one run, and the losses that it shows."""
    table = ["Bytes of text at each border:"]
    for station, (count, size, text) in trail.borders(lines).items():
        of_text = f", {text:,} of them in outputs that are text" if station == "decoded" else ""
        size = text if station == "handed" else size
        table.append(f"  {station:<11}{size:>13,} in {count:,} lines{of_text}")
    return [*table, *(trail.losses(lines) or ["Every border has what the one before it had."])]
