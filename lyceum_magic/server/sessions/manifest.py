"""The manifest of a snapshot: bytes that a program has written in, checked facts out.

A program may write anything, so nothing here trusts it: names of files are never taken from it, and
its size and the depth of its JSON are bounded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...protocol.requests import SessionStep
from ...protocol.sessions import ID_PATTERN, MANIFEST_VERSION

_ID = re.compile(ID_PATTERN)


class BadManifest(Exception):
    """The message says what is wrong, and goes on from "its manifest"."""


class PackUse(NamedTuple):
    """A snapshot's use of a pack: where the last of its parts ends, and the bytes of all parts."""

    end: int
    size_bytes: int


class Part(NamedTuple):
    """A part of a pack. In bytes."""

    pack: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a snapshot, as its manifest tells.

    Attributes:
        sha256: That of the manifest's bytes, in hexadecimal.
        size_bytes: The size of all parts of packs that it uses.
        variables: The number of variables.
        packs: Pack id -> the use of that pack.
    """

    sha256: str
    size_bytes: int
    variables: int
    packs: Mapping[str, PackUse]


def read_manifest(data: bytes, step: SessionStep) -> Contents:
    """Return the contents of the snapshot that a run was to write.

    Raises:
        BadManifest: It is no manifest, or that of another snapshot.
    """
    manifest = _decoded(data)
    if manifest.get("version") != MANIFEST_VERSION:
        raise BadManifest("has another version than this server reads")
    for name in ("key", "branch", "cell", "id"):
        if manifest.get(name) != getattr(step, name):
            raise BadManifest(f"names another {'session' if name == 'key' else name}")
    parent = manifest.get("parent")
    if step.parent is None:
        follows = parent is None
    else:
        names = step.parent.id, step.parent.sha256
        follows = isinstance(parent, dict) and (parent.get("id"), parent.get("sha256")) == names
    if not follows:
        raise BadManifest("continues another snapshot")
    variables = manifest.get("variables")
    if not isinstance(variables, dict):
        raise BadManifest("has no list of variables")
    parts = _parts(manifest)
    packs: dict[str, PackUse] = {}
    for pack, offset, length in parts:
        end, size_bytes = packs.get(pack, (0, 0))
        packs[pack] = PackUse(max(end, offset + length), size_bytes + length)
    size_bytes = sum(part.length for part in parts)
    return Contents(hashlib.sha256(data).hexdigest(), size_bytes, len(variables), packs)


def read_parts(data: bytes) -> set[Part]:
    """Return the parts of packs that a manifest names.

    Raises:
        BadManifest: It is no manifest.
    """
    return _parts(_decoded(data))


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        raise BadManifest("is not JSON") from None
    if not isinstance(manifest, dict):
        raise BadManifest("is not a JSON object")
    return manifest


def _parts(manifest: dict[str, Any]) -> set[Part]:
    """Return the parts of packs that are named anywhere in it.

    Found by their form, wherever they stand: a part that was overlooked would be removed.
    """
    parts = set()
    unread: list[Any] = [manifest]
    while unread:
        value = unread.pop()
        if isinstance(value, dict):
            unread.extend(value.values())
        elif isinstance(value, list):
            if part := _part(value):
                parts.add(part)
            unread.extend(item for item in value if isinstance(item, dict | list))
    return parts


def _part(value: list[Any]) -> Part | None:
    match value:
        case [str(), int(), int(), list(), *_]:
            return None  # a buffer in chunks, which are in the list, and may be in several packs
        case [str(pack), int(offset), int(length), *_] if _ID.fullmatch(pack):
            if 0 <= offset < 2**62 and 0 <= length < 2**62:
                return Part(pack, offset, length)
            raise BadManifest("names a part of a pack that cannot be")
    return None
