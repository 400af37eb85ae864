"""The objects of sessions in a bucket: their keys, and what the client reads of their JSON.

    lyceum-sessions/KEY/cells/ID.json      the manifest of a snapshot
    lyceum-sessions/KEY/packs/ID.pack      what it holds
    lyceum-sessions/KEY/heads/BRANCH.json  the head of a branch, as a machine has last moved it
    lyceum-sessions/KEY/kept/ID            marks a snapshot that collection spares

All of it can be written by the account's programs. So nothing that is read here is believed: a
manifest counts by its SHA-256 alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...protocol.sessions import ID_PATTERN, KEY_PATTERN, MAX_TITLE, SHA256_PATTERN

PREFIX = "lyceum-sessions/"
#: Maximum bytes of a published head.
MAX_HEAD_BYTES = 64 * 2**10

_HEAD_VERSION = 1


def session_prefix(key: str) -> str:
    return f"{PREFIX}{key}/"


def cell_object(key: str, snapshot: str) -> str:
    return f"{PREFIX}{key}/cells/{snapshot}.json"


def pack_object(key: str, pack: str) -> str:
    return f"{PREFIX}{key}/packs/{pack}.pack"


def head_object(key: str, branch: str) -> str:
    return f"{PREFIX}{key}/heads/{branch}.json"


def kept_object(key: str, snapshot: str) -> str:
    return f"{PREFIX}{key}/kept/{snapshot}"


def is_key(text: object) -> bool:
    """Return whether a value may name a session or a branch."""
    return isinstance(text, str) and re.fullmatch(KEY_PATTERN, text) is not None


def is_snapshot_id(text: object) -> bool:
    """Return whether a value is the id of a snapshot."""
    return isinstance(text, str) and re.fullmatch(ID_PATTERN, text) is not None


def is_sha256(text: object) -> bool:
    """Return whether a value is a SHA-256 in hexadecimal."""
    return isinstance(text, str) and re.fullmatch(SHA256_PATTERN, text) is not None


@dataclass(frozen=True)
class Published:
    """The head of a branch as a machine has written it into the bucket.

    Attributes:
        id: None for a branch without a snapshot.
        moved_at: by that machine's clock, in seconds since 1970.
    """

    branch: str
    id: str | None
    sha256: str
    cell: int
    title: str
    moved_at: float

    def encode(self) -> bytes:
        """Return it as JSON."""
        return json.dumps({"version": _HEAD_VERSION, **vars(self)}, sort_keys=True).encode()


def read_published(data: bytes) -> Published | None:
    """Return the head in an object; None if it has not the form of one."""
    try:
        said = json.loads(data)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    branch, snapshot, sha256 = said.get("branch"), said.get("id"), said.get("sha256")
    is_empty = snapshot is None and sha256 == ""
    is_valid = is_key(branch) and (is_empty or (is_snapshot_id(snapshot) and is_sha256(sha256)))
    cell, moved_at = said.get("cell"), said.get("moved_at")
    if not is_valid or not is_count(cell) or not isinstance(moved_at, int | float):
        return None
    title = str(said.get("title", ""))[:MAX_TITLE]
    return Published(str(branch), snapshot, str(sha256), int(cell or 0), title, float(moved_at))


@dataclass(frozen=True)
class Manifest:
    """The facts of a snapshot that its chain and its collection need.

    Attributes:
        sha256: of its bytes.
        parent: the id of the snapshot that it goes on from; None for a first cell.
        packs: the packs that it needs, its own among them if it has one, in order.
        saved_at: as it says.
        size: of the state in it, in bytes.
        variables: their number.
    """

    id: str
    sha256: str
    key: str
    branch: str
    cell: int
    parent: str | None
    packs: tuple[str, ...]
    saved_at: object
    size: int
    variables: int


def read_manifest(data: bytes) -> Manifest | None:
    """Return the facts of a manifest; None if it has not the form of one."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    parent, variables = said.get("parent"), said.get("variables")
    parent_id = parent.get("id") if isinstance(parent, dict) else None
    if not is_snapshot_id(said.get("id")) or not is_count(said.get("cell")):
        return None
    pieces = dict.fromkeys(_pieces(said))
    sizes = said.get("packs")  # of what it takes of each
    named = [pack for pack in sizes if is_snapshot_id(pack)] if isinstance(sizes, dict) else []
    return Manifest(
        id=said["id"],
        sha256=hashlib.sha256(data).hexdigest(),
        key=str(said.get("key", "")),
        branch=str(said.get("branch", "")),
        cell=said["cell"],
        parent=parent_id if is_snapshot_id(parent_id) else None,
        packs=tuple(sorted({*named, *(pack for pack, _, _ in pieces)})),
        saved_at=said.get("saved_at"),
        size=sum(length for _, _, length in pieces),
        variables=len(variables) if isinstance(variables, dict) else 0,
    )


def is_count(value: object) -> bool:
    """Return whether a value is a whole number of things."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _pieces(said: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Yield (pack, offset, length) of each piece that a manifest names."""
    groups, files, state = said.get("groups"), said.get("files"), said.get("state")
    for group in groups if isinstance(groups, list) else ():
        if isinstance(group, dict):
            yield from _places([group.get("pickle"), group.get("buffers")])
    yield from _places(list(files.values()) if isinstance(files, dict) else [])
    yield from _places([state.get("blobs")] if isinstance(state, dict) else [])


def _places(value: object, depth: int = 4) -> Iterator[tuple[str, int, int]]:
    """Yield the places in lists within lists; `depth` ends at a chunk of a buffer."""
    if not isinstance(value, list):
        return
    match value:
        case [str(pack), offset, length, *_] if (
            is_snapshot_id(pack) and is_count(offset) and is_count(length)
        ):
            yield pack, offset, length
    if depth:
        for item in value:
            yield from _places(item, depth - 1)
