"""The choice of what collection removes: a session's index and files in, names out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...protocol.sessions import KEPT_CELLS, MANIFESTS
from .files import StoredFile
from .index import Index


def to_drop(index: Index, files: Sequence[StoredFile], max_bytes: int) -> set[str]:
    """Return the ids of the snapshots that go.

    Heads and kept snapshots stay, and so do the `KEPT_CELLS` newest, while all files together fit
    into the session's size.
    """
    pinned, names = index.pinned, list(index.snapshots)
    dropped = {name for name in names[:-KEPT_CELLS] if name not in pinned}
    candidates = [name for name in names if name not in pinned and name not in dropped]
    while candidates and _size(index, files, dropped) > max_bytes:
        dropped.add(candidates.pop(0))
    return dropped


def left_over(
    index: Index, files: Sequence[StoredFile], *, dropped: Collection[str], busy: bool
) -> list[StoredFile]:
    """Return the files that no snapshot of the index needs.

    Args:
        dropped: The ids of snapshots that were taken out of the index.
        busy: Whether a run writes to the session: it may have begun files that are not in the
            index yet.
    """
    packs = _packs(index)
    return [
        file
        for file in files
        if not _is_needed(file, index, packs) and (not busy or file.snapshot_id in dropped)
    ]


def _is_needed(file: StoredFile, index: Index, packs: Collection[str]) -> bool:
    needed = index.snapshots if file.folder == MANIFESTS else packs
    return file.snapshot_id in needed


def _packs(index: Index, without: Collection[str] = ()) -> set[str]:
    return {
        pack
        for snapshot in index.snapshots.values()
        if snapshot.id not in without
        for pack in snapshot.packs
    }


def _size(index: Index, files: Sequence[StoredFile], dropped: Collection[str]) -> int:
    packs = _packs(index, dropped)
    return sum(file.size_bytes for file in files if file.snapshot_id in packs)
