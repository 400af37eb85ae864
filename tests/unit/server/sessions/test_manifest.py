"""A manifest is read without trust: each wrong one is refused with a reason."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.protocol.requests import SessionStep
from lyceum_magic.server.sessions.manifest import (
    BadManifest,
    PackUse,
    Part,
    read_manifest,
    read_parts,
)

OWN, OLD = "a" * 32, "b" * 32
PARENT = {"id": OLD, "sha256": "0" * 64}
STEP = SessionStep.model_validate(
    {"key": "a", "branch": "main", "cell": 2, "id": OWN, "parent": PARENT}
)


def manifest(**changes: Any) -> bytes:
    members = {
        "version": 1, "key": "a", "branch": "main", "cell": 2, "id": OWN, "parent": PARENT,
        "groups": [], "variables": {}, **changes,
    }  # fmt: skip
    return json.dumps(members).encode()


def test_its_contents_are_counted() -> None:
    digest = "0" * 64
    chunks = [[OLD, 65536, 100, digest], [OWN, 0, 50, digest]]
    contents = read_manifest(
        manifest(
            groups=[
                {"pickle": [OWN, 50, 10, digest], "buffers": [[OLD, 65536, 150, chunks]]},
                {"pickle": [OWN, 50, 10, digest], "buffers": []},
            ],
            files={"data.csv": [OWN, 60, 5, digest, 0o644]},
            variables={"x": {}, "y": {}},
        ),
        STEP,
    )
    assert contents.packs == {OLD: PackUse(65636, 100), OWN: PackUse(65, 65)}
    assert (contents.size_bytes, contents.variables) == (165, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "version"),
        ({"key": "b"}, "session"),
        ({"branch": "other"}, "branch"),
        ({"cell": 3}, "cell"),
        ({"id": OLD}, "id"),
        ({"parent": None}, "continues another"),
        ({"parent": {**PARENT, "sha256": "1" * 64}}, "continues another"),
        ({"parent": [OLD, "0" * 64]}, "continues another"),
        ({"variables": ["x"]}, "variables"),
        ({"groups": [[OWN, -1, 5, ""]]}, "cannot be"),
        ({"groups": [[OWN, 0, 2**70, ""]]}, "cannot be"),
    ],
)
def test_that_of_another_snapshot_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadManifest, match=reason):
        read_manifest(manifest(**changes), STEP)


def test_a_parent_may_say_more_than_the_step() -> None:
    read_manifest(manifest(parent={**PARENT, "cell": 1}), STEP)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"1", b"[" * 200_000, b'{"a":' * 200_000,
     b'{"cell": ' + b"9" * 10_000 + b"}"],
    ids=lambda data: repr(data[:8]),
)  # fmt: skip
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(BadManifest):
        read_manifest(data, STEP)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(OWN),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(changes=st.dictionaries(st.sampled_from(["groups", "parent", "cell", "files"]), _JSON))
def test_any_json_is_read_or_refused(changes: dict[str, Any]) -> None:
    with contextlib.suppress(BadManifest):
        read_manifest(manifest(**changes), STEP)


@given(
    parts=st.lists(
        st.tuples(st.sampled_from([OWN, OLD]), st.integers(0, 2**40), st.integers(0, 2**40))
    )
)
def test_each_part_is_found_wherever_it_stands(parts: list[tuple[str, int, int]]) -> None:
    nested: Any = []
    for part in parts:
        nested = {"deeper": [nested, [*part, "0" * 64]]}
    assert read_parts(manifest(groups=nested)) == {Part(*part) for part in parts}
