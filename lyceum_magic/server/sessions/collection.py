"""The choice of what collection removes: a session's index and files in, names and spans out.

Packs are never written again. Where less than half of one is needed, the rest of it is given back
to the disk in place: every part that a snapshot names stays where it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ...protocol.sessions import KEPT_CELLS, MANIFESTS, PACKS
from .files import StoredFile
from .index import Index

_BLOCK = 4096
#: Minimum size of a pack that is made smaller.
_SMALL_BYTES = 1 << 20


def to_drop(index: Index, files: Sequence[StoredFile], max_bytes: int) -> set[str]:
    """Return the ids of the snapshots that go.

    Heads and kept snapshots stay, and so do the `KEPT_CELLS` newest, while all files together fit
    into the session's size.
    """
    pinned, names = index.pinned, list(index.snapshots)
    dropped = {name for name in names[:-KEPT_CELLS] if name not in pinned}
    candidates = [name for name in names if name not in pinned and name not in dropped]
    while candidates and disk_size(index, files, index.snapshots.keys() - dropped) > max_bytes:
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
    packs = {pack for snapshot in index.snapshots.values() for pack in snapshot.packs}
    return [
        file
        for file in files
        if not _is_needed(file, index, packs) and (not busy or file.snapshot_id in dropped)
    ]


def sparse_packs(index: Index, files: Sequence[StoredFile]) -> list[str]:
    """Return the ids of packs of which each snapshot needs less than half, if they are large."""
    sizes = {file.snapshot_id: file.size_bytes for file in files if file.folder == PACKS}
    most: dict[str, int] = {}
    for snapshot in index.snapshots.values():
        for pack, use in snapshot.packs.items():
            most[pack] = max(most.get(pack, 0), use.size_bytes)
    return [
        pack
        for pack, used in most.items()
        if sizes.get(pack, 0) >= _SMALL_BYTES and used < sizes[pack] / 2
    ]


def spans_without_use(
    parts: Iterable[tuple[int, int]], size_bytes: int
) -> Sequence[tuple[int, int]]:
    """Return the spans of a pack that no part takes, as whole blocks: begin and end of each.

    If the parts take half of the pack or more, it stays whole: then the list is empty.

    Args:
        parts: Offset and length of each part.
        size_bytes: The size of the pack.
    """
    spans, at, used = [], 0, 0
    for offset, length in sorted(parts):
        begin, end = -(-at // _BLOCK) * _BLOCK, offset // _BLOCK * _BLOCK
        if begin < end:
            spans.append((begin, end))
        used += max(0, offset + length - max(at, offset))
        at = max(at, offset + length)
    begin = -(-at // _BLOCK) * _BLOCK
    if begin < size_bytes:
        spans.append((begin, size_bytes))
    return spans if used < size_bytes / 2 else []


def _is_needed(file: StoredFile, index: Index, packs: Collection[str]) -> bool:
    needed = index.snapshots if file.folder == MANIFESTS else packs
    return file.snapshot_id in needed


def disk_size(index: Index, files: Sequence[StoredFile], snapshots: Collection[str]) -> int:
    """Return the bytes on the disk of the packs that some snapshots of an index need."""
    packs = {pack for name in snapshots for pack in index.snapshots[name].packs}
    return sum(
        file.size_bytes for file in files if file.folder == PACKS and file.snapshot_id in packs
    )
