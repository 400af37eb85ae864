"""One session on disk: the rules by which its heads move, and what a move requires.

Everything here blocks. `Sessions` calls it on a thread, one call for a session at a time.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...disks import reason
from ...own_files import check_folder, own_folder
from ...protocol.requests import SessionStep
from ...protocol.sessions import KEY_PATTERN, MAX_SESSION_BYTES, PACK_SUFFIX
from ...protocol.sizes import in_words
from .collection import disk_size, left_over, spans_without_use, sparse_packs, to_drop
from .errors import (
    SessionConflict,
    SessionFull,
    SessionsUnavailable,
    SnapshotDamaged,
    SnapshotRefused,
    UnknownSession,
    UnknownSnapshot,
)
from .files import SnapshotFiles, StoredFile
from .index import Index, Snapshot, read_index, write_index
from .manifest import BadManifest, read_manifest, read_parts

logger = logging.getLogger(__name__)

_INDEXES = ".index"
_KEY = re.compile(KEY_PATTERN)


def stored_keys(parent: Path) -> set[str]:
    """Return the keys of all sessions below a folder, broken ones too."""
    try:
        names = {path.name for path in parent.iterdir()}
        names |= {path.name.removesuffix(".json") for path in (parent / _INDEXES).iterdir()}
    except FileNotFoundError:
        return set()
    return {name for name in names if _KEY.fullmatch(name)}


@dataclass(frozen=True, slots=True)
class Waste:
    """The files that no snapshot needs, and spans of packs: pack id -> begin and end of each."""

    files: Sequence[StoredFile]
    spans: Mapping[str, Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as clients see it, with the size of all its files."""

    index: Index
    size_bytes: int


class StoredSession:
    """A session below a folder.

    Args:
        parent: The folder of all sessions.

    Raises (every call):
        SessionsUnavailable: The disk fails.
        SnapshotDamaged: The server's file about the session is broken.
    """

    def __init__(self, parent: Path, key: str, *, max_bytes: int = MAX_SESSION_BYTES) -> None:
        self.key = key
        self.files = SnapshotFiles(parent / key)
        self._parent = parent
        self._index = parent / _INDEXES / f"{key}.json"
        self._max_bytes = max_bytes

    # Reading.

    def read(self) -> Index:
        """Return what the server knows of the session.

        Raises:
            UnknownSession: It does not exist.
        """
        if (index := self._read()) is None:
            raise UnknownSession(f"No session has the name {self.key!r}.")
        return index

    def exists(self) -> bool:
        """Return whether anything of the session is on the disk."""
        return self._index.exists() or self.files.folder.exists()

    def view(self) -> SessionView:
        """Return the session as clients see it.

        Raises:
            UnknownSession: It does not exist.
        """
        index = self.read()
        return SessionView(index, sum(file.size_bytes for file in self.files.list()))

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return one snapshot.

        Raises:
            UnknownSession, UnknownSnapshot: It does not exist.
        """
        snapshot = self.read().snapshots.get(snapshot_id)
        if snapshot is None:
            raise UnknownSnapshot(f"Session {self.key!r} has no snapshot {snapshot_id!r}.")
        return snapshot

    def manifest(self, snapshot_id: str) -> bytes:
        """Return the manifest of a snapshot, which is the one that the run wrote.

        Raises:
            UnknownSession, UnknownSnapshot: It does not exist.
            SnapshotDamaged: Its files are gone or were changed.
        """
        return self._checked(self.snapshot(snapshot_id))

    # The life of a run.

    def admit(self, step: SessionStep, now: float, *, claimed: Collection[str]) -> None:
        """Make the session ready for a run, which must continue the head of its branch.

        Args:
            claimed: The ids of snapshots that runs of the session write now.

        Raises:
            SessionConflict: The branch has another head.
            SnapshotDamaged: The head cannot be restored.
            SessionFull: The session takes too much room.
        """
        index = self._read() or Index(self.key, step.title, now, now)
        self._check_parent(index, step)
        if step.id in {*claimed, *index.snapshots} or self.files.exists(step.id):
            raise SessionConflict(
                f"Session {self.key!r} has a snapshot {step.id!r} already; choose another id."
            )
        if (head := index.head(step.branch)) is not None:
            self._checked(head)
        self._check_room(index)
        with self._writing():
            self._make_folders()
            if not self._index.exists() or step.title not in ("", index.title):
                index.title = step.title or index.title
                self._write(index, now)

    def advance(self, step: SessionStep, now: float) -> None:
        """Move the head of a branch to the snapshot that a run has left, if it has left any.

        Raises:
            SnapshotRefused: It is not a whole one, or does not continue the head.
        """
        index = self._read()
        if index is None or step.id in index.snapshots:  # moved by an earlier server
            return
        if (snapshot := self._left_by(step, now)) is None:
            return
        if index.branches.get(step.branch) != (step.parent.id if step.parent else None):
            raise self._refused(step, "the branch has another head by now")
        index.snapshots[snapshot.id] = snapshot
        index.branches[step.branch] = snapshot.id
        with self._writing():
            self._write(index, now)

    # The user's moves.

    def move(
        self, branch: str, expected: str | None, to: str | None, title: str | None, now: float
    ) -> None:
        """Move the head of a branch by compare-and-set; make the session if it is missing.

        Args:
            expected: The id of the present head; None if the branch has none.
            to: The id of the new head; None removes the branch.
            title: None leaves it as it is.

        Raises:
            SessionConflict: The branch has another head.
            UnknownSnapshot: There is no snapshot to move to.
            SnapshotDamaged: It cannot be restored.
        """
        index = self._read()
        if index is None:
            index = Index(self.key, title or "", now, now)
        self._check_head(index, branch, expected)
        if to is None:
            index.branches.pop(branch, None)
        else:
            snapshot = index.snapshots.get(to)
            if snapshot is None:
                raise UnknownSnapshot(f"Session {self.key!r} has no snapshot {to!r}.")
            self._checked(snapshot)
            index.branches[branch] = to
        if title:
            index.title = title
        with self._writing():
            self._make_folders()
            self._write(index, now)

    def remove_branch(self, branch: str, expected: str | None, now: float) -> None:
        """Remove a branch; its snapshots stay until collection removes them.

        Args:
            expected: The id of the present head; None for any.

        Raises:
            UnknownSession, UnknownSnapshot: It does not exist.
            SessionConflict: It has another head.
        """
        index = self.read()
        if branch not in index.branches:
            raise UnknownSnapshot(f"Session {self.key!r} has no branch {branch!r}.")
        if expected is not None:
            self._check_head(index, branch, expected)
        del index.branches[branch]
        with self._writing():
            self._write(index, now)

    def keep(self, snapshot_id: str, now: float, *, is_kept: bool) -> None:
        """Let collection spare a snapshot, or no longer.

        Raises:
            UnknownSession, UnknownSnapshot: It does not exist.
        """
        snapshot, index = self.snapshot(snapshot_id), self.read()
        if is_kept:
            self._checked(snapshot)
        kept = [other for other in index.kept if other != snapshot_id]
        index.kept = [*kept, snapshot_id] if is_kept else kept
        with self._writing():
            self._write(index, now)

    def remove(self) -> None:
        """Remove the session with all its files."""
        with self._writing():
            # First, so that no request finds a session without its files.
            self._index.unlink(missing_ok=True)
            self.files.remove()

    def remove_unused(self, since: float) -> None:
        """Remove the session if it was not changed since a moment, in seconds since 1970.

        One with kept snapshots stays, and so does a broken one: its files may still be of use.
        """
        try:
            index = self._read()
        except SnapshotDamaged as exc:
            logger.warning("%s", exc)
            return
        # Without an index, an earlier server was killed while it removed the session.
        if index is None or (index.updated_at < since and not index.kept):
            self.remove()

    # Collection.

    def shrink(self, *, busy: bool) -> Waste:
        """Drop snapshots that need not stay; return what no snapshot needs any more.

        Args:
            busy: Whether a run writes to the session. Then files that belong to no snapshot stay.
        """
        index, files = self.read(), self.files.list()
        dropped = to_drop(index, files, self._max_bytes)
        if dropped:
            index.snapshots = {
                name: snapshot for name, snapshot in index.snapshots.items() if name not in dropped
            }
            with self._writing():
                write_index(self._index, index)
        return Waste(
            left_over(index, files, dropped=dropped, busy=busy), self._unused_spans(index, files)
        )

    def clear_away(self, waste: Waste) -> None:
        """Remove what no snapshot needs."""
        with self._writing():
            for file in waste.files:
                self.files.unlink(file)
        for pack, spans in waste.spans.items():
            try:
                self.files.thin(pack, spans)
            except OSError as exc:  # the pack goes later, as a whole
                logger.info("a pack of session %s stays as large as it is: %s", self.key, exc)

    def _unused_spans(
        self, index: Index, files: Sequence[StoredFile]
    ) -> Mapping[str, Sequence[tuple[int, int]]]:
        """Return what no snapshot needs of packs that are needed for less than half."""
        packs = {pack: self.files.pack_size(pack) or 0 for pack in sparse_packs(index, files)}
        used: dict[str, set[tuple[int, int]]] = {pack: set() for pack in packs}
        for snapshot in index.snapshots.values():
            if not used.keys() & snapshot.packs.keys():
                continue
            try:
                parts = read_parts(self._checked(snapshot))
            except (SnapshotDamaged, BadManifest):
                for pack in snapshot.packs:
                    used.pop(pack, None)  # it cannot be known what the snapshot needs
                continue
            for pack, offset, length in parts:
                if pack in used:
                    used[pack].add((offset, length))
        return {pack: spans_without_use(parts, packs[pack]) for pack, parts in used.items()}

    # Underneath.

    def _read(self) -> Index | None:
        try:
            return read_index(self._index)
        except OSError as exc:
            raise SessionsUnavailable(
                f"Session {self.key!r} cannot be read: {reason(exc, self._index)}."
            ) from exc
        except ValueError as exc:
            raise SnapshotDamaged(
                f"The server's file about session {self.key!r} is broken; remove the session with "
                f"`%lyceum session rm {self.key}`, or name another one."
            ) from exc

    def _write(self, index: Index, now: float) -> None:
        index.updated_at = max(now, index.updated_at)
        write_index(self._index, index)

    def _make_folders(self) -> None:
        for folder in (self._parent, self._index.parent):
            own_folder(folder)
        check_folder(self.files.folder)
        self.files.make()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise SessionsUnavailable(
                f"Session {self.key!r} cannot be written: {reason(exc, self._parent)}."
            ) from exc

    def _check_parent(self, index: Index, step: SessionStep) -> None:
        self._check_head(index, step.branch, step.parent.id if step.parent else None)
        head = index.head(step.branch)
        if head is not None and step.parent is not None and head.sha256 != step.parent.sha256:
            raise SessionConflict(
                f"The manifest of cell {head.cell} of session {self.key!r} has another SHA-256 "
                f"than the request names; look at `%lyceum session show {self.key}`."
            )
        number = head.cell + 1 if head is not None else 1
        if step.cell != number:
            raise SessionConflict(
                f"The next cell on branch {step.branch!r} of session {self.key!r} is {number}, "
                f"and not {step.cell}."
            )

    def _check_head(self, index: Index, branch: str, expected: str | None) -> None:
        if index.branches.get(branch) == expected:
            return
        head = index.head(branch)
        found = "has no cell" if head is None else f"is at cell {head.cell} ({head.id[:8]})"
        before = index.snapshots.get(expected or "")
        if expected is None:
            wanted = "is for a branch without cells"
        elif before is None:
            wanted = f"continues snapshot {expected[:8]}"
        else:
            wanted = f"continues cell {before.cell} ({before.id[:8]})"
        raise SessionConflict(
            f"Branch {branch!r} of session {self.key!r} {found}, and the request {wanted}; look at "
            f"`%lyceum session show {self.key}`."
        )

    def _check_room(self, index: Index) -> None:
        """Raise SessionFull if what collection must keep takes too much already."""
        size = disk_size(index, self.files.list(), index.pinned)
        if size > self._max_bytes:
            raise SessionFull(
                f"Session {self.key!r} takes {in_words(size)} and may take "
                f"{in_words(self._max_bytes)}; remove a branch or a kept cell, or begin a new "
                "session."
            )

    def _checked(self, snapshot: Snapshot) -> bytes:
        """Return a snapshot's manifest, after a look at all its files."""
        try:
            manifest = self.files.manifest(snapshot.id)
        except OSError as exc:
            missing = isinstance(exc, FileNotFoundError)
            raise self._damaged(
                snapshot, "its manifest is gone" if missing else "its manifest cannot be read"
            ) from exc
        if hashlib.sha256(manifest).hexdigest() != snapshot.sha256:
            raise self._damaged(snapshot, "its manifest was changed")
        for pack, use in snapshot.packs.items():
            found = self.files.pack_size(pack)
            if found is None:
                raise self._damaged(snapshot, f"its pack {pack[:8]}{PACK_SUFFIX} is gone")
            if found < use.end:
                raise self._damaged(snapshot, f"its pack {pack[:8]}{PACK_SUFFIX} was cut off")
        return manifest

    def _damaged(self, snapshot: Snapshot, why: str) -> SnapshotDamaged:
        return SnapshotDamaged(
            f"Cell {snapshot.cell} of session {self.key!r} cannot be restored: {why}. Go back to "
            f"an earlier cell with `%lyceum session checkout {self.key} CELL`."
        )

    def _left_by(self, step: SessionStep, now: float) -> Snapshot | None:
        """Return the snapshot that a run has left; None if it has left none."""
        try:
            contents = read_manifest(self.files.manifest(step.id), step)
            for pack, use in contents.packs.items():
                size = self.files.pack_size(pack)
                if size is None or size < use.end:
                    raise BadManifest(f"names a part of pack {pack[:8]} that does not exist")
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._refused(step, f"its manifest cannot be read ({exc.strerror})") from exc
        except BadManifest as exc:
            raise self._refused(step, f"its manifest {exc}") from exc
        parent = (step.parent.id, step.parent.sha256) if step.parent else None
        return Snapshot(
            step.id, contents.sha256, step.cell, step.branch, parent, now,
            contents.size_bytes, contents.variables, contents.packs,
        )  # fmt: skip

    def _refused(self, step: SessionStep, why: str) -> SnapshotRefused:
        return SnapshotRefused(
            f"What cell {step.cell} of session {self.key!r} saved was not taken over: {why}. The "
            "session is where it was before that cell."
        )
