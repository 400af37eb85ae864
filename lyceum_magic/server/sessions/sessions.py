"""All sessions of an account: claims of runs, moves of heads, and what clients read.

A run claims its branch before anything is started, and gives it back at its end, when the head
moves. Calls for one session come one after the other; those for different sessions do not wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from ...exceptions import LyceumError
from ...protocol.requests import SessionStep
from ...protocol.sessions import MAX_SESSION_BYTES
from ..tasks import log_failure
from ..troubles import Troubles
from .errors import (
    SessionConflict,
    SessionsUnavailable,
    SnapshotDamaged,
    SnapshotRefused,
    UnknownSession,
)
from .stored import SessionView, StoredSession, stored_keys

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_MOVING = "what a cell has saved cannot be taken over into its session, and is tried again"


class Sessions:
    """The sessions below a folder.

    Args:
        folder: Made with mode 0700 when the first session is.
        troubles: Takes a note while a head cannot be moved.
        clock: Seconds since 1970.

    Raises (every call):
        SessionsUnavailable: The disk fails.
        SnapshotDamaged: The server's file about a session is broken.
    """

    def __init__(
        self,
        folder: Path,
        *,
        troubles: Troubles | None = None,
        clock: Callable[[], float] = time.time,
        max_bytes: int = MAX_SESSION_BYTES,
    ) -> None:
        self._folder = folder
        self._troubles = troubles or Troubles()
        self._clock = clock
        self._max_bytes = max_bytes
        self._claims: dict[tuple[str, str], tuple[str, SessionStep]] = {}
        # Steps of runs that are over, whose heads a failing disk has not let move.
        self._unmoved: dict[tuple[str, str], SessionStep] = {}
        # Errors of the last run of each branch: that run's step, and a sentence.
        self._errors: dict[tuple[str, str], tuple[SessionStep, LyceumError]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._collections: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for the collections that have begun."""
        if self._collections:
            await asyncio.wait(self._collections)

    def folder_of(self, key: str) -> Path:
        """Return the folder that runs of a session write to."""
        return self._folder / key

    # Runs.

    async def claim(self, step: SessionStep, run_id: str) -> None:
        """Take a branch for a run, or refuse it.

        Raises:
            SessionConflict: A run works on the branch, or it has another head.
            SnapshotDamaged: The head cannot be restored.
            SessionFull: The session takes too much room.
        """
        async with self._lock(step.key):
            self._check_free(step.key, step.branch)
            earlier, error = self._errors.get((step.key, step.branch), (None, None))
            if earlier and error and step.parent and step.parent.id == earlier.id:
                raise error  # which says why that is not the head
            claimed = [other.id for _, other in self._claims.values() if other.key == step.key]
            stored = self._stored(step.key)
            await asyncio.to_thread(stored.admit, step, self._clock(), claimed=claimed)
            self._claims[step.key, step.branch] = run_id, step

    def take_up(self, step: SessionStep, run_id: str) -> None:
        """Take a branch for a run that an earlier server has accepted."""
        self._claims[step.key, step.branch] = run_id, step

    async def settle(self, step: SessionStep, run_id: str) -> None:
        """Give a run's branch back, after its head has moved to what the run has saved, if it has.

        Never raises for what is on the disk: the run has ended, whatever became of its session.
        """
        async with self._lock(step.key):
            place = step.key, step.branch
            try:
                await self._advance(step)
            finally:
                if self._claims.get(place, ("",))[0] == run_id:
                    del self._claims[place]
        self._collect(step.key)  # a save that failed may have left files

    # Reading.

    async def list(self) -> Sequence[SessionView]:
        """Return all sessions, the last changed first; a broken one is left out and logged."""
        views = []
        for key in await asyncio.to_thread(stored_keys, self._folder):
            try:
                views.append(await self.read(key))
            except UnknownSession:
                pass  # removed in the meantime, or up to its last files
            except SnapshotDamaged as exc:
                logger.warning("%s", exc)
        return sorted(views, key=lambda view: view.index.updated_at, reverse=True)

    async def read(self, key: str) -> SessionView:
        """Return one session.

        Raises:
            UnknownSession: It does not exist.
        """
        return await self._on(key, StoredSession.view)

    async def manifest(self, key: str, snapshot_id: str) -> bytes:
        """Return the manifest of a snapshot.

        Raises:
            UnknownSession, UnknownSnapshot: It does not exist.
            SnapshotDamaged: Its files are gone or were changed.
        """
        return await self._on(key, lambda stored: stored.manifest(snapshot_id))

    def busy(self, key: str) -> Mapping[str, str]:
        """Return the branches of a session on which runs work: branch -> run id."""
        claims = self._claims.items()
        return {branch: run_id for (other, branch), (run_id, _) in claims if other == key}

    # Changes by users.

    async def move(
        self, key: str, branch: str, *, expected: str | None, to: str | None, title: str | None
    ) -> SessionView:
        """Move the head of a branch by compare-and-set; see `StoredSession.move`.

        Raises:
            SessionConflict: The branch has another head, or a run works on it.
            UnknownSnapshot: There is no snapshot to move to.
            SnapshotDamaged: It cannot be restored.
        """
        now = self._clock()
        return await self._change(
            key, lambda stored: stored.move(branch, expected, to, title, now), branch=branch
        )

    async def remove_branch(self, key: str, branch: str, *, expected: str | None) -> SessionView:
        """Remove a branch; its snapshots stay until collection removes them.

        Args:
            expected: The id of the present head; None for any.

        Raises:
            UnknownSession, UnknownSnapshot: It does not exist.
            SessionConflict: It has another head, or a run works on it.
        """
        now = self._clock()
        return await self._change(
            key, lambda stored: stored.remove_branch(branch, expected, now), branch=branch
        )

    async def keep(self, key: str, snapshot_id: str, *, is_kept: bool) -> SessionView:
        """Let collection spare a snapshot, or no longer.

        Raises:
            UnknownSession, UnknownSnapshot: It does not exist.
            SnapshotDamaged: It cannot be restored.
        """
        now = self._clock()
        return await self._change(
            key, lambda stored: stored.keep(snapshot_id, now, is_kept=is_kept)
        )

    async def remove(self, key: str) -> None:
        """Remove a session with all its snapshots.

        Raises:
            UnknownSession: It does not exist.
            SessionConflict: A run works on it.
        """
        async with self._lock(key):
            for branch in self.busy(key):
                self._check_free(key, branch)
            stored = self._stored(key)
            if not await asyncio.to_thread(stored.exists):
                raise UnknownSession(f"No session has the name {key!r}.")
            await asyncio.to_thread(stored.remove)

    async def sweep(self, unused_since: float) -> None:
        """Remove the sessions that were unused since a moment, in seconds since 1970.

        Those with kept snapshots stay, and so do broken ones: their files may still be of use.
        """
        for key in await asyncio.to_thread(stored_keys, self._folder):
            async with self._lock(key):
                if not self.busy(key):
                    await asyncio.to_thread(self._stored(key).remove_unused, unused_since)

    # Underneath.

    async def _on(self, key: str, work: Callable[[StoredSession], _T]) -> _T:
        async with self._lock(key):
            return await asyncio.to_thread(work, self._stored(key))

    async def _change(
        self, key: str, change: Callable[[StoredSession], object], *, branch: str | None = None
    ) -> SessionView:
        async with self._lock(key):
            if branch is not None:
                self._check_free(key, branch)
            stored = self._stored(key)
            await asyncio.to_thread(change, stored)
            view = await asyncio.to_thread(stored.view)
        self._collect(key)
        return view

    async def _advance(self, step: SessionStep) -> None:
        """Move a head to what a run has saved; once more later, if the disk fails now."""
        place = step.key, step.branch
        self._unmoved.pop(place, None)
        self._errors.pop(place, None)
        try:
            await asyncio.to_thread(self._stored(step.key).advance, step, self._clock())
        except SessionsUnavailable as exc:
            self._unmoved[place] = step
            self._errors[place] = step, exc
            self._troubles.begin(_MOVING, exc)
        except (SnapshotRefused, SnapshotDamaged) as exc:
            self._errors[place] = step, exc
            logger.warning("%s", exc)
        except Exception:  # at the end of a run, which has to end all the same
            logger.exception("the head of session %s could not be moved", step.key)
        else:
            if not self._unmoved:
                self._troubles.end(_MOVING)

    def _collect(self, key: str) -> None:
        """Remove what a session no longer needs, in the background."""
        task = asyncio.create_task(self._collected(key), name=f"collection of session {key}")
        task.add_done_callback(log_failure)
        self._collections.add(task)
        task.add_done_callback(self._collections.discard)

    async def _collected(self, key: str) -> None:
        stored = self._stored(key)
        try:
            async with self._lock(key):
                busy = bool(self.busy(key)) or any(other == key for other, _ in self._unmoved)
                waste = await asyncio.to_thread(stored.shrink, busy=busy)
            # Not under the lock: a run that starts now needs nothing of it.
            await asyncio.to_thread(stored.clear_away, waste)
        except UnknownSession:
            pass  # removed in the meantime
        except (SessionsUnavailable, SnapshotDamaged) as exc:
            logger.warning("%s", exc)

    def _check_free(self, key: str, branch: str) -> None:
        if claim := self._claims.get((key, branch)):
            raise SessionConflict(
                f"Session {key!r} is busy: run {claim[0]} works on its branch {branch!r}. Wait for "
                "its end, or stop it."
            )

    def _stored(self, key: str) -> StoredSession:
        return StoredSession(self._folder, key, max_bytes=self._max_bytes)

    @asynccontextmanager
    async def _lock(self, key: str) -> AsyncIterator[None]:
        """Wait for the session's turn; then move the heads that could not be moved before."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            for place, step in list(self._unmoved.items()):
                if place[0] == key:
                    await self._advance(step)
            yield
