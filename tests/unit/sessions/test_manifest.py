"""Manifests: nothing in them is trusted, and every text is made safe to show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.exceptions import ProtocolError
from lyceum_magic.sessions.manifest import read_manifest

MANIFEST: dict[str, Any] = {
    "version": 1, "branch": "main", "cell": 7, "saved_at": 1_700_000_000.5, "python": "3.11",
    "variables": {
        "df": {"type": "pandas.DataFrame", "size": 800, "shape": [100, 2], "text": ""},
        "x": {"type": "int", "size": 5, "text": "41"},
    },
    "groups": [
        {"names": ["df"], "pickle": ["p", 0, 9, "aa"], "buffers": [["p", 9, 800, "bb"]]},
        {"names": ["x"], "pickle": ["p", 809, 5, "cc"], "buffers": []},
    ],
    "lost": {"g": "a generator"},
    "missing": {"g": [7, "a generator"], "h": [3, "an open file"]},
    "modules": {"np": "numpy"},
    "files": {"out.csv": ["p", 814, 12, "dd", 420]},
    "packs": {"p": 826, "q": 100},
}  # fmt: skip


def read(**changes: object) -> Any:
    return read_manifest(json.dumps({**MANIFEST, **changes}).encode())


def test_what_users_look_at_is_read() -> None:
    manifest = read()
    assert (manifest.branch, manifest.cell, manifest.python) == ("main", 7, "3.11")
    assert manifest.saved_at.startswith("2023-11-14T22:13:20")
    assert manifest.variables["df"].lengths == "100 × 2"
    assert (manifest.variables["x"].text, manifest.variables["x"].shape) == ("41", None)
    assert manifest.missing == {"g": (7, "a generator"), "h": (3, "an open file")}
    assert (manifest.files, manifest.size) == ({"out.csv": 12}, 926)


def test_equal_groups_have_equal_digests_wherever_they_lie() -> None:
    moved = read(groups=[{"names": ["x"], "pickle": ["other", 5, 5, "cc"], "buffers": []}])
    assert moved.digests["x"] == read().digests["x"]
    changed = read(groups=[{"names": ["x"], "pickle": ["p", 809, 5, "ee"], "buffers": []}])
    assert changed.digests["x"] != read().digests["x"]


def test_texts_become_one_line_that_only_shows_itself() -> None:
    bad = "a\x1b[31m\nb\u202ec"
    manifest = read(
        branch=bad,
        variables={bad: {"type": bad, "text": bad * 100}},
        missing={bad: [1, bad]},
        modules={bad: bad},
    )
    (variable,) = manifest.variables.values()
    ((lost, (_, reason)),) = manifest.missing.items()
    texts = [manifest.branch, variable.name, variable.type, variable.text, lost, reason]
    for text in [*texts, *manifest.modules, *manifest.modules.values()]:
        assert text.isprintable()
        assert len(text) <= 120


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"null", b"[" * 100_000])
def test_what_is_no_manifest_is_one_sentence(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="should be JSON"):
        read_manifest(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*MANIFEST, "other"]), JSON))
def test_any_object_is_read_or_left_out(content: dict[str, Any]) -> None:
    manifest = read_manifest(json.dumps({**MANIFEST, **content}).encode())
    assert all(name.isprintable() for name in manifest.variables)
