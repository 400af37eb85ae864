"""Sources are the cell's own: no line of what wraps it is shown or returned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.remote.interpreters import INTERPRETERS
from tests.unit.remote.marked import run_marked


@pytest.fixture(params=INTERPRETERS.values(), ids=INTERPRETERS.keys())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


#: Words that occur only in this package's own lines.
OURS = ("lyceum_magic_remote", "sent by lyceum-magic", "a2b_base64")


@pytest.mark.parametrize("file", ["config", "/tmp/gone.py", "<template>", "cell.py"])
def test_a_frame_whose_file_does_not_exist_has_no_lines(
    python: str, tmp_path: Path, file: str
) -> None:
    done = run_marked(f"exec(compile('\\n\\n1/0', {file!r}, 'exec'))", tmp_path, python)
    files = done.raised["files"]
    assert files[file] == {}
    assert not any(word in json.dumps(done.raised) for word in OURS)
    assert done.raised["exceptions"][0]["type"] == "ZeroDivisionError"


@pytest.mark.parametrize(
    "cell",
    [
        "import traceback\ntraceback.print_stack()",
        "import linecache, traceback\nlinecache.clearcache()\ntraceback.print_stack()",
        "import logging\nlogging.warning('w', stack_info=True)",
        "import linecache\nprint(linecache.getlines('gone.py', globals()))",
        "import linecache\nprint(linecache.getlines('cell.py'))",
        "import inspect\nprint([frame.code_context for frame in inspect.stack()])",
        "import __main__, inspect\nprint(inspect.getsource(__main__))",
        "import inspect\nclass A: ...\nprint(inspect.getsource(A))",
        "print(open(__file__).read())",
        "import warnings\nwarnings.simplefilter('always')\nwarnings.warn('w', stacklevel=3)",
    ],
)
def test_no_line_of_ours_is_shown(python: str, tmp_path: Path, cell: str) -> None:
    done = run_marked(cell, tmp_path, python)
    shown = done.stdout + done.stderr
    # Names of files are ours in a stack; their lines are not there.
    assert not any(word in shown for word in OURS), shown
    assert (len(shown) < 5000, done.return_code) == (True, 0)


def test_the_source_of_the_program_and_its_classes_is_the_cell(tmp_path: Path) -> None:
    cell = (
        "import __main__, inspect\nclass A:\n    x = 1\n"
        "print(inspect.getsource(A))\nprint(inspect.getsource(__main__).strip())"
    )
    assert run_marked(cell, tmp_path).stdout == f"class A:\n    x = 1\n\n{cell}\n"


def test_dill_finds_the_source_of_a_class(tmp_path: Path) -> None:
    cell = "from dill.source import getsource\nclass A:\n    x = 1\nprint(getsource(A).strip())"
    assert run_marked(cell, tmp_path).stdout == "class A:\n    x = 1\n"


def test_an_input_that_cannot_be_made_there_shows_no_frame_of_ours(tmp_path: Path) -> None:
    # As of a module that exists only where the value was packed.
    done = run_marked("value", tmp_path, inputs="bm90IGEgdmFsdWU=")
    (error,) = done.raised["exceptions"]
    assert (error["places"], done.results) == ([], [])
    assert not any(word in done.readable_stderr for word in (*OURS, "cell.py"))


@pytest.mark.parametrize(
    "cell",
    [
        "import pdb\npdb.set_trace()",
        "import pdb\ndef f(): return 1\npdb.runcall(f)",
        "import pdb\ntry: 1 / 0\nexcept ZeroDivisionError: pdb.post_mortem()",
        "breakpoint()",
    ],
)
def test_a_debugger_that_would_ask_says_that_it_cannot(
    python: str, tmp_path: Path, cell: str
) -> None:
    done = run_marked(cell, tmp_path, python)
    error = done.raised["exceptions"][0]
    assert (error["type"], "The user cannot be asked" in error["value"]) == ("EOFError", True)
    assert (done.stdout in ("", "--Call--\n"), done.stderr) == (True, "")


def test_a_debugger_with_commands_steps_through_the_cell_alone(tmp_path: Path) -> None:
    cell = (
        "import io, pdb, sys\n"
        "commands = io.StringIO('p 6 * 7\\nn\\nn\\nn\\nn\\nn\\nn\\nc\\n')\n"
        "pdb.Pdb(stdin=commands, stdout=sys.stdout, nosigint=True).set_trace()\nx = 1\nx"
    )
    done = run_marked(cell, tmp_path)
    assert "(Pdb) 42\n" in done.stdout
    assert not any(word in done.stdout for word in (*OURS, "<lyceum-magic"))


def test_functions_name_a_file_that_holds_the_cell(python: str, tmp_path: Path) -> None:
    cell = (
        "import inspect, os\ndef f(): ...\npath = f.__code__.co_filename\n"
        "print(os.path.isfile(path), path == inspect.getfile(f) == __file__)\n"
        "print(open(path).read().splitlines()[f.__code__.co_firstlineno - 1])"
    )
    assert run_marked(cell, tmp_path, python).stdout == "True True\ndef f(): ...\n"


def test_a_cell_whose_folder_cannot_be_written_runs(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").touch()
    done = run_marked("import os\ndef f(): 1 / 0\nf()", tmp_path)
    assert done.raised["cell"] == "<cell>"
    assert done.raised["files"]["<cell>"]["3"] == "def f(): 1 / 0"
