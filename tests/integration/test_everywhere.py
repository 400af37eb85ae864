"""The same cells in every kind of kernel, and in what is left of a notebook elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import lyceum_magic
from tests.tools.environments import MATRIX, Environment
from tests.tools.kernel import Cell, Kernel, running_kernel

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("shared_server")]

RICH = """\
%%lyceum --in text,numbers --out total
class Table:
    def _repr_html_(self):
        return f"<table><tr><td>{text}</td></tr></table>"
    def __repr__(self):
        return "a table"

import sys
print("before")
handle = display("first", display_id=True)
print("aside", file=sys.stderr)
handle.update("updated")
total = sum(numbers)
Table()
"""
FAILING = """\
%%lyceum
def f(x):
    return 1 / x

f(0)
"""


def bundles(cell: Cell) -> list[dict[str, object]]:
    """The displays after its strip, with updates in place."""
    shown: dict[object, dict[str, object]] = {}
    for number, message in enumerate(cell.messages):
        if message["msg_type"] in ("display_data", "update_display_data"):
            content = message["content"]
            shown[content.get("transient", {}).get("display_id", number)] = content["data"]
    return list(shown.values())[1:]


def plain(lines: list[str]) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(lines))


def check_cells(kernel: Kernel) -> None:
    kernel.run("text, numbers = 'é', [1, 2, 3.5]")
    cell = kernel.run(RICH)
    assert cell.error is None, cell
    assert (cell.stdout, cell.stderr) == ("before\n", "aside\n")
    assert bundles(cell) == [
        {"text/plain": "'updated'"},
        {"text/html": "<table><tr><td>é</td></tr></table>", "text/plain": "a table"},
    ]
    assert "✓ completed" in cell.summary
    assert kernel.value("total") == "6.5"
    failed = kernel.run(FAILING)
    assert failed.error is not None
    assert failed.error["ename"] == "RunFailed"
    assert failed.stderr == ""
    shown = plain(failed.error["traceback"])
    assert re.search(r"-+> 3     return 1 / x\n", shown)
    assert re.search(r"-+> 5 f\(0\)\n", shown)
    assert shown.endswith("ZeroDivisionError: division by zero")
    assert "lyceum" not in shown
    assert plain(kernel.run("%tb").error["traceback"]) == shown  # type: ignore[index]


@pytest.mark.parametrize("environment", MATRIX, ids=str)
def test_every_kernel_of_the_matrix(environment: Environment) -> None:
    environment.ensure()
    with running_kernel(environment=environment) as kernel:
        check_cells(kernel)


def test_without_anywidget(tmp_path: Path) -> None:
    (tmp_path / "anywidget.py").write_text("raise ImportError('there is none')")
    with running_kernel(env={"PYTHONPATH": str(tmp_path)}) as kernel:
        kernel.is_attended = True
        check_cells(kernel)
        cell = kernel.run("%%lyceum\nimport time; time.sleep(0.5)")
        assert "widget" not in str([message["content"] for message in cell.messages])
        assert "✓ completed" in cell.summary


def test_a_front_end_that_is_no_jupyter_page() -> None:
    """VS Code: widgets, but neither a page that can interrupt nor a kernel id in a file's name."""
    with running_kernel() as kernel:
        kernel.is_attended = True
        check_cells(kernel)
        cell = kernel.run("%%lyceum\nimport time; time.sleep(0.5)")
        views = [
            message["content"]["data"]
            for message in cell.messages
            if "application/vnd.jupyter.widget-view+json" in str(message["content"].get("data"))
        ]
        assert views
        assert all({"text/html", "text/plain"} <= set(view) for view in views)
        assert kernel.value(
            "__import__('lyceum_magic.display.faces').display.faces.kernel_id()"
        ) == ("None")


def in_terminal(*cells: str) -> subprocess.CompletedProcess[str]:
    code = "\n\n\n".join(cell.rstrip("\n") for cell in ["%load_ext lyceum_magic", *cells, "exit"])
    return subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"],
        input=f"{code}\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "TERM": "dumb"},
    )


def test_ipython_in_a_terminal() -> None:
    done = in_terminal("text, numbers = 'é', [1, 2, 3.5]", RICH, "print('total is', total)")
    assert "before\n" in done.stdout
    assert "'first'" in done.stdout
    assert "a table" in done.stdout
    assert "✓ completed" in done.stdout
    assert "total is 6.5" in done.stdout
    assert "aside" in done.stderr


def test_an_error_in_a_terminal_points_into_the_cell() -> None:
    done = in_terminal(FAILING)
    assert "----> 3     return 1 / x" in done.stdout + done.stderr
    assert "ZeroDivisionError: division by zero" in done.stdout + done.stderr


def test_a_detached_cell_in_a_terminal_says_how_to_see_it() -> None:
    done = in_terminal("%%lyceum --detach\nprint('later')", "_run.wait()", "%lyceum attach last")
    assert re.search(r"detached: %lyceum attach \w{8} · run \w{8}", done.stdout)
    assert "later" in done.stdout


SCRIPT = """
    import asyncio
    import lyceum_magic

    code = "print('before')\\nresult = [n * k for n in numbers]\\nresult"
    run = lyceum_magic.submit(code, inputs={"numbers": [1, 2], "k": 3}, outputs=["result"]).result()
    print(run.text, dict(run.values), run.outputs[-1]["data"], run.cost)

    async def main():
        run = lyceum_magic.submit("1 / 0")
        try:
            await run
        except lyceum_magic.RunFailed as failure:
            print(failure.ename, failure.evalue)
        lyceum_magic.nest_loops()
        print(lyceum_magic.submit("print('nested')").result().text)

    asyncio.run(main())
    lyceum_magic.submit("def f():\\n    1 / 0\\n\\nf()").result()
"""


def test_a_plain_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == (
        "before\n {'result': [3, 6]} {'text/plain': '[3, 6]'} None\n"
        "ZeroDivisionError division by zero\nnested\n\n"
    )
    assert done.returncode == 1
    assert "line 2, in f\n    1 / 0" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "RunFailed: ZeroDivisionError: division by zero" in done.stderr


def test_code_from_python_counts_its_own_lines() -> None:
    with pytest.raises(SyntaxError) as caught:
        lyceum_magic.submit("x = 1\ny = ")
    assert (caught.value.lineno, caught.value.text) == (2, "y = \n")
