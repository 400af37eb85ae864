"""The age and size limits of ended runs: records, folders, callbacks, and caches."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .run_folders import RunFolders
from .stores.base import EndedRun, Store

logger = logging.getLogger(__name__)

PERIOD_S = 3600.0
#: Seconds from the server's start to the first sweep: the cell that started the server goes first.
FIRST_S = 5.0
#: Maximum number of runs that one step measures or removes.
STEP_RUNS = 200
#: Length of the pause after such a step, as a multiple of the step's time. A sweep pauses if many
#: runs were never measured, as after an upgrade: it has time, and requests come first.
REST = 100
#: Maximum number of folders that one step looks up in the records, without a pause.
STEP_FOLDERS = 1000


@dataclass(frozen=True)
class Keep:
    """The limits for what is kept.

    Attributes:
        age_s: The longest time that a run is kept after its end, and a callback after its delivery;
            by the store's mark, which a wrong clock moves by at most a day.
        size_bytes: The most bytes that folders and records of ended runs may take together.
        session_age_s: The longest time that a session is kept after its last change.
    """

    age_s: float
    size_bytes: int
    session_age_s: float = math.inf


class Retention:
    """The remover of ended runs that are too old, and of the oldest while all take too much space.

    Live runs stay, and so do runs with a follower.

    Args:
        is_in_use: Returns whether a run must stay for now.
        is_supervised: Returns whether the run in a folder has a supervisor, whatever the records
            say; called on a thread.
        sweep_caches: Each removes what was not used since a moment, in seconds since 1970.
        sweep_sessions: Removes the sessions that were not used since a moment.
    """

    def __init__(
        self,
        store: Store,
        runs_folder: Path,
        keep: Keep,
        *,
        is_in_use: Callable[[str], bool],
        is_supervised: Callable[[Path], bool],
        sweep_caches: Sequence[Callable[[float], Awaitable[None]]] = (),
        sweep_sessions: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._folders = RunFolders(runs_folder)
        self._is_in_use = is_in_use
        self._is_supervised = is_supervised
        self._keep = keep
        self._sweep_caches = sweep_caches
        self._sweep_sessions = sweep_sessions

    async def sweep_for_ever(self) -> None:
        """Sweep soon and then every hour, until the task is cancelled."""
        await asyncio.sleep(FIRST_S)
        while True:
            try:
                await self.sweep(time.time())
            except Exception:  # the top of a task
                logger.exception("Old runs could not be removed")
            await asyncio.sleep(PERIOD_S)

    async def sweep(self, now: float) -> None:
        """Remove everything beyond the limits.

        Args:
            now: Seconds since 1970.
        """
        begun = time.monotonic()
        while await self._store.catch_up():
            await _rest_since(begun)
            begun = time.monotonic()
        # The folders first: a run that comes now has a record before it has a folder.
        run_ids = await asyncio.to_thread(self._folders.run_ids)
        mark = await self._store.move_mark(now)
        too_old = mark - self._keep.age_s
        await self._forget(lambda run, total: run.kept_from < too_old)
        await self._measure()
        await self._forget(lambda run, total: total > self._keep.size_bytes)
        for begin in range(0, len(run_ids), STEP_FOLDERS):
            for run_id in await self._store.unknown(run_ids[begin : begin + STEP_FOLDERS]):
                if not self._is_in_use(run_id):
                    await self._remove(run_id)
        while await self._store.forget_deliveries(too_old, limit=STEP_RUNS) == STEP_RUNS:
            pass
        for sweep_cache in self._sweep_caches:
            await sweep_cache(too_old)
        if self._sweep_sessions is not None:
            await self._sweep_sessions(mark - self._keep.session_age_s)

    async def _forget(self, may_go: Callable[[EndedRun, int], bool]) -> None:
        """Remove ended runs, the oldest first, up to the first one that may stay.

        Args:
            may_go: Returns whether a run is to go, given the bytes that all ended runs take by
                then.
        """
        total = await self._store.ended_bytes()
        last: EndedRun | None = None
        while runs := await self._store.oldest_ended(limit=STEP_RUNS, after=last):
            for last in runs:
                if not may_go(last, total):
                    return
                if not self._is_in_use(last.run_id):
                    total -= last.size_bytes or 0
                    # The record first, so that no client begins to read the run. If this process
                    # ends here, a later sweep finds the folder without a record.
                    await self._store.forget(last.run_id)
                    await self._remove(last.run_id)

    async def _measure(self) -> None:
        """Note the sizes of the runs that have ended since the last sweep."""
        begun = time.monotonic()
        while run_ids := await self._store.unmeasured(limit=STEP_RUNS):
            await self._store.note_sizes(await asyncio.to_thread(self._sizes, run_ids))
            if len(run_ids) < STEP_RUNS:
                return
            await _rest_since(begun)
            begun = time.monotonic()

    def _sizes(self, run_ids: Iterable[str]) -> dict[str, int]:
        return {run_id: size_on_disk(self._folders.of(run_id)) for run_id in run_ids}

    async def _remove(self, run_id: str) -> None:
        folder = self._folders.of(run_id)
        try:
            # Runs go on even if a user has removed the whole database.
            if not await asyncio.to_thread(self._is_supervised, folder):
                await asyncio.to_thread(remove_tree, folder)
        except OSError as exc:
            logger.warning("The folder of run %s could not be removed: %s", run_id, exc.strerror)


async def _rest_since(begun: float) -> None:
    """Pause after a step that began at `begun`, in proportion to its length."""
    await asyncio.sleep(REST * (time.monotonic() - begun))


def size_on_disk(folder: Path) -> int:
    """Return the bytes that a folder takes with everything in it; 0 if it is missing."""
    blocks, waiting = 0, [os.fspath(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # removed in the meantime
                    blocks += entry.stat(follow_symlinks=False).st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return blocks * 512


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it; a missing folder is no error.

    Programs leave folders without write permission, and some that are nested deeper than Python
    3.11 can follow, or both.

    Raises:
        OSError: Some of it belongs to another user and cannot be removed.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except (PermissionError, RecursionError):
        for path in _folders(folder):
            with contextlib.suppress(OSError):
                os.chmod(path, 0o700)
        done = subprocess.run(
            ["rm", "-rf", "--", folder],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode != 0:
            reason, _, _ = done.stderr.partition("\n")
            raise PermissionError(errno.EPERM, reason) from None


def _folders(folder: Path) -> Iterator[str]:
    """Yield a folder and all folders below it, each before the folders in it."""
    waiting = [os.fspath(folder)]
    while waiting:
        path = waiting.pop()
        yield path
        # The folder may be gone, closed to us, or too deep to have a path.
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
