"""Cells are checked here before they travel, and travel as data."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.exceptions import OptionError
from lyceum_magic.submission.source import code_of, wrap_cell


@pytest.mark.parametrize("cell", ["", " ", "\n\t\n"])
def test_an_empty_cell_is_refused(cell: str) -> None:
    with pytest.raises(OptionError, match="The cell is empty"):
        code_of(cell)


@pytest.mark.parametrize("cell", ["1", "await x", "async for a in b: pass", "# remark", "\\\n1"])
def test_a_cell_that_is_python_passes(cell: str) -> None:
    code_of(cell)


def test_a_typing_error_has_the_notebooks_line_number() -> None:
    with pytest.raises(SyntaxError) as caught:
        code_of("x = 1\nfor for\n")
    assert (caught.value.lineno, caught.value.filename) == (3, "<cell>")


@pytest.mark.parametrize("cell", ["x = '\0'", "x = '\ud800'"])
def test_what_no_source_can_hold_is_one_sentence(cell: str) -> None:
    with pytest.raises((OptionError, SyntaxError)) as caught:
        code_of(cell)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_cell_travels_as_data(cell: str) -> None:
    """The wrapped source is Python whatever the cell is, and holds the cell unchanged."""
    tree = ast.parse(wrap_cell(cell))
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert cell in strings


def test_the_wrapping_is_small() -> None:
    assert len(wrap_cell("")) < 100_000
