"""`%%lyceum` in a real JupyterLab, for each kernel of the matrix."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from playwright.sync_api import Browser, expect

from tests.tools.environments import MATRIX, QUICKSTART_MATRIX, ROOT
from tests.tools.jupyterlab import JupyterLab, Notebook, open_notebook
from tests.tools.notebooks import texts

from .conftest import SCREENSHOTS

KERNELS = [environment.name for environment in MATRIX]

#: Prints the process ids of the run's family, one of them in a session of its own, and waits.
FAMILY = """\
%%lyceum -m gpu.a100 --name family
import json, os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
child = "import subprocess, sys; print(subprocess.Popen({!r}, start_new_session=True).pid, " \\
        "flush=True); import time; time.sleep(600)".format(sleep)
parent = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
grandchild = int(parent.stdout.readline())
print("family", json.dumps([os.getpid(), parent.pid, grandchild]))
time.sleep(600)
"""
LIVE = """\
%%lyceum
import pathlib, sys, time
print("\\x1b[31mfirst\\x1b[0m")
print("aside", file=sys.stderr)
while not pathlib.Path({gate!r}).exists():
    time.sleep(0.05)
print("last")
6 * 7
"""

Opener = Callable[..., Notebook]


@pytest.fixture
def open_cells(
    jupyterlab: JupyterLab, chromium: Browser, request: pytest.FixtureRequest
) -> Iterator[Opener]:
    """Open a notebook with the extension loaded; its page must be clean at the end."""
    notebooks: list[Notebook] = []

    def open_(*cells: str, kernel: str) -> Notebook:
        name = re.sub(r"\W+", "-", request.node.name) + ".ipynb"
        jupyterlab.write_notebook(name, ["%load_ext lyceum_magic", *cells], kernel=kernel)
        notebook = open_notebook(chromium, jupyterlab, name)
        notebooks.append(notebook)
        notebook.run_first()
        return notebook

    yield open_
    for notebook in notebooks:
        notebook.close()
        assert notebook.errors == []
        assert notebook.foreign_requests == []
    jupyterlab.shut_down_kernels()


@pytest.mark.parametrize("kernel", KERNELS)
def test_text_comes_while_the_cell_runs_and_the_summary_stays(
    open_cells: Opener, jupyterlab: JupyterLab, kernel: str
) -> None:
    gate = jupyterlab.root / f"gate-{kernel}"
    notebook = open_cells(LIVE.format(gate=str(gate)), kernel=kernel)
    output = notebook.output(1)
    notebook.run(1)
    expect(output).to_contain_text("first")
    expect(output).to_contain_text("aside")
    expect(output.locator(".lyceum-strip")).to_contain_text("running")
    expect(output.locator(".lyceum-strip")).to_contain_text("LOCAL")
    notebook.page.screenshot(path=SCREENSHOTS / f"magic-running-{kernel}.png")
    gate.touch()
    notebook.expect_done(1)
    expect(output).to_contain_text("last")
    expect(output).to_contain_text("42")
    expect(output).to_contain_text("✓ completed")
    expect(output.locator(".lyceum-strip")).to_have_count(0)
    notebook.save()
    saved = jupyterlab.read_notebook(notebook.name)
    texts = {"stdout": "", "stderr": ""}
    for part in saved.cells[1].outputs:
        if part.output_type == "stream":
            texts[part.name] += part.text
    assert texts == {"stdout": "\x1b[31mfirst\x1b[0m\nlast\n", "stderr": "aside\n"}
    assert saved.cells[1].outputs[-1].data == {"text/plain": "42"}


#: Draws without matplotlib, which not every environment of the matrix has.
DETACHED = """\
%%lyceum --detach --name sweep
import pathlib, time

class Picture:
    def __init__(self, colour):
        self.colour = colour
    def _repr_html_(self):
        size = 'width="200" height="60"'
        return f'<svg {{size}}><rect {{size}} fill="{{self.colour}}"/></svg>'

print("\\x1b[32mbegun\\x1b[0m")
display(Picture("teal"))
while not pathlib.Path({gate!r}).exists():
    time.sleep(0.05)
display(Picture("tomato"))
print("over")
{{"loss": 0.25}}
"""


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_detached_run_goes_on_under_its_cell(
    open_cells: Opener, jupyterlab: JupyterLab, kernel: str
) -> None:
    gate = jupyterlab.root / f"gate-detached-{kernel}"
    notebook = open_cells(DETACHED.format(gate=str(gate)), "print('another cell')", kernel=kernel)
    output = notebook.output(1)
    notebook.run(1)
    notebook.expect_done(1)
    expect(output).to_contain_text("begun")
    expect(output.locator(".lyceum-strip")).to_contain_text("detached")
    notebook.run(2)
    notebook.expect_done(2)
    gate.touch()
    expect(output).to_contain_text("✓ completed")
    expect(output).to_contain_text("over")
    expect(output).to_contain_text("{'loss': 0.25}")
    expect(output.locator("svg rect")).to_have_count(2)
    expect(notebook.output(2)).to_have_text("another cell")
    notebook.page.screenshot(path=SCREENSHOTS / f"magic-detached-{kernel}.png")
    notebook.save()
    saved = jupyterlab.read_notebook(notebook.name)
    shown = [part.data["text/plain"] for part in saved.cells[1].outputs]
    assert "completed" in shown[0]
    assert shown[1] == "\x1b[32mbegun\x1b[0m\nover\n"
    assert shown[4] == "{'loss': 0.25}"


def test_stop_ends_a_detached_run_and_no_other_cell(
    open_cells: Opener, jupyterlab: JupyterLab
) -> None:
    notebook = open_cells(
        "%%lyceum --detach --name endless\nprint('begun')\nimport time; time.sleep(600)",
        "_run.wait().value",
        kernel=KERNELS[-1],
    )
    output = notebook.output(1)
    notebook.run(1)
    expect(output).to_contain_text("begun")
    output.get_by_role("button", name="Stop run endless").click()
    expect(output).to_contain_text("■ aborted")
    notebook.run(2)
    notebook.expect_done(2)
    expect(notebook.output(2)).to_contain_text("aborted")


@pytest.mark.parametrize("kernel", KERNELS)
def test_stop_aborts_the_run_and_leaves_no_process(
    open_cells: Opener, jupyterlab: JupyterLab, kernel: str
) -> None:
    notebook = open_cells(FAMILY, "print('state', _run.record()['status'])", kernel=kernel)
    output = notebook.output(1)
    notebook.run(1)
    expect(output).to_contain_text(re.compile(r"family \[\d+, \d+, \d+\]"))
    found = re.search(r"family (\[[\d, ]+\])", output.inner_text())
    assert found is not None
    family = [psutil.Process(pid) for pid in json.loads(found[1])]
    expect(output.locator(".lyceum-strip")).to_contain_text("no GPU on this machine")
    output.get_by_role("button", name="Stop run family").click()
    notebook.expect_done(1)
    expect(output).to_contain_text("■ aborted")
    expect(output).to_contain_text("RunAborted")
    assert [process for process in family if process.is_running()] == []
    notebook.run(2)
    expect(notebook.output(2)).to_contain_text("state aborted")


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart as nbclient executes it."""
    folder = tmp_path_factory.mktemp("quickstart")
    notebook = ROOT / "notebooks" / "quickstart.ipynb"
    command = [sys.executable, "-m", "lyceum_magic.cli", "demo", str(notebook)]
    subprocess.run([*command, "--output-dir", str(folder)], check=True, timeout=240)
    return folder / notebook.name


@pytest.mark.parametrize("kernel", [item.name for item in QUICKSTART_MATRIX])
def test_the_quickstart_shows_in_a_browser_what_it_shows_in_nbclient(
    jupyterlab: JupyterLab, chromium: Browser, quickstart: Path, kernel: str
) -> None:
    content = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    content.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    name = f"quickstart-{kernel}.ipynb"
    nbformat.write(content, jupyterlab.root / name)
    # The list at the notebook's end is of this user's runs: it must find none of other tests.
    shutil.rmtree(jupyterlab.state / "lyceum-magic" / "journal", ignore_errors=True)
    notebook = open_notebook(chromium, jupyterlab, name)
    count = sum(cell.cell_type == "code" for cell in content.cells)
    for index in range(count):
        notebook.run(index)
        notebook.expect_done(index)
    notebook.save()
    notebook.page.screenshot(path=SCREENSHOTS / f"quickstart-{kernel}.png")
    notebook.close()
    jupyterlab.shut_down_kernels()
    assert notebook.errors == []
    assert notebook.foreign_requests == []
    saved = jupyterlab.root / name
    assert texts(saved) == texts(quickstart)
    assert "widgets" not in nbformat.read(saved, as_version=4).metadata
