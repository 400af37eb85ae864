"""A described exception becomes one that shows as it did there."""

from __future__ import annotations

import linecache
import os
import subprocess
import sys
import traceback
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.outputs.tracebacks import lines, name_and_value, rebuild
from tests.unit.remote.interpreters import INTERPRETERS, run_cell
from tests.unit.remote.marked import run_marked

CELLS = {
    "two frames": "def f(x):\n    return [1 / x\n            for _ in 'a']\n\nf(0)",
    "a cause": "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('b') from e",
    "a context": "try:\n    int('x')\nexcept ValueError:\n    raise OSError(2, 'no', 'f')",
    "no context": "try:\n    int('x')\nexcept ValueError:\n    raise TypeError('y') from None",
    "a note": "e = ValueError('x')\ne.add_note('look\\nhere')\nraise e",
    "a group": "raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [TypeError()])])",
    "an own class": "class Mine(KeyError): pass\nraise Mine('x', 2)",
    "an own class inside": "class A:\n    class Mine(Exception): pass\nraise A.Mine('x')",
    "an own message": "class Mine(Exception):\n    def __str__(self): return 'said'\nraise Mine()",
    "a syntax error": "exec('x = 1\\nfor for')",
    "an indentation error": "exec('if 1:\\nx')",
    "a key error": "{}['k']",
    "a Unicode error": "b'\\xff'.decode()",
    "a library": "import json\njson.loads('{')",
    "an interrupt": "raise KeyboardInterrupt",
    "a recursion": "def f(n): return f(n + 1)\nf(0)",
    "no message": "assert 1 == 2",
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
def test_python_prints_what_it_would_have_printed_there(cell: str, tmp_path: Path) -> None:
    """Every line and mark, causes, groups and notes are the same."""
    there = run_cell(sys.executable, cell, tmp_path).stderr
    rebuilt = rebuild(run_marked(cell, tmp_path).raised, "<cell>")
    assert "\n".join(lines(rebuilt)) + "\n" == there


@pytest.mark.parametrize("python", INTERPRETERS.values(), ids=INTERPRETERS.keys())
def test_every_python_is_understood(python: str, tmp_path: Path) -> None:
    raised = run_marked("def f(x):\n    return 1 / x\n\nf(0)", tmp_path, python).raised
    rebuilt = rebuild(raised, "<named>")
    assert type(rebuilt) is ZeroDivisionError
    steps = traceback.extract_tb(rebuilt.__traceback__)
    assert [(step.filename, step.lineno, step.name, step.line) for step in steps] == [
        ("<named>", 5, "<module>", "f(0)"),
        ("<named>", 3, "f", "return 1 / x"),
    ]
    assert name_and_value(raised) == ("ZeroDivisionError", "division by zero")


def test_a_class_of_there_is_caught_as_the_builtin_one_below_it(tmp_path: Path) -> None:
    raised = run_marked("import json\njson.loads('{')", tmp_path).raised
    rebuilt = rebuild(raised, "<cell>")
    assert isinstance(rebuilt, ValueError)
    assert (type(rebuilt).__module__, type(rebuilt).__name__) == ("json.decoder", "JSONDecodeError")


def test_lines_of_there_never_take_the_place_of_lines_of_here(tmp_path: Path) -> None:
    module = tmp_path / "helper.py"
    module.write_text("def f():\n    1 / 0\n")
    raised = run_marked("import helper\nhelper.f()", tmp_path).raised
    module.write_text("# other\n# lines\n")
    linecache.checkcache(str(module))
    rebuilt = rebuild(raised, "<cell>")
    assert "    1 / 0" in lines(rebuilt)
    assert linecache.getlines(str(module)) == ["# other\n", "# lines\n"]


def test_rebuilding_changes_nothing_of_how_this_process_prints_errors() -> None:
    before, sys.excepthook = sys.excepthook, sys.__excepthook__
    try:
        rebuild({"exceptions": [{"builtin": "ValueError"}]}, "<cell>")
        assert sys.excepthook is sys.__excepthook__
    finally:
        sys.excepthook = before


def test_arguments_are_named_and_their_values_are_not_there(tmp_path: Path) -> None:
    raised = run_marked("def f(a, *b, c=1, **d): 1 / 0\nf(7)", tmp_path).raised
    rebuilt = rebuild(raised, "<cell>")
    assert rebuilt is not None
    assert rebuilt.__traceback__ is not None
    assert rebuilt.__traceback__.tb_next is not None
    frame = rebuilt.__traceback__.tb_next.tb_frame
    assert frame.f_code.co_varnames == ("a", "c", "b", "d")
    assert repr(frame.f_locals["a"]) == "(not sent)"


#: Texts that JSON carries like any other, though Python refuses most of them as names.
NAMES = st.text(st.sampled_from("ab.*<\0\ud800\n"), max_size=4)
#: Numbers, among them those around the sizes of C's types.
NUMBERS = st.integers() | st.sampled_from([0, 1, 2, 2**24, 2**31 - 1, 2**31, 2**63, 2**64])
ODD = st.recursive(
    st.none() | st.booleans() | NUMBERS | NAMES | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "exceptions",
                    "files",
                    "cell",
                    "type",
                    "module",
                    "builtin",
                    "value",
                    "notes",
                    "cause",
                    "context",
                    "members",
                    "places",
                    "calls",
                    "syntax",
                    "args",
                    "line",
                    "file",
                    "name",
                    "arguments",
                    "position",
                    "first",
                    "message",
                ]
            )
            | st.text(max_size=3),
            children,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["exceptions", "files", "cell"]), ODD))
def test_what_is_no_description_makes_no_trouble(odd: dict[str, Any]) -> None:
    lines(rebuild(odd, "<cell>"))


@given(
    st.fixed_dictionaries(
        {
            "exceptions": st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "type": ODD | NAMES, "module": ODD | NAMES, "value": ODD,
                        "notes": ODD | st.lists(ODD), "cause": ODD,
                        "builtin": st.sampled_from(
                            ["ValueError", "SyntaxError", "ExceptionGroup", "print", "OSError"]
                        ),
                        "members": st.lists(st.integers(0, 3)), "args": st.lists(ODD),
                        "syntax": ODD, "calls": st.lists(st.integers(-1, 2)),
                        "places": st.lists(
                            st.fixed_dictionaries(
                                {},
                                optional={
                                    "line": NUMBERS, "file": ODD | NAMES, "name": ODD | NAMES,
                                    "arguments": ODD | st.lists(NAMES), "first": NUMBERS,
                                    "position": st.lists(NUMBERS, max_size=5)
                                    | st.lists(st.integers(1, 3), min_size=4, max_size=4),
                                },
                            ),
                            max_size=2,
                        ),
                    },
                ),
                max_size=3,
            ),
            "files": ODD | st.dictionaries(NAMES, st.dictionaries(st.just("1"), NAMES)),
        }
    )
)  # fmt: skip
def test_what_is_nearly_a_description_makes_no_trouble(odd: dict[str, Any]) -> None:
    lines(rebuild(odd, "<cell>"))


@pytest.mark.parametrize(
    "place",
    [
        {"arguments": ["***x"]},
        {"arguments": ["**a", "b"]},
        {"arguments": ["*a", "*b"]},
        {"file": "a\0b"},
        {"name": "a\0b"},
        {"line": 1, "position": [1, 1, 2**31, 2**31]},
        {"line": 1, "position": [1, 1, 5, 2]},
    ],
    ids=str,
)
def test_a_frame_that_no_function_has_is_shown_without_what_is_wrong(place: dict[str, Any]) -> None:
    error = {
        "exceptions": [
            {"type": "A", "module": "__main__", "value": "v", "places": [place], "calls": [0]}
        ]
    }
    assert lines(rebuild(error, "<cell>"))[-1] == "A: v"


def test_a_class_whose_name_no_class_has_is_shown() -> None:
    error = {"exceptions": [{"type": "a\0\ud800", "module": "__main__", "value": "said"}]}
    assert lines(rebuild(error, "<cell>"))[-1] == "a\ufffd\ufffd: said"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_only_plain_files_are_compared_with_what_the_run_says(tmp_path: Path) -> None:
    """Reading a pipe without a writer would wait for ever, and a device has no end."""
    pipe = tmp_path / "pipe.py"
    os.mkfifo(pipe)
    files = [str(pipe), "/dev/zero", str(tmp_path)]
    program = f"""
import resource
from lyceum_magic.outputs.tracebacks import lines, rebuild
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
for file in {files}:
    place = {{"file": file, "line": 1}}
    error = {{
        "exceptions": [{{"builtin": "ValueError", "places": [place], "calls": [0]}}],
        "files": {{file: {{"1": "of there"}}}},
    }}
    print(*lines(rebuild(error, "<cell>")), sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stderr == ""
    assert done.stdout.count("    of there\n") == 3


def test_a_line_number_takes_no_memory_of_its_size() -> None:
    files = {f"<file {number}>": {"999999": "far"} for number in range(20)}
    place = {"file": "<near>", "line": 1}
    error = {
        "exceptions": [{"builtin": "ValueError", "places": [place], "calls": [0]}],
        "files": {**files, "<near>": {"1": "of there"}},
    }
    tracemalloc.start()
    try:
        rebuilt = rebuild(error, "<cell>")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert "    of there" in lines(rebuilt)


def test_a_line_that_no_file_has_is_shown() -> None:
    place = {"file": "<there>", "line": 1, "position": [1, 1, 0, 1]}
    error = {
        "exceptions": [{"builtin": "ValueError", "places": [place], "calls": [0]}],
        "files": {"<there>": {"1": "a\ud800"}},
    }
    assert "    a\ufffd" in lines(rebuild(error, "<cell>"))
