"""Cells are checked here before they travel, and travel as data."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.exceptions import OptionError
from lyceum_magic.submission import source
from lyceum_magic.submission.python_request import prepare_python
from lyceum_magic.submission.source import parse_cell
from lyceum_magic.submission.specs import PythonSpec
from lyceum_magic.submission.wrapping import wrap_cell


def code_of(cell: str, **options: bool) -> str:
    return parse_cell(cell, first_line=2, **options).code


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


@pytest.mark.parametrize(
    "cell", ["x" + " + x" * 20_000, "-" * 20_000 + "1", "y = " + "not " * 9999]
)
def test_what_nests_too_deep_for_the_parser_is_one_sentence(cell: str) -> None:
    with pytest.raises(OptionError, match=r"nest too deep for Python's parser: split"):
        code_of(cell)
    parsed = parse_cell(cell, check=False)
    assert (parsed.code, parsed.tree) == (cell, None)


def test_what_python_compiles_from_text_alone_passes() -> None:
    cell = "x" + " + x" * 1400  # too deep for a tree to be compiled by Python 3.11
    assert code_of(cell) == cell


def test_a_cell_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[object] = []

    def counted(text: object, *options: object, **more: object) -> object:
        if isinstance(text, str) and "canary" in text:
            texts.append(text)
        return compile(text, *options, **more)  # type: ignore[call-overload]

    for module in (source, ast):
        monkeypatch.setattr(module, "compile", counted, raising=False)
    spec = PythonSpec.of_cell(
        code="import json\ncanary = json.dumps(known)", input_names=("auto",), outputs=("canary",)
    )
    prepared = prepare_python(spec, {"known": 1})
    assert list(prepared.inputs.packed) == ["known"]
    assert len(texts) == 1


@given(st.text())
def test_any_cell_travels_as_data(cell: str) -> None:
    """The wrapped source is Python whatever the cell is, and holds the cell unchanged."""
    tree = ast.parse(wrap_cell(cell))
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert cell in strings


def test_the_wrapping_is_small() -> None:
    assert len(wrap_cell("")) < 110_000


@pytest.mark.parametrize(
    "cell",
    [
        "x = 1\n!ls\ny = !ls {x}\n%cd /\n1 / 0",
        "\n\n%time x = \\\n    3\n1 / 0\n",
        "if True:\n    !ls\n    %pwd\n1 / 0",
        "print?\n1 / 0",
        "  !ls\n  1 / 0",
    ],
)
def test_magics_become_python_and_every_line_keeps_its_place(cell: str) -> None:
    code = code_of(cell)
    assert "get_ipython()" in code
    assert code.count("\n") == cell.count("\n")
    assert code.split("\n").index("1 / 0") == [x.strip() for x in cell.split("\n")].index("1 / 0")


def test_a_cell_magic_gets_its_text_as_it_is() -> None:
    assert code_of("%%bash\necho 'a'\n") == (
        "get_ipython().run_cell_magic('bash', '', \"echo 'a'\\n\")\n"
    )


def test_text_that_looks_like_a_magic_stays_text() -> None:
    cell = "x = '''\n%cd /\n!ls\n'''\n5 %x"
    assert code_of(cell) == cell


@pytest.mark.parametrize(
    ("cell", "line", "text"),
    [
        ("!ls\nx = 1\nfor for", 4, "for for"),
        ("if True:\n%cd /", 3, "%cd /"),
        ("!ls\n\n\nx = !ls\nx y", 6, "x y"),
    ],
)
def test_a_typing_error_beside_a_magic_is_shown_as_it_was_written(
    cell: str, line: int, text: str
) -> None:
    with pytest.raises(SyntaxError) as caught:
        code_of(cell)
    assert (caught.value.lineno, str(caught.value.text).strip()) == (line, text)


def test_raw_code_and_newer_python_are_left_alone() -> None:
    with pytest.raises(SyntaxError):
        code_of("!ls", raw=True)
    newer = "match = lazy import x"
    assert code_of(newer, check=False) == newer


def test_only_what_asks_for_a_shell_gets_one() -> None:
    assert "needs_shell': True" in wrap_cell(code_of("!ls"))
    assert "needs_shell': True" not in wrap_cell("1")
