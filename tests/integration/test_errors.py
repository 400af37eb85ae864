"""An error of a `%%lyceum` cell reads as if it had run here, in every place that shows it."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.tools.embedded import end_server
from tests.tools.kernel import Cell, Kernel, running_kernel

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("errors") / "lyceum"
    yield state
    end_server(state)


@pytest.fixture(scope="module")
def kernel(state: Path) -> Iterator[Kernel]:
    env = {"LYCEUM_MAGIC_HOME": str(state), "HOME": str(state.parent)}
    with running_kernel(env=env) as kernel:
        yield kernel


def shown(cell: Cell) -> str:
    """Its traceback without colours."""
    assert cell.error is not None, cell
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.error["traceback"]))


def numberless(text: str) -> str:
    """Without the names of cells, line 1, which is the magic's in one of two, and blank lines."""
    text = re.sub(r"Cell In\[\d+\], line |File <cell of run \w+>:", "Cell ", text)
    return re.sub(r"^ +(1 .*|\d+ *)\n", "", text, flags=re.MULTILINE)


ALIKE = {
    "a line": "1 / 0",
    "functions": "def f(x):\n    return 1 / x\n\ndef g(y, *, z=1):\n    return f(y)\n\ng(0)",
    "a method": "class A:\n    def m(self):\n        return self.nothing\n\nA().m()",
    "several lines": "sum(\n    [1,\n     'x'],\n)",
    "a library": "import json\njson.loads('{')",
    "no context": "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('no') from None",
    "a note": "e = ValueError('x')\ne.add_note('look here')\nraise e",
    "an own class": "class Mine(Exception): pass\n\nraise Mine('x')",
    "a generator": "def g():\n    yield 1\n    1 / 0\n\nlist(g())",
    "an awaited function": "import asyncio\nasync def f():\n    1 / 0\n\nawait f()",
    "an assertion": "assert 1 == 2, 'not so'",
    "no such name": "nowhere",
    "an interrupt": "raise KeyboardInterrupt('by me')",
    "a command first": "!true\n1 / 0",
}


@pytest.mark.parametrize("code", ALIKE.values(), ids=ALIKE.keys())
def test_it_reads_as_a_local_error(kernel: Kernel, code: str) -> None:
    here = kernel.run(f"pass\n{code}")
    there = kernel.run(f"%%lyceum\n{code}")
    assert here.error is not None
    assert there.error is not None
    assert there.error["ename"] == "RunFailed"
    assert there.error["evalue"].startswith(here.error["ename"])
    assert numberless(shown(there)) == numberless(shown(here))
    assert there.stderr == ""


def test_the_cell_has_the_notebooks_number(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum\n1 / 0")
    (number,) = {
        message["content"]["execution_count"]
        for message in cell.messages
        if message["msg_type"] == "execute_input"
    }
    assert f"Cell In[{number}], line 2" in shown(cell)


def test_tb_shows_it_again(kernel: Kernel) -> None:
    before = shown(kernel.run("%%lyceum\ndef f():\n    1 / 0\nf()"))
    assert shown(kernel.run("%tb")) == before
    kernel.run("%xmode Minimal")
    try:
        assert shown(kernel.run("%tb")).strip() == "ZeroDivisionError: division by zero"
    finally:
        kernel.run("%xmode Context")


@pytest.mark.parametrize(
    ("suffix", "link"),
    [(" from e", "direct cause of the following exception"), ("", "another exception occurred")],
)
def test_what_came_before_is_shown_before(kernel: Kernel, suffix: str, link: str) -> None:
    code = "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('no')" + suffix
    before, said, after = shown(kernel.run(f"%%lyceum\n{code}")).partition(link)
    assert said
    assert "----> 3     {}['k']" in before
    assert f"----> 5     raise ValueError('no'){suffix}" in after
    assert after.endswith("ValueError: no")


def test_a_group_is_shown_whole(kernel: Kernel) -> None:
    text = shown(kernel.run("%%lyceum\nraise ExceptionGroup('g', [ValueError(1), TypeError(2)])"))
    assert "ExceptionGroup: g (2 sub-exceptions)" in text
    assert "| ValueError: 1" in text
    assert "| TypeError: 2" in text


def test_a_syntax_error_of_what_the_cell_compiles_is_shown_as_one(kernel: Kernel) -> None:
    text = shown(kernel.run("%%lyceum\nexec('for for')"))
    assert ", line 2\n    exec('for for')" in text
    assert text.rstrip().endswith("SyntaxError: invalid syntax")


def test_another_kernel_shows_the_same(kernel: Kernel, state: Path) -> None:
    there = shown(kernel.run("%%lyceum\ndef f():\n    1 / 0\n\nf()"))
    env = {"LYCEUM_MAGIC_HOME": str(state), "HOME": str(state.parent)}
    with running_kernel(env=env) as other:
        text = shown(other.run("%lyceum attach last"))
        outputs = other.value("[(o['output_type'], o['ename'], o['evalue']) for o in _run.outputs]")
    assert outputs == "[('error', 'ZeroDivisionError', 'division by zero')]"
    assert numberless(text) == numberless(there)


def test_the_exception_is_at_hand(kernel: Kernel) -> None:
    kernel.run("%%lyceum\nraise KeyError('k')")
    told = kernel.run(
        "import pickle, sys\nerror = sys.last_value\nagain = pickle.loads(pickle.dumps(error))\n"
        "print(type(error.__cause__), error.ename, error.evalue, error.return_code)\n"
        "print(type(again).__name__, again.ename, again.traceback == error.traceback, str(again))\n"
        "print(error.traceback[-1])"
    )
    assert told.stdout == (
        "<class 'KeyError'> KeyError 'k' 1\nRunFailed KeyError True KeyError: 'k'\nKeyError: 'k'\n"
    )


@pytest.mark.parametrize(
    ("line", "code", "hint"),
    [
        ("", "print(only_here)", "send it along with -i only_here"),
        ("", "fs.path", "begin the cell with `import os as fs`"),
        ("", "helper()", "send it along with -i helper --pickle"),
        ("", "open('here.txt')", "send it along with --file here.txt"),
        ("", "import nowhere_known", "installed neither there nor here: add -r nowhere_known"),
        ("", "import nowhere_known.part as p", "add -r nowhere_known"),
        ("", "import fitz", "add -r PyMuPDF"),
        ("", "import azure.storage.blob", "add -r azure-storage-blob"),
        ("--no-auto-requirements", "raise ModuleNotFoundError(name='cv2')", "-r opencv-python-hea"),
        ("", "raise MemoryError", "choose a machine with more of it with -m"),
        ("", "import os; os.kill(os.getpid(), 9)", "choose a machine with more of it with -m"),
        ("-r no-such-package-anywhere", "1", "-r NAME asks for any, and --no-auto"),
        ("-t 1", "while True: pass", "more time with -t SECONDS, up to 600"),
    ],
)
def test_what_would_have_helped_is_said(kernel: Kernel, line: str, code: str, hint: str) -> None:
    kernel.run("import os as fs\ndef helper(): pass\nonly_here = 1\nopen('here.txt', 'w').close()")
    cell = kernel.run(f"%%lyceum {line}\n{code}")
    assert hint in shown(cell)
    assert cell.error is not None
    assert hint in cell.error["evalue"]


@pytest.mark.parametrize("code", ["print(nowhere)", "open('nowhere.txt')", "1 / 0", "exit(3)"])
def test_where_nothing_is_known_nothing_is_said(kernel: Kernel, code: str) -> None:
    cell = kernel.run(f"%%lyceum\n{code}")
    assert " -" not in (cell.error or {})["evalue"]


def test_without_raising_it_is_text(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum --no-raise\n1 / 0")
    assert cell.error is None
    assert 'File "<cell>", line 2, in <module>' in cell.stderr
    assert "ZeroDivisionError: division by zero" in kernel.run("%lyceum logs").stderr


def test_a_script_prints_the_lines_of_the_cell(state: Path) -> None:
    script = (
        "import sys, lyceum_magic\n"
        "run = lyceum_magic.submit('def f():\\n    1 / 0\\n\\nf()')\n"
        "try:\n    run.result()\nfinally:\n    assert 'IPython' not in sys.modules\n"
    )
    env = {**os.environ, "LYCEUM_MAGIC_HOME": str(state)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.search(r'File "<cell of run \w{8}>", line 2, in f\n    1 / 0\n', done.stderr)
    assert "was the direct cause of the following exception" in done.stderr
    assert done.stderr.endswith("RunFailed: ZeroDivisionError: division by zero\n")


# papermill's notebooks of errors, each with the same name there.

PAPERMILL = {
    "broken": "assert False",
    "keyboard_interrupt": "raise KeyboardInterrupt",
    "line_magic_error": "%nonesuch",
    "sysexit": "import sys; sys.exit()",
    "sysexit0": "import sys; sys.exit(0)",
    "sysexit1": "import sys; sys.exit(1)",
    "systemexit": "raise SystemExit",
}


@pytest.mark.parametrize("name", PAPERMILL)
def test_papermill_ends_as_the_cell_does(name: str, state: Path, tmp_path: Path) -> None:
    cells = ["%load_ext lyceum_magic", f"%%lyceum\n{PAPERMILL[name]}", "print('after')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    source, target = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(notebook, source)
    env = {**os.environ, "LYCEUM_MAGIC_HOME": str(state)}
    command = [sys.executable, "-m", "papermill", str(source), str(target), "--no-progress-bar"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    executed: Any = nbformat.read(target, as_version=4)
    errors = [o for c in executed.cells for o in c.get("outputs", ()) if o.output_type == "error"]
    is_fine = name in ("sysexit", "sysexit0", "systemexit")
    assert (done.returncode == 0, [error.ename for error in errors]) == (
        is_fine,
        [] if is_fine else ["RunFailed"],
    ), done.stderr
    said = {"broken": "AssertionError", "keyboard_interrupt": "KeyboardInterrupt"}
    assert said.get(name, "") in "".join(error.evalue for error in errors)
    assert ("after" in str(executed.cells[-1].get("outputs"))) == is_fine


def test_a_pickled_failure_needs_nothing_of_the_notebook() -> None:
    from lyceum_magic.exceptions import RunFailed

    error = RunFailed("r", run_id="i", state="failed", ename="E", evalue="v", traceback=["t"])
    error.hint = "do this"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.traceback, again.hint) == ("E: v\ndo this", ["t"], "do this")


def test_a_password_in_a_requirement_is_shown_nowhere(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum -r 'x @ https://user:s3cr3t@example.invalid/x.whl'\n1")
    assert cell.error is not None
    shown = [cell.messages, kernel.run("%lyceum list --all").messages]
    shown += [kernel.run("print(_run.reason, _run.record(), _run.text)").messages]
    answers = [m["content"] for messages in shown for m in messages]
    assert "s3cr3t" not in str([c for c in answers if "code" not in c])


@pytest.mark.parametrize("half", [0xDCC3, 0xD83D])
def test_half_a_character_in_a_message_costs_no_more_than_itself(kernel: Kernel, half: int) -> None:
    raising = f"raise ValueError('bad ' + chr({half}))"
    assert shown(kernel.run(f"%%lyceum\n{raising}")).endswith("ValueError: bad \ufffd")
    assert shown(kernel.run("%lyceum attach last")).endswith("ValueError: bad \ufffd")
    cell = kernel.run(f"%%lyceum --no-raise\n{raising}")
    assert cell.error is None
    assert "ValueError: bad \ufffd" in cell.stderr
    kernel.run("import lyceum_magic")
    result = kernel.run(f"lyceum_magic.submit({raising!r}).result()")
    assert result.error is not None
    assert result.error["evalue"] == "ValueError: bad \ufffd"
    assert "ValueError: bad \ufffd" in kernel.run("%lyceum list --all").result
