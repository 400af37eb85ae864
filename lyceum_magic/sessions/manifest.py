"""The manifest of a snapshot, which is JSON, -> its variables and losses. No pickle is loaded.

A manifest comes from a run, and is not trusted: every text in it becomes one line that does nothing
but show itself, and a member of another type is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..exceptions import ProtocolError
from ..protocol.lines import one_line
from ..protocol.times import iso

#: Maximum characters of a text from a manifest.
_MAX_TEXT = 120
_MAX_TIME_S = 10**11


@dataclass(frozen=True)
class Variable:
    """A variable of a session, as the run that saved it describes it.

    Attributes:
        size: in bytes.
        shape: such as (3, 4) for an array, and (5,) for a list of five; None if it has none.
        text: its value in a few characters, or nothing.
    """

    name: str
    type: str
    size: int = 0
    shape: tuple[int, ...] | None = None
    text: str = ""

    @property
    def lengths(self) -> str:
        """Its shape in words: `3 × 4`."""
        return " × ".join(f"{length:,}" for length in self.shape or ())


@dataclass(frozen=True)
class Manifest:
    """The part of a manifest that users look at.

    Attributes:
        saved_at: in ISO 8601; empty if it does not say.
        variables: by name.
        digests: name -> the digests of its group, which are equal where the content is.
        lost: name -> the reason why the cell's own variable was not kept.
        missing: name -> (cell, reason) for each variable that was not kept, then or earlier.
        size: of the whole state, in bytes.
    """

    branch: str
    cell: int
    saved_at: str = ""
    python: str = ""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    digests: Mapping[str, object] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    size: int = 0


def read_manifest(data: bytes) -> Manifest:
    """Return the readable part of a manifest.

    Raises:
        ProtocolError: it is none.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ProtocolError("The manifest of the session's cell should be JSON, and is not.")
    saved_at = content.get("saved_at")
    if isinstance(saved_at, int | float) and 0 < saved_at < _MAX_TIME_S:
        saved_at = iso(saved_at)
    return Manifest(
        branch=_text(content.get("branch")),
        cell=_number(content.get("cell")),
        saved_at=saved_at if isinstance(saved_at, str) else "",
        python=_text(content.get("python")),
        variables={
            name: _variable(name, about) for name, about in _items(content.get("variables"))
        },
        digests=_digests(content.get("groups")),
        lost={name: _text(reason) for name, reason in _items(content.get("lost"))},
        missing={
            name: (_number(entry[0]), _text(entry[1]))
            for name, entry in _items(content.get("missing"))
            if isinstance(entry, list) and len(entry) == 2
        },
        modules={name: _text(module) for name, module in _items(content.get("modules"))},
        files={
            path: _number(entry[2])
            for path, entry in _items(content.get("files"))
            if isinstance(entry, list) and len(entry) > 2
        },
        size=sum(_number(size) for _, size in _items(content.get("packs"))),
    )


def _variable(name: str, about: object) -> Variable:
    about = about if isinstance(about, dict) else {}
    shape = about.get("shape")
    return Variable(
        name,
        _text(about.get("type")) or "?",
        _number(about.get("size")),
        tuple(map(_number, shape)) if isinstance(shape, list) else None,
        _text(about.get("text")),
    )


def _digests(groups: object) -> dict[str, object]:
    """Return name -> what tells its group's content from another: the digests of its blobs."""
    found: dict[str, object] = {}
    for group in groups if isinstance(groups, list) else ():
        if not isinstance(group, dict) or not isinstance(names := group.get("names"), list):
            continue
        blobs = [group.get("pickle"), *(group.get("buffers") or ())]
        content = repr([blob[-1] for blob in blobs if isinstance(blob, list) and blob])
        found |= {_text(name): content for name in names}
    return found


def _items(value: object) -> list[tuple[str, Any]]:
    return [(_text(name), item) for name, item in value.items()] if isinstance(value, dict) else []


def _text(value: object) -> str:
    return one_line(value, _MAX_TEXT) if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
