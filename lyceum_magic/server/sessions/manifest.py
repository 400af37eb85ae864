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
from typing import Any

from ...protocol.requests import SessionStep
from ...protocol.sessions import ID_PATTERN, MANIFEST_VERSION

_ID = re.compile(ID_PATTERN)


class BadManifest(Exception):
    """The message says what is wrong, and goes on from "its manifest"."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a snapshot, as its manifest tells.

    Attributes:
        sha256: That of the manifest's bytes, in hexadecimal.
        size_bytes: The size of all parts of packs that it uses.
        variables: The number of variables.
        packs: Pack id -> the minimum size of its file.
    """

    sha256: str
    size_bytes: int
    variables: int
    packs: Mapping[str, int]


def read_manifest(data: bytes, step: SessionStep) -> Contents:
    """Return the contents of the snapshot that a run was to write.

    Raises:
        BadManifest: It is no manifest, or that of another snapshot.
    """
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        raise BadManifest("is not JSON") from None
    if not isinstance(manifest, dict):
        raise BadManifest("is not a JSON object")
    if manifest.get("version") != MANIFEST_VERSION:
        raise BadManifest("has another version than this server reads")
    expected = step.model_dump(include={"key", "branch", "cell", "id", "parent"})
    for name, value in expected.items():
        if manifest.get(name) != value:
            raise BadManifest(f"names another {'session' if name == 'key' else name}")
    variables = manifest.get("variables")
    if not isinstance(variables, dict):
        raise BadManifest("has no list of variables")
    parts = _parts(manifest)
    packs: dict[str, int] = {}
    for pack, offset, length in parts:
        packs[pack] = max(packs.get(pack, 0), offset + length)
    size_bytes = sum(length for _, _, length in parts)
    return Contents(hashlib.sha256(data).hexdigest(), size_bytes, len(variables), packs)


def _parts(manifest: dict[str, Any]) -> set[tuple[str, int, int]]:
    """Return the parts of packs that are named anywhere in it: pack, offset, length.

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


def _part(value: list[Any]) -> tuple[str, int, int] | None:
    match value:
        case [str(pack), int(offset), int(length), *_] if _ID.fullmatch(pack):
            if 0 <= offset < 2**62 and 0 <= length < 2**62:
                return pack, offset, length
            raise BadManifest("names a part of a pack that cannot be")
    return None
