"""`%` and `!` lines of a cell: through IPython where it is, else by the few that need none."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

import pytest

from lyceum_magic.outputs.decoding import Display
from lyceum_magic.submission.source import parse_cell
from tests.unit.remote.interpreters import INTERPRETERS, live_cell
from tests.unit.remote.marked import run_marked

#: This one has IPython, the others have not.
PYTHONS = {"IPython": sys.executable} | {
    version: python for version, python in INTERPRETERS.items() if python != sys.executable
}


@pytest.fixture(params=PYTHONS.values(), ids=PYTHONS.keys())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[p for p in PYTHONS.values() if p != sys.executable][:1])
def without_ipython(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("!echo one; echo two >&2; echo three", "one\ntwo\nthree\n"),
        ("print('a', end=' ')\n!echo b\nprint('c')", "a b\nc\n"),
        ("name = 'x y'\n!echo {name.upper()}-$name", "X Y-x y\n"),
        ("!echo $NOWHERE{nothing}-", "{nothing}-\n"),
        ("!exit 3\nprint(_exit_code)", "3\n"),
        ("lines = !echo a; echo b\nprint(lines, lines.n, lines.s)", "['a', 'b'] a\nb a b\n"),
        ("def f(word):\n    !echo {word}\nf('inside')", "inside\n"),
        ("%env LYCEUM_TEST=3\n!echo $LYCEUM_TEST", "env: LYCEUM_TEST=3\n3\n"),
        ("%cd /\nimport os\nprint(os.getcwd())", "/\n/\n"),
        ("x = %pwd\nimport os\nprint(x == os.getcwd())", "True\n"),
        ("%matplotlib inline\nprint('on')", "on\n"),
        ("%%bash\necho one\necho two", "one\ntwo\n"),
        ("%%sh\necho one", "one\n"),
        ("%%writefile f.txt\nline\n", "Writing f.txt\n"),
        ("%%capture out\nprint('caught')\n5", ""),
        ("print(1) if get_ipython() is get_ipython() else 0;", "1\n"),
    ],
)
def test_what_works_everywhere(python: str, tmp_path: Path, cell: str, shown: str) -> None:
    done = run_marked(cell, tmp_path, python)
    assert (done.stdout, done.stderr, done.return_code) == (shown, "", 0)


def test_times_are_shown_and_the_value_too(python: str, tmp_path: Path) -> None:
    done = run_marked("%time 6 * 7", tmp_path, python)
    assert re.fullmatch(r"CPU times: user .+, sys: .+\nWall time: \S+ .?s\n", done.stdout)
    assert done.results == ["42"]
    done = run_marked("%%time\nx = 6\nx * 7", tmp_path, python)
    assert "Wall time: " in done.stdout
    assert done.results == ["42"]


def test_a_magic_awaits_what_its_cell_awaits(without_ipython: str, tmp_path: Path) -> None:
    cell = "\nimport asyncio\nprint('ran')\nx = await asyncio.sleep(0, 6)\nx * 7"
    done = run_marked(f"%%time{cell}", tmp_path, without_ipython)
    assert done.stdout.startswith("ran\nCPU times: ")
    assert (done.results, done.stderr, done.return_code) == (["42"], "", 0)
    done = run_marked(f"%%capture{cell}\n1 / 0", tmp_path, without_ipython)
    assert done.raised["exceptions"][0]["type"] == "ZeroDivisionError"


def test_no_secret_is_shown_with_the_environment(python: str, tmp_path: Path) -> None:
    cell = (
        "import os\nos.environ.update(API_KEY='s1', My_Token='s2', SECRET_9='s3', OTHER='seen')\n"
        "%env"
    )
    (shown,) = run_marked(cell, tmp_path, python).results
    environment = ast.literal_eval(shown)
    assert [environment[name] for name in ("API_KEY", "My_Token", "SECRET_9", "OTHER")] == [
        *["<hidden>"] * 3, "seen",
    ]  # fmt: skip


def test_a_statement_is_timed_often(python: str, tmp_path: Path) -> None:
    done = run_marked("x = 1\n%timeit x + 1", tmp_path, python)
    assert re.search(r"per loop \(mean ± std. dev. of 7 runs, [\d,]+ loops each\)", done.stdout)


def test_a_file_is_written(python: str, tmp_path: Path) -> None:
    run_marked("%%writefile f.txt\none {x} $y\n", tmp_path, python)
    run_marked("%%writefile -a f.txt\ntwo", tmp_path, python)
    assert (tmp_path / "f.txt").read_text() == "one {x} $y\ntwo\n"


@pytest.mark.parametrize("cell", ["%%time\n1 / 0", "%time 1 / 0", "%%capture\n1 / 0"])
def test_what_a_magics_code_raises_ends_the_cell(python: str, tmp_path: Path, cell: str) -> None:
    done = run_marked(cell, tmp_path, python)
    assert done.raised["exceptions"][0]["type"] == "ZeroDivisionError"
    assert done.return_code == 1


def test_a_window_is_refused_in_the_same_words(python: str, tmp_path: Path) -> None:
    done = run_marked("%matplotlib qt", tmp_path, python)
    error = done.raised["exceptions"][0]
    assert (error["type"], error["value"]) == (
        "UsageError",
        "%matplotlib qt needs a screen, and the machine has none: use `%matplotlib inline`.",
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["agg", "svg", "PDF"])
def test_a_backend_that_shows_nothing_is_no_window(tmp_path: Path, backend: str) -> None:
    cell = (
        f"%matplotlib {backend}\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);\n"
        "print(plt.get_backend().lower())"
    )
    done = run_marked(cell, tmp_path, sys.executable)
    assert (done.stdout, done.return_code) == (f"{backend.lower()}\n", 0)
    assert not [item for item in done.items if isinstance(item, Display)]


def test_a_script_that_fails_ends_the_cell(python: str, tmp_path: Path) -> None:
    done = run_marked("%%bash\necho before\nexit 3", tmp_path, python)
    assert done.stdout == "before\n"
    assert done.raised["exceptions"][0]["type"] == "CalledProcessError"


@pytest.mark.parametrize("installer", ["pip", "conda", "uv"])
def test_installers_name_the_option_that_installs(
    python: str, tmp_path: Path, installer: str
) -> None:
    error = run_marked(f"%{installer} install numpy", tmp_path, python).raised["exceptions"][0]
    assert error["type"] == "UsageError"
    assert "-r NAME" in error["value"]


def test_other_magics_name_what_works_and_what_would_bring_them(
    without_ipython: str, tmp_path: Path
) -> None:
    error = run_marked("%who", tmp_path, without_ipython).raised["exceptions"][0]
    assert "%who needs IPython" in error["value"]
    assert "-r ipython" in error["value"]
    assert "%%writefile" in error["value"]


def test_ipythons_own_magics_work_where_it_is(tmp_path: Path) -> None:
    done = run_marked("number = 3\n%who int", tmp_path)
    assert done.stdout == "number\t \n"


def test_what_the_shell_is_told_of_text_holds(tmp_path: Path) -> None:
    cell = "%precision 2\nimport math\ndisplay(math.pi)\n[math.pi]"
    assert run_marked(cell, tmp_path).results == ["3.14", "[3.14]"]
    (text,) = run_marked("%pprint\nlist(range(50))", tmp_path).results
    assert text == str(list(range(50)))


def test_the_shell_takes_over_nothing(tmp_path: Path) -> None:
    cell = (
        "import pickle, signal, sys\nclass A: pass\n"
        "before = sys.stdout, sys.excepthook, signal.getsignal(2), exit, display\n"
        "get_ipython()\n"
        "after = sys.stdout, sys.excepthook, signal.getsignal(2), exit, display\n"
        "print([a is b for a, b in zip(before, after)], "
        "type(pickle.loads(pickle.dumps(A()))) is A)\n"
        "print(sorted(name for name in globals() if name[0] != '_'))"
    )
    done = run_marked(cell, tmp_path)
    assert done.stdout == (
        f"{[True] * 5} True\n['A', 'after', 'before', 'get_ipython', 'pickle', 'signal', 'sys']\n"
    )


def test_output_of_a_command_is_live(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = parse_cell("!echo first; read line < go; echo $line").code

    os.mkfifo(tmp_path / "go")
    monkeypatch.chdir(tmp_path)
    with live_cell(python, cell, tmp_path) as live:
        assert live.read_until("\n").strip() == "first"
        (tmp_path / "go").write_text("second\n")
        assert live.read_until("\n").strip() == "second"


@pytest.mark.parametrize("cell", ["display(1)\n2", "display(1)\nget_ipython()\n2"])
def test_the_value_of_the_last_line_is_told_from_what_is_displayed(cell: str, tmp_path) -> None:
    items = [item for item in run_marked(cell, tmp_path).items if isinstance(item, Display)]
    assert [(item.data["text/plain"], item.is_result) for item in items] == [
        ("1", False), ("2", True),
    ]  # fmt: skip
