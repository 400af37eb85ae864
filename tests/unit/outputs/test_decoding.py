"""The values and files of a run are complete, or name what is missing."""

from __future__ import annotations

import ast
import inspect
import os
from typing import get_args

import pytest

from lyceum_magic.outputs import decoding
from lyceum_magic.outputs.decoding import Harvest, SavedFile, Value, decode
from lyceum_magic.protocol.events import Output
from lyceum_magic.remote import frames

MARK = "0123456789ab"


def harvest_of(kind: str, head: dict[str, object], lost: int) -> Harvest:
    """Return the harvest of a message of five parts of which one is lost."""
    lines = frames.encode(MARK, kind, "1.0", head, os.urandom(9000), "")
    assert len(lines) == 5
    del lines[lost]
    return Harvest(decode([Output(line.decode()) for line in lines], MARK))


def test_a_value_of_which_a_part_is_lost_says_so() -> None:
    harvest = harvest_of("value", {"name": "x"}, 3)
    assert harvest.values == {"x": Value("x", b"", "of x, only 4 of 5 parts arrived")}
    assert harvest.problems == []


def test_a_file_of_which_a_part_is_lost_says_so() -> None:
    harvest = harvest_of("file", {"path": "a/b"}, 4)
    assert harvest.files == {"a/b": SavedFile("a/b", b"", "of a/b, only 4 of 5 parts arrived")}
    assert harvest.problems == []


@pytest.mark.parametrize(("kind", "head"), [("value", {"name": "x"}), ("file", {"path": "x"})])
def test_what_has_lost_its_name_is_known_to_be_lost(kind: str, head: dict[str, object]) -> None:
    harvest = harvest_of(kind, head, 0)
    assert (harvest.values, harvest.files) == ({}, {})
    assert harvest.problems == [f"of a {kind}, only 4 of 5 parts arrived."]


def test_a_display_that_is_lost_is_no_value_that_is_lost() -> None:
    harvest = harvest_of("display", {"name": "x"}, 3)
    assert (harvest.values, harvest.files, harvest.problems) == ({}, {}, [])


def test_every_output_type_is_decoded() -> None:
    """A member of the union that no frame becomes would pass every `match`, and never come."""
    tree = ast.parse(inspect.getsource(decoding))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = {called.id for called in calls if isinstance(called, ast.Name)}
    assert {member.__name__ for member in get_args(decoding.Decoded)} <= made
