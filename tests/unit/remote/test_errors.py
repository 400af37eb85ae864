"""A cell's exception is sent as data, and prints as in any Python for other readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.remote.interpreters import INTERPRETERS, run_cell
from tests.unit.remote.marked import run_marked


@pytest.fixture(params=INTERPRETERS.values(), ids=INTERPRETERS.keys())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def first(raised: dict[str, Any]) -> dict[str, Any]:
    return dict(raised["exceptions"][0])


def lines_of(exception: dict[str, Any]) -> list[tuple[str, int]]:
    places = [exception["places"][call] for call in exception["calls"]]
    return [(place["name"], place["line"]) for place in places]


def test_class_value_and_lines_come_as_data(python: str, tmp_path: Path) -> None:
    done = run_marked("def f(x, *more):\n    return 1 / x\n\nf(0)", tmp_path, python)
    error = first(done.raised)
    assert (error["type"], error["module"], error["value"]) == (
        "ZeroDivisionError", "builtins", "division by zero",
    )  # fmt: skip
    assert lines_of(error) == [("<module>", 5), ("f", 3)]
    assert error["places"][1]["arguments"] == ["x", "*more"]
    assert done.raised["files"][done.raised["cell"]]["3"] == "    return 1 / x"
    assert (done.return_code, done.stderr) == (1, "")


def test_another_reader_sees_a_traceback(python: str, tmp_path: Path) -> None:
    done = run_marked("import asyncio\nawait asyncio.sleep(0)\n1 / 0", tmp_path, python)
    assert 'Traceback (most recent call last):\n  File "<cell>", line 4' in done.readable_stderr
    assert "ZeroDivisionError: division by zero\n@~" in done.readable_stderr
    assert "asyncio" not in done.readable_stderr.split("ZeroDivision")[0].split("Traceback")[1]


def test_causes_and_contexts_come_along(python: str, tmp_path: Path) -> None:
    cell = (
        "try:\n    {}['k']\nexcept KeyError as error:\n"
        "    try:\n        raise ValueError('b') from error\n"
        "    except ValueError:\n        raise TypeError('c')"
    )
    top, context, cause = run_marked(cell, tmp_path, python).raised["exceptions"]
    assert (top["type"], top["cause"], top["context"]) == ("TypeError", None, 1)
    assert (context["type"], context["cause"], context["suppress_context"]) == (
        "ValueError", 2, True,
    )  # fmt: skip
    assert (cause["type"], cause["value"], lines_of(cause)) == (
        "KeyError", "'k'", [("<module>", 3)],
    )  # fmt: skip


def test_a_chain_that_bites_its_tail_is_no_trouble(python: str, tmp_path: Path) -> None:
    cell = "a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a"
    done = run_marked(cell, tmp_path, python)
    assert [error["value"] for error in done.raised["exceptions"]] == ["a", "b"]


@pytest.mark.parametrize("method", ["__str__", "__repr__"])
def test_an_exception_that_cannot_say_itself_is_sent(
    python: str, tmp_path: Path, method: str
) -> None:
    cell = f"class Bad(Exception):\n    def {method}(self): raise OSError\nraise Bad([Bad()])"
    error = first(run_marked(cell, tmp_path, python).raised)
    assert error["type"] == "Bad"
    assert error["value"] == "<exception str() failed>"


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("raise KeyError(10**5000)", "KeyError"),
        ("raise ValueError([10**5000], -(10**5000))", "ValueError"),
        ("class Bad(Exception):\n    args = property(lambda self: 1 / 0)\nraise Bad(1)", "Bad"),
        ("class Bad(OSError):\n    filename = property(lambda self: 1 / 0)\nraise Bad(1)", "Bad"),
        ("import sys\nsys.stdout.close()\nraise ValueError('x')", "ValueError"),
        ("import sys\nsys.stdout.detach()\nraise ValueError('x')", "ValueError"),
    ],
)
def test_what_is_odd_in_an_exception_does_not_keep_it(
    python: str, tmp_path: Path, cell: str, kind: str
) -> None:
    done = run_marked(cell, tmp_path, python)
    assert first(done.raised)["type"] == kind
    assert "Error in sys.excepthook" not in done.stderr


def test_an_exception_that_cannot_be_described_is_printed(python: str, tmp_path: Path) -> None:
    cell = "class Bad(Exception):\n    __cause__ = property(lambda self: {}[1])\nraise Bad('mine')"
    done = run_marked(cell, tmp_path, python)
    assert 'cell.py", line 4' in done.stderr
    assert "Bad: mine" in done.stderr
    assert "lyceum" not in done.stderr
    assert done.return_code == 1


def test_a_deep_recursion_is_small_on_its_way(python: str, tmp_path: Path) -> None:
    done = run_marked("def f(n): return f(n + 1)\nf(0)", tmp_path, python)
    error = first(done.raised)
    assert error["type"] == "RecursionError"
    assert len(error["places"]) <= 4
    assert 500 < len(error["calls"]) <= 3000
    assert len(done.readable_stderr) < 20_000
    assert "Previous line repeated" in done.readable_stderr


def test_a_huge_message_is_cut_and_counted(python: str, tmp_path: Path) -> None:
    value = first(run_marked("raise ValueError('x' * 1_000_000)", tmp_path, python).raised)["value"]
    assert value.endswith("x... (980,000 more characters)")
    assert len(value) < 21_000


def test_no_value_of_a_variable_is_sent(python: str, tmp_path: Path) -> None:
    cell = "def f(password):\n    other = password * 2\n    1 / 0\nf(str(6 * 7) * 9)"
    assert "4242" not in str(run_marked(cell, tmp_path, python).raised)


def test_notes_come_along(tmp_path: Path) -> None:
    cell = "error = ValueError('x')\nerror.add_note('look here')\nraise error"
    assert first(run_marked(cell, tmp_path).raised)["notes"] == ["look here"]


def test_members_of_groups_come_along(tmp_path: Path) -> None:
    cell = "raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [TypeError(2)])])"
    group, one, inner, two = run_marked(cell, tmp_path).raised["exceptions"]
    assert (group["members"], group["message"], inner["members"]) == ([1, 2], "g", [3])
    assert (one["type"], two["type"]) == ("ValueError", "TypeError")


def test_a_syntax_error_of_what_the_cell_compiles_has_its_fields(
    python: str, tmp_path: Path
) -> None:
    error = first(run_marked("exec('x = 1\\nfor for')", tmp_path, python).raised)
    assert error["syntax"]["lineno"] == 2
    assert error["syntax"]["text"].strip() == "for for"
    assert lines_of(error)[0] == ("<module>", 2)


@pytest.mark.parametrize("cell", ["import sys; sys.exit(3)", "raise SystemExit(3)", "exit(3)"])
def test_an_exit_is_no_error(python: str, tmp_path: Path, cell: str) -> None:
    done = run_marked(cell, tmp_path, python)
    assert (done.return_code, done.has_raised, done.stderr) == (3, False, "")


def test_an_excepthook_of_the_cell_is_not_called(python: str, tmp_path: Path) -> None:
    """A kernel does not call it for what ends a cell either."""
    cell = "import sys\nsys.excepthook = lambda *what: print('mine', what[1])\n1 / 0"
    done = run_marked(cell, tmp_path, python)
    assert (done.stdout, done.has_raised) == ("", True)


def test_what_a_forked_child_raises_is_text(python: str, tmp_path: Path) -> None:
    cell = "import os\nif os.fork() == 0:\n    1 / 0\nos.wait();"
    done = run_marked(cell, tmp_path, python)
    assert (done.return_code, done.has_raised) == (0, False)
    assert "ZeroDivisionError: division by zero" in done.stderr


def test_an_interrupt_is_sent_as_what_it_is(python: str, tmp_path: Path) -> None:
    done = run_marked("raise KeyboardInterrupt", tmp_path, python)
    assert first(done.raised)["type"] == "KeyboardInterrupt"
    assert done.return_code in (-2, 130)


@pytest.mark.parametrize(
    ("cell", "said", "line"),
    [
        (
            "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start(); t.join()",
            "Exception in thread Thread-1",
            "t = threading.Thread(target=lambda: 1 / 0)",
        ),
        (
            "class A:\n    def __del__(self): 1 / 0\nA();",
            "Exception ignored in: <function A.__del__",
            "def __del__(self): 1 / 0",
        ),
        (
            "import asyncio as a\nasync def f(): 1 / 0\na.ensure_future(f())\nawait a.sleep(0);",
            "Task exception was never retrieved",
            "async def f(): 1 / 0",
        ),
    ],
)
def test_what_ends_no_program_is_printed_with_the_cells_lines(
    python: str, tmp_path: Path, cell: str, said: str, line: str
) -> None:
    done = run_marked(cell, tmp_path, python)
    assert said in done.stderr
    assert line in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert (done.return_code, done.has_raised) == (0, False)


def test_a_destructor_that_fails_at_the_very_end_is_printed(python: str, tmp_path: Path) -> None:
    done = run_marked("class A:\n    def __del__(self): 1 / 0\na = A()", tmp_path, python)
    assert "Exception ignored in: <function A.__del__" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "lyceum" not in done.stderr


def test_without_a_mark_it_is_a_plain_traceback(python: str, tmp_path: Path) -> None:
    done = run_cell(python, "1 / 0", tmp_path)
    assert done.stderr.startswith('Traceback (most recent call last):\n  File "<cell>", line 2')
    assert "~@" not in done.stderr


@pytest.mark.parametrize(
    "ask", ["input('?')", "from getpass import getpass; getpass()", "breakpoint()"]
)
def test_nobody_can_be_asked(python: str, tmp_path: Path, ask: str) -> None:
    error = first(run_marked(ask, tmp_path, python).raised)
    assert error["type"] == "EOFError"
    assert "--in NAME" in error["value"]
