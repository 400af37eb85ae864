"""Notebooks with cells of ours under nbval, which runs them again and compares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.tools.waiting import LIMIT_S

# The kernel's client warns that loopback is not encrypted, and zmq that it chose a loop.
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("shared_server"),
]

LOADED = "%load_ext lyceum_magic"
#: The advice of the README: the row above the outputs names a time and an id, which differ.
MARKED = "%%lyceum --out total\n# NBVAL_IGNORE_OUTPUT\ntotal = 6 * 7\nprint('sum', total)"


def nbval(folder: Path, option: str, *cells: str) -> tuple[int, str]:
    """Execute a notebook, then let nbval run it again; return its exit code and its report."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "python3"}},
    )
    NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    nbformat.write(notebook, folder / "notebook.ipynb")
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", option, "notebook.ipynb", "-q",
            "-p", "no:cacheprovider", "-p", "no:schemathesis",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("option", ["--nbval", "--nbval-lax"])
def test_a_marked_cell_passes_and_its_values_are_compared(tmp_path: Path, option: str) -> None:
    code, report = nbval(tmp_path, option, LOADED, MARKED, "total")
    assert (code, "3 passed" in report) == (0, True), report


def test_an_unmarked_cell_passes_where_outputs_are_not_compared(tmp_path: Path) -> None:
    code, report = nbval(tmp_path, "--nbval-lax", LOADED, "%%lyceum\nprint(1)", "_run.text")
    assert (code, "3 passed" in report) == (0, True), report


def test_a_detached_cell_passes_too(tmp_path: Path) -> None:
    cell = "%%lyceum --detach\n# NBVAL_IGNORE_OUTPUT\nprint(1)"
    code, report = nbval(tmp_path, "--nbval", LOADED, cell, "_run.result().text")
    assert (code, "3 passed" in report) == (0, True), report


def test_a_cell_that_fails_the_second_time_is_reported(tmp_path: Path) -> None:
    cell = f"%%lyceum\n# NBVAL_IGNORE_OUTPUT\nopen({str(tmp_path / 'once')!r}, 'x').close()"
    code, report = nbval(tmp_path, "--nbval", LOADED, cell)
    assert code == 1
    assert "FileExistsError" in report
