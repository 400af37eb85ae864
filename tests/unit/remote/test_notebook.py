"""A cell finds a notebook where it runs: IPython's shell, its publisher, its way with errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lyceum_magic.outputs.decoding import Display
from lyceum_magic.submission.source import parse_cell
from lyceum_magic.submission.wrapping import wrap_cell
from tests.unit.remote.interpreters import INTERPRETERS
from tests.unit.remote.marked import MARK, Ended, run_marked

WITHOUT_IPYTHON = [p for p in INTERPRETERS.values() if p != sys.executable][:1]


def bundles(done: Ended) -> list[dict[str, object]]:
    return [item.data for item in done.items if isinstance(item, Display)]


def modules_loaded_by(cell: str, folder: Path) -> set[str]:
    """The modules that the interpreter loads for a cell."""
    script = folder / "cell.py"
    script.write_text(wrap_cell(parse_cell(cell).code, mark=MARK), "utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(script)],
        capture_output=True,
        encoding="utf-8",
        check=True,
        cwd=folder,
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    "cell",
    [
        "print(1)",
        "display([1])",
        "import sys\nprint(__IPYTHON__, sys.ps1, 'IPython' in sys.modules)",
        "import IPython",
        "import importlib.util\nimportlib.util.find_spec('IPython').origin",
        "import inspect\ninspect.getmodule(inspect.currentframe())",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.ion()",
        "import pandas as pd\npd.DataFrame({'a': [1]})",
    ],
)
def test_a_cell_that_does_not_ask_for_the_shell_loads_nothing(tmp_path: Path, cell: str) -> None:
    loaded = modules_loaded_by(cell, tmp_path)
    assert not {name for name in loaded if name.startswith(("IPython.", "ipykernel."))}
    assert "lyceum_magic_remote.shell" not in loaded


@pytest.mark.parametrize(
    "asking",
    [
        "get_ipython()",
        "__import__('IPython').get_ipython()",
        "__import__('IPython.core.getipython', fromlist='x').get_ipython()",
        "__import__('sys').modules['IPython'].get_ipython()",
        "__import__('IPython.core.interactiveshell', fromlist='x').InteractiveShell.instance()",
    ],
)
def test_each_way_to_ask_gives_the_shell(tmp_path: Path, asking: str) -> None:
    # In a function of a module, which sees nothing of the cell.
    (tmp_path / "asker.py").write_text(f"def ask(): return {asking}\n")
    cell = (
        "import asker\nshell = asker.ask()\nx = 5\n"
        "print(type(shell).__name__, shell.user_ns['x'], shell is asker.ask())"
    )
    assert run_marked(cell, tmp_path).stdout == "ZMQInteractiveShell 5 True\n"


def test_a_module_that_was_not_loaded_is_whole_when_it_is_used(tmp_path: Path) -> None:
    cell = (
        "import IPython\nfrom IPython import *\n"
        "print(start_ipython.__name__, bool(IPython.__version__), 'embed' in dir(IPython))\n"
        "import IPython.lib.pretty, os, sys\n"
        "print(os.path.basename(IPython.__file__), IPython.lib is sys.modules['IPython.lib'])"
    )
    done = run_marked(cell, tmp_path)
    assert done.stdout == "start_ipython True True\n__init__.py True\n"


def test_threads_that_ask_at_once_get_one_shell(tmp_path: Path) -> None:
    cell = (
        "from concurrent.futures import ThreadPoolExecutor\nimport builtins\n"
        "ask = vars(builtins)['get_' + 'ipython']\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    print(len({id(shell) for shell in pool.map(lambda n: ask(), range(8))}))"
    )
    assert run_marked(cell, tmp_path).stdout == "1\n"


@pytest.mark.parametrize("python", WITHOUT_IPYTHON)
def test_without_ipython_nothing_pretends_to_be_it(python: str, tmp_path: Path) -> None:
    cell = (
        "import builtins, sys\n"
        "print(hasattr(builtins, '__IPYTHON__'), 'IPython' in sys.modules, hasattr(sys, 'ps1'))\n"
        "try: import IPython\nexcept ImportError: print('no')"
    )
    assert run_marked(cell, tmp_path, python).stdout == "False False False\nno\n"


def test_a_module_that_only_looks_loaded_fails_as_one_that_is_missing(tmp_path: Path) -> None:
    cell = (
        "import sys\nmodule = type(sys.modules['IPython'])('nowhere.at.all')\n"
        "sys.modules['nowhere'] = type(sys)('nowhere')\nsys.modules['nowhere'].__path__ = []\n"
        "sys.modules['nowhere.at.all'] = module\nprint(hasattr(module, 'x'))"
    )
    assert run_marked(cell, tmp_path).stdout == "False\n"


@pytest.mark.parametrize(
    "change",
    [
        "json.dumps = lambda *what, **options: 1 / 0",
        "json.JSONEncoder.default = lambda self, what: 'mine'",
        "json.JSONEncoder = None",
        "sys.modules['json'] = None",
    ],
)
@pytest.mark.parametrize("secret", ["", "swordfish99"])
def test_a_cell_may_replace_what_json_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, secret: str
) -> None:
    monkeypatch.setenv("LYCEUM_SECRET_NAMES", "S" if secret else "")
    monkeypatch.setenv("S", secret)
    cell = f"import json, sys\n{change}\ndisplay({{'a': [1.5, None]}})\nvalue = [1]\n1 / 0"
    done = run_marked(cell, tmp_path, outputs=["value"])
    assert done.results == ["{'a': [1.5, None]}"]
    assert done.raised["exceptions"][0]["type"] == "ZeroDivisionError"
    assert (done.stderr, [type(item).__name__ for item in done.items].count("Value")) == ("", 1)


def test_a_replaced_hook_for_exceptions_hides_no_error(tmp_path: Path) -> None:
    cell = "import sys\nsys.excepthook = lambda *what: print('mine')\nraise ValueError('bad')"
    done = run_marked(cell, tmp_path)
    error = done.raised["exceptions"][0]
    assert (error["type"], error["value"], done.stdout, done.stderr) == (
        "ValueError",
        "bad",
        "",
        "",
    )


@pytest.mark.parametrize("python", [sys.executable, *WITHOUT_IPYTHON])
def test_rich_may_show_the_error_and_its_name_still_comes_home(python: str, tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()  # as it installs itself, for Pythons that have it not
    (tmp_path / "rich" / "__init__.py").write_text("")
    (tmp_path / "rich" / "traceback.py").write_text(
        "import sys, traceback\n"
        "def show(kind, value, trace):\n"
        "    files = [frame.filename for frame in traceback.extract_tb(trace)]\n"
        "    print('rich', kind.__name__, any('lyceum-magic' in file for file in files))\n"
        "def install():\n"
        "    try: shell = get_ipython()\n"
        "    except NameError: sys.excepthook = show\n"
        "    else: shell._showtraceback = lambda *what: show(*error(sys.exc_info()))\n"
        "def error(what): return *what[:2], what[2].tb_next  # as rich skips the shell's frame\n"
    )
    done = run_marked("from rich.traceback import install\ninstall()\n{}['k']", tmp_path, python)
    (error,) = done.raised["exceptions"]
    has_shown = python == sys.executable
    assert (error["type"], error["value"]) == ("KeyError", "'k'")
    assert (done.stdout, done.raised["is_shown"]) == (
        "rich KeyError False\n" if has_shown else "", has_shown,
    )  # fmt: skip


def test_a_handler_for_one_kind_of_error_shows_that_kind(tmp_path: Path) -> None:
    head = (
        "def handle(shell, kind, value, trace, tb_offset=None): print('handled', value)\n"
        "get_ipython().set_custom_exc((ValueError,), handle)\n"
    )
    done = run_marked(head + "raise ValueError('v')", tmp_path)
    assert (done.stdout, done.raised["is_shown"]) == ("handled v\n", True)
    done = run_marked(head + "raise KeyError('k')", tmp_path)
    assert (done.stdout, done.raised["is_shown"]) == ("", False)


def test_the_mode_of_tracebacks_travels(tmp_path: Path) -> None:
    assert run_marked("%xmode Plain\n1 / 0", tmp_path).raised["xmode"] == "Plain"
    assert run_marked("get_ipython()\n1 / 0", tmp_path).raised["xmode"] == ""


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("1/0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_an_error_of_run_cell_is_shown_and_the_cell_goes_on(
    tmp_path: Path, code: str, shown: str
) -> None:
    done = run_marked(
        f"result = get_ipython().run_cell({code!r})\nprint('goes on', result.success)", tmp_path
    )
    assert (done.has_raised, done.return_code) == (False, 0)
    assert shown in done.stdout
    assert "interactiveshell.py" not in done.stdout
    assert done.stdout.endswith("goes on False\n")


def test_a_result_of_run_cell_is_shown_once_and_without_a_prompt(tmp_path: Path) -> None:
    done = run_marked("get_ipython().run_cell('1 + 1').result == 2", tmp_path)
    assert (done.results, done.stdout) == (["2", "True"], "")


def test_what_is_captured_is_not_shown(tmp_path: Path) -> None:
    cell = (
        "from IPython.utils.capture import capture_output\n"
        "with capture_output() as caught:\n    print('a')\n    display(1, display_id='x')\n"
        "print(caught.stdout, caught.outputs[0].data, len(caught.outputs))\n2"
    )
    done = run_marked(cell, tmp_path)
    assert (done.results, done.stdout) == (["2"], "a\n {'text/plain': '1'} 1\n")


def test_a_callback_that_fails_at_the_end_of_the_cell_is_shown_and_forgotten(
    tmp_path: Path,
) -> None:
    cell = (
        "def fail(result): raise ValueError('late')\n"
        "get_ipython().events.register('post_run_cell', fail)\nprint('done')"
    )
    done = run_marked(cell, tmp_path)
    assert (done.return_code, done.has_raised) == (0, False)
    assert "late" in done.stdout
