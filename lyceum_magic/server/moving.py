"""Move the state that an earlier version kept in `LYCEUM_MAGIC_HOME` into an environment's folder.

Earlier versions had one state folder for all environments, `LYCEUM_MAGIC_HOME` itself. The first
server without a state of its own takes over what lies there: secrets, storage, records, callbacks
that are due, and live runs.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from pathlib import Path

from ..exceptions import EmbeddedServerError
from ..own_files import check_folder, check_folders, is_misplaced, read_own
from ..protocol.callbacks import LEFT_FILE
from ..protocol.state_folder import MOVES_FILE, RECORDS_FILE, SERVER_FILE
from .run_folders import RunFolders
from .runners.control import is_supervised
from .state_folder import AlreadyServed, lock_for_life, put
from .stores.sqlite import relocate

logger = logging.getLogger(__name__)

_RUNS = "runs"
#: Folders that live runs find by their old path too, beside their own folders.
_SHARED = ("requirements", "storage")
#: Names of all that is moved. The records come last: until they have moved, the move can be
#: continued.
_NAMES = (
    SERVER_FILE, LEFT_FILE, "vault.key", "uploads", "bootstraps", "image.engine", "compose.engine",
    *_SHARED, _RUNS, f"{RECORDS_FILE}-wal", f"{RECORDS_FILE}-shm", RECORDS_FILE,
)  # fmt: skip


def move_in(earlier: Path, folder: Path) -> None:
    """Move an earlier version's state to `folder`, unless that has a state or `earlier` a server.

    If a server is killed during the move, the next one continues it.

    Raises:
        EmbeddedServerError: The state cannot be moved.
    """
    if (folder / RECORDS_FILE).exists() or not (earlier / RECORDS_FILE).exists():
        return
    try:
        check_folders(earlier)
        for name in _NAMES:
            check_folder(earlier / name)
        # The lock file stays where it is: a server of an earlier version may wait for it.
        with lock_for_life(earlier):
            _move(earlier, folder)
    except AlreadyServed:
        logger.warning("An earlier server still serves %s, so its state is not moved", earlier)
    except OSError as exc:
        raise EmbeddedServerError(
            f"The state of an earlier version in {earlier} cannot be moved to {folder} "
            f"({exc.strerror}). Make sure that both are on one disk and yours, or set "
            "LYCEUM_MAGIC_HOME to another folder."
        ) from exc


def remove_links(earlier: Path) -> None:
    """Remove the old paths of runs that were live during the move, once all are over."""
    links = [link for link in _entries(earlier / _RUNS) if link.is_symlink()]
    if any(is_supervised(link) for link in links):
        return
    for link in [*links, *(earlier / name for name in _SHARED)]:
        if link.is_symlink():
            link.unlink()


def has_live_runs(folder: Path) -> bool:
    """Return whether a supervisor runs for a state folder."""
    return any(path.is_dir() and is_supervised(path) for path in _entries(folder / _RUNS))


def _move(earlier: Path, folder: Path) -> None:
    try:
        alive = relocate(earlier / RECORDS_FILE, earlier, folder)
    except sqlite3.DatabaseError as exc:
        # The server reports this when it opens them, with advice.
        logger.warning("The records in %s cannot be read: %s", earlier, exc)
        alive = []
    for name in _NAMES:
        old, new = earlier / name, folder / name
        if name == RECORDS_FILE:
            _note_move(earlier, folder)
        if old.exists() and not new.exists():
            old.rename(new)
        if name in _SHARED and alive:
            _link(old, new)
        if name == _RUNS:
            # One by one: a server of an earlier version that still starts there must not take
            # our folders for its own.
            for run_id in alive:
                run_folder = RunFolders(new).of(run_id)
                _link(old / run_folder.name, run_folder)
    (earlier / "server.log").unlink(missing_ok=True)


def _link(old: Path, new: Path) -> None:
    if new.exists() and not os.path.lexists(old):
        old.parent.mkdir(mode=0o700, exist_ok=True)
        old.symlink_to(new)


def _note_move(earlier: Path, folder: Path) -> None:
    """Note the move for clients that look for an earlier run."""
    path = earlier / MOVES_FILE
    try:
        moves = json.loads(read_own(path))
    except (FileNotFoundError, ValueError):
        moves = []
    except OSError as exc:
        if not is_misplaced(exc, path):
            raise
        moves = []
    moves = moves if isinstance(moves, list) else []
    put(path, [*moves, {"at": time.time(), "to": os.fspath(folder)}])


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
