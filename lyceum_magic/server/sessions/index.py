"""The server's own file about a session: its branches, its snapshots, and which of them are kept.

It lies outside of the session's folder: a container that writes there cannot move a head.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...own_files import put_own, read_own
from .manifest import PackUse


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was a head once. Times in seconds since 1970.

    Attributes:
        parent: The id and SHA-256 of the snapshot that it continues; None for a first cell.
        size_bytes, variables, packs: See `manifest.Contents`.
    """

    id: str
    sha256: str
    cell: int
    branch: str
    parent: tuple[str, str] | None
    saved_at: float
    size_bytes: int
    variables: int
    packs: Mapping[str, PackUse]


@dataclass
class Index:
    """One session. Times in seconds since 1970.

    Attributes:
        branches: Name -> the id of the head.
        snapshots: Id -> snapshot, in the order in which they came.
        kept: The ids of snapshots that collection spares.
    """

    key: str
    title: str
    created_at: float
    updated_at: float
    branches: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)

    @property
    def pinned(self) -> set[str]:
        """The ids of the snapshots that collection never removes."""
        return {*self.branches.values(), *self.kept}

    def head(self, branch: str) -> Snapshot | None:
        """Return the newest snapshot of a branch; None if it has none."""
        return self.snapshots.get(self.branches.get(branch, ""))


def read_index(path: Path) -> Index | None:
    """Return what a file holds; None if it does not exist.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds something else.
    """
    try:
        content = read_own(path)
    except FileNotFoundError:
        return None
    try:
        return _decoded(json.loads(content))
    except (TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc


def write_index(path: Path, index: Index) -> None:
    """Write the file in one step.

    Raises:
        OSError: It cannot be written; then the old one stays.
    """
    snapshots = [vars(snapshot) for snapshot in index.snapshots.values()]
    put_own(path, json.dumps({**vars(index), "snapshots": snapshots}))


def _decoded(members: dict[str, Any]) -> Index:
    snapshots = [_snapshot(item) for item in members["snapshots"]]
    index = Index(**{**members, "snapshots": {snapshot.id: snapshot for snapshot in snapshots}})
    if not index.pinned <= set(index.snapshots):
        raise ValueError("a head has no snapshot")
    return index


def _snapshot(members: dict[str, Any]) -> Snapshot:
    parent = tuple(members["parent"]) if members["parent"] else None
    packs = {name: PackUse(*use) for name, use in members["packs"].items()}
    return Snapshot(**{**members, "parent": parent, "packs": packs})
