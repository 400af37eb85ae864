"""A run's folder, seen from the server: prepared before the hand-over, read after it.

A runner prepares it with `clear`, `write_program` or `new_work_folder`, `report` and
`write_assignment`; a handle reads what the supervisor left with `read_facts` and `read_end`. The
files are listed in `control`. The program can replace every one of them, so that nothing read here
is trusted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, get_args

from ...protocol.requests import StartPython
from ..output.spool import SpoolWriter
from ..regular_files import read_regular
from .base import EndReason, Refusal, RunEnd, RunOrder
from .control import ASSIGNMENT, END, FACTS, SOCKET, SPOOL, write_json

#: Errors that say nothing about the run: the machine lacks something, and that passes.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

_NOTE_FILE = "note"
_SCRIPT_NAME = re.compile(r"\w[\w .-]{0,100}\.py")
_LATEST_MOMENT = 1e11

# --- before the hand-over ----------------------------------------------------------------------


def clear(folder: Path, *names: str) -> None:
    """Remove what an earlier server, which got this far, left of its attempt.

    Args:
        names: files of this kind of run, beside the spool and the socket.
    """
    for name in (SPOOL, SOCKET, *names):
        (folder / name).unlink(missing_ok=True)


def new_work_folder(folder: Path) -> Path:
    """Make the program's own folder, empty, and return it."""
    work = folder / "work"
    if work.exists():  # an earlier server may have got this far
        shutil.rmtree(work)
    work.mkdir()
    return work


def write_program(folder: Path, request: StartPython, files: Mapping[str, str]) -> None:
    """Write a Python run's program and the files that it brings along into `work/`.

    Args:
        files: path below `work/` -> source.

    Raises:
        Refusal: a file has a name or a text that cannot be written.
        OSError: the disk is full, or fails.
    """
    work = new_work_folder(folder)
    for name, source in {**files, script_name(request, files): request.code}.items():
        try:
            if "/" in name:
                (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(source.encode())
        except UnicodeEncodeError as exc:
            raise Refusal(f"{name} holds characters that are not valid Unicode") from exc
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            raise Refusal(f"{name!r} cannot be written: {exc.strerror}") from exc


def script_name(request: StartPython, taken: Container[str]) -> str:
    """Return the program's file name: the one that the request names, if that can be used.

    Args:
        taken: the names of other files.
    """
    name = os.path.basename(request.file_name or "")
    if not _SCRIPT_NAME.fullmatch(name):
        name = "main.py"
    if name in taken:
        name = "main.py"
    while name in taken:
        name = f"_{name}"
    return name


def report(run_order: RunOrder, text: bytes) -> None:
    """Add to the run's stderr, as long as it has no supervisor that does."""
    spool = SpoolWriter(run_order.folder / SPOOL, secrets=run_order.environment.values())
    spool.append("stderr", time.time(), text)
    spool.flush(time.time())
    spool.close()


def note(run_order: RunOrder, phrase: str) -> None:
    """Say something that holds for the whole run; it is shown beside the run's state."""
    (run_order.folder / _NOTE_FILE).write_text(phrase, encoding="utf-8")


def read_note(folder: Path) -> str:
    """Return the note of the run in `folder`; empty if it has none."""
    try:
        return (folder / _NOTE_FILE).read_text(encoding="utf-8")
    except OSError:  # most have none, and the folders of old runs are gone
        return ""


def write_assignment(folder: Path, assignment: Mapping[str, Any]) -> None:
    """Write what the supervisor has to do. It holds secrets."""
    write_json(folder / ASSIGNMENT, assignment)


def remove_assignment(folder: Path) -> None:
    """Remove the assignment, if no supervisor came to read it."""
    with contextlib.suppress(OSError):
        (folder / ASSIGNMENT).unlink(missing_ok=True)


# --- after the hand-over -----------------------------------------------------------------------


def is_untouched(folder: Path) -> bool:
    """Return whether the assignment waits, and no supervisor has read it."""
    return os.path.exists(folder / ASSIGNMENT) and not wrote_anything(folder)


def wrote_anything(folder: Path) -> bool:
    """Return whether a supervisor wrote its facts or an end."""
    return any(os.path.exists(folder / name) for name in (FACTS, END))


def read_facts(folder: Path, name: str = FACTS) -> dict[str, Any]:
    """Return what a supervisor wrote into a file; empty if that is not a JSON object.

    Raises:
        OSError: the machine lacks something to read it.
    """
    try:
        facts = json.loads(read_regular(folder / name))
    except (ValueError, RecursionError):
        return {}
    except OSError as exc:
        if exc.errno in SHORTAGES:
            raise
        return {}
    return facts if isinstance(facts, dict) else {}


def facts_or_none(folder: Path, name: str = FACTS) -> dict[str, Any]:
    """Return the same; empty also if the file cannot be read now."""
    try:
        return read_facts(folder, name)
    except OSError:
        return {}


def read_end(folder: Path) -> RunEnd | None:
    """Return how a run ended; None if no end is written, or the program replaced it.

    Raises:
        OSError: the machine lacks something to read it.
    """
    try:
        end = RunEnd(**json.loads(read_regular(folder / END)))
    except (ValueError, TypeError, RecursionError):
        return None
    except OSError as exc:
        if exc.errno in SHORTAGES:
            raise
        return None
    is_sound = (
        end.reason in get_args(EndReason)
        and (end.return_code is None or type(end.return_code) is int)
        and isinstance(end.error, str)
        and (end.started_at is None or moment(end.started_at) is not None)
        and moment(end.finished_at) is not None
    )
    return end if is_sound else None


def moment(value: object) -> float | None:
    """Return a time in seconds since 1970; None if the value is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < _LATEST_MOMENT else None
