"""`lyceum-magic run` executes ordinary notebooks as a kernel here does, cell by cell."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from lyceum_magic.embedded.demo import throwaway_home
from tests.notebooks_public import NAMES, notebook
from tests.tools.outputs import raised, seen

LIMIT_S = 240

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(2 * LIMIT_S)]

#: Notebook -> the sentence of the cell that needs what ended with its process.
LOST = {
    "generators": "name 'average' is not defined (session 'generators.ipynb' did not keep it "
    "after cell 5: a generator)",
    "sqlite_in_memory": "name 'conn' is not defined (session 'sqlite_in_memory.ipynb' did not "
    "keep it after cell 6: a Connection)",
}


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """One embedded server for all of them, started by the first that needs it."""
    with throwaway_home() as variables:
        yield variables


def run_notebook(
    path: Path, environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lyceum_magic.cli", "run", str(path), *options],
        env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def execute_here(content: Any, folder: Path, environment: dict[str, str]) -> Any:
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient

    folder.mkdir()
    client = NotebookClient(
        content,
        km=KernelManager(connection_file=str(folder.parent / "kernel.json")),
        timeout=LIMIT_S,
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute(env=environment, cleanup_kc=True)


def written(folder: Path, *sources: str, **metadata: Any) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = folder / "made.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def code_cells(path: Path) -> list[Any]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def shown(cell: Any) -> tuple[object, ...]:
    """The visible part of a cell; results and displays are told apart."""
    kinds = [
        (output.output_type, output.get("execution_count"))
        for output in cell.outputs
        if "data" in output
    ]
    return cell.execution_count, seen(cell.outputs), kinds, raised(cell.outputs)


def places(cell: Any) -> list[str]:
    """The lines of a traceback that tell where, without those around them."""
    lines = (raised(cell.outputs) or "").splitlines()
    return [line for line in lines if re.match(r"Cell In|-+> \d|\w+Error", line)]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_there_what_it_shows_here(
    name: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    there = tmp_path / "there" / f"{name}.ipynb"
    there.parent.mkdir()
    nbformat.write(notebook(name), there)
    done = run_notebook(there, environment)
    here = execute_here(notebook(name), tmp_path / "here", environment)
    cells = code_cells(there.with_suffix(".executed.ipynb"))
    assert len(cells) >= 7
    for cell, expected in zip(
        cells, [cell for cell in here.cells if cell.cell_type == "code"], strict=True
    ):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if name in LOST and errors:
            assert (errors[0].evalue, done.returncode) == (LOST[name], 1)
            return
        assert shown(cell) == shown(expected), cell.source
    assert name not in LOST
    assert (done.returncode, done.stdout) == (0, "")


def test_a_cell_that_fails_ends_it_as_a_kernel_shows_it(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    sources = ("x = 4", "print(x)\ndef half(x):\n    return x / 0\nhalf(x)", "print('went on')")
    path, output = written(tmp_path, *sources), tmp_path / "out" / "run.ipynb"
    done = run_notebook(path, environment, "--output", str(output), "--session", "broken")
    assert done.returncode == 1
    assert "cell 2 of 3 failed: ZeroDivisionError: division by zero" in done.stderr
    assert "`%%lyceum --session broken` goes on from it" in done.stderr
    here = execute_here(nbformat.read(path, as_version=4), tmp_path / "here", environment)
    first, failing, last = code_cells(output)
    assert seen(failing.outputs) == seen(here.cells[1].outputs)
    assert places(failing) == places(here.cells[1]) != []
    assert (first.execution_count, last.execution_count, last.outputs) == (1, None, [])
    again = run_notebook(path, environment, "--session", "broken")
    assert again.returncode == 1
    assert again.stderr.startswith("lyceum-magic: There is a session broken already, ")


def test_a_cell_that_cannot_be_compiled_fails_in_its_place(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    path = written(tmp_path, "print(1)", "x = = 2", "print(3)")
    done = run_notebook(path, environment)
    assert (done.returncode, "SyntaxError: invalid syntax" in done.stderr) == (1, True)
    first, failing, _ = code_cells(tmp_path / "made.executed.ipynb")
    assert first.outputs[0].text == "1\n"
    (error,) = failing.outputs
    assert (error.ename, "x = = 2" in "\n".join(error.traceback)) == ("SyntaxError", True)


def test_a_cell_may_fail_or_be_skipped_if_its_tag_says_so(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    path = written(tmp_path, "1 / 0", "2 / 0", "'went on'")
    content = nbformat.read(path, as_version=4)
    for cell, tag in zip(content.cells, ("raises-exception", "skip-execution"), strict=False):
        cell.metadata["tags"] = [tag]
    nbformat.write(content, path)
    assert run_notebook(path, environment, "--output", str(path)).returncode == 0
    may, skipped, last = code_cells(path)
    assert [may.outputs[0].ename, skipped.outputs, last.outputs[0].data["text/plain"]] == [
        "ZeroDivisionError", [], "'went on'",
    ]  # fmt: skip


def test_files_and_modules_beside_the_notebook_go_along(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    (tmp_path / "own_helper.py").write_text("def double(x):\n    return 2 * x\n")
    path = written(tmp_path, "x = 1", "print(open('data.csv').read())",
                   "import own_helper\nown_helper.double(21)")  # fmt: skip
    done = run_notebook(path, environment, "--file", "data.csv")
    assert done.returncode == 0, done.stderr
    _, text, value = code_cells(tmp_path / "made.executed.ipynb")
    assert (text.outputs[0].text, value.outputs[0].data["text/plain"]) == ("a,b\n1,2\n\n", "42")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no notebook {path}."),
        ("{", "{path} is no notebook: it should be JSON, in UTF-8."),
        ("[]", "{path} is no notebook: it should be a JSON object with `nbformat` and `cells`."),
        ('{"nbformat": 4}', "{path} is no notebook: its `cells` should be a list."),
        ('{"nbformat": 4, "cells": [{"cell_type": "code", "source": 1}]}',
         "{path} is no notebook: its cell 1 should have a `cell_type` and a `source`."),
        ('{"nbformat": 3, "worksheets": []}',
         ("{path} has notebook format 3, and only 4 is read; "
         "`jupyter nbconvert --to notebook --nbformat 4` converts it.")),
        ('{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "R"}}}',
         "{path} is a notebook of r; machines run cells of Python."),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    content: str | None, sentence: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    path = tmp_path / "bad.ipynb"
    if content is not None:
        path.write_text(content)
    done = run_notebook(path, environment)
    assert done.returncode == 1
    assert done.stderr == f"lyceum-magic: {sentence.format(path=path)}\n"
    assert not path.with_suffix(".executed.ipynb").exists()
