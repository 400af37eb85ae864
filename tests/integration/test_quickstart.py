"""The quickstart as readers run it: the demo (nbclient) and papermill, over the kernel matrix."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from lyceum_magic.demo import throwaway_home
from tests.tools.environments import QUICKSTART_MATRIX, ROOT, Environment
from tests.tools.notebooks import texts

QUICKSTART = ROOT / "notebooks" / "quickstart.ipynb"
LIMIT_S = 240

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(LIMIT_S + 60)]


def run_demo(notebook: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return _run(["lyceum_magic.cli", "demo", str(notebook), "--output-dir", str(folder)])


def run_papermill(
    notebook: Path, executed: Path, kernel: Environment | None = None
) -> subprocess.CompletedProcess[str]:
    """Args: kernel: the environment whose kernel runs the notebook; this one's if None."""
    command = ["papermill", str(notebook), str(executed), "--no-progress-bar", "--cwd",
               str(executed.parent)]  # fmt: skip
    with throwaway_home() as variables:
        if kernel is not None:
            kernel.register(executed.parent / "jupyter")
            variables |= {"JUPYTER_PATH": str(executed.parent / "jupyter")}
            command += ["--kernel", kernel.name]
        return _run(command, variables)


def _run(
    command: list[str], variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], env=variables,
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart as `make demo` leaves it."""
    folder = tmp_path_factory.mktemp("demo")
    done = run_demo(QUICKSTART, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    # A warning of the kernel's would be here, since kernels share the demo's stderr.
    assert done.stderr == ""
    return folder / QUICKSTART.name


def test_the_demo_shows_what_the_prose_promises(demo):
    shown = texts(demo)
    stdout, _, summary = shown["train"]
    assert re.findall(r"^epoch (\d)", stdout, re.M) == list("12345678")
    assert "✓ completed" in summary
    assert "(LOCAL)" in summary
    stdout, stderr, summary = shown["fail"]
    assert stdout == "4.0\n"
    assert stderr.endswith("ZeroDivisionError: division by zero\n")
    assert "line 6, in <module>\n    print(mean([]))" in stderr
    assert "✗ failed" in summary
    assert "failed\nreturn code: 3" in shown["python"][0]
    assert "the time limit of 2 s ended the run" in shown["limit"][2]
    assert [line.split()[1] for line in shown["list"][2].splitlines()[1:]] == [
        "failed", "failed", "failed", "completed",
    ]  # fmt: skip


def test_the_executed_notebook_reads_without_a_kernel(demo):
    cells = nbformat.read(demo, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert {output.output_type for output in outputs} == {
        "stream", "display_data", "execute_result",
    }  # fmt: skip
    for output in outputs:
        assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
    (failing,) = [cell for cell in cells if cell.id == "fail"]
    assert [cell.id for cell in cells if _has_stderr(cell)] == [failing.id]
    page = demo.with_suffix(".html").read_text()
    assert "ZeroDivisionError" in page
    assert not re.search(r"""(src|href)=["']https?://""", page)


def _has_stderr(cell: Any) -> bool:
    return any(output.get("name") == "stderr" for output in cell.get("outputs", ()))


@pytest.mark.parametrize(
    "kernel", [None, *QUICKSTART_MATRIX], ids=lambda kernel: kernel and kernel.name
)
def test_papermill_shows_the_same_text(demo, tmp_path, kernel):
    if kernel is not None:
        kernel.ensure()
    executed = tmp_path / "executed.ipynb"
    done = run_papermill(QUICKSTART, executed, kernel)
    assert done.returncode == 0, done.stdout + done.stderr
    assert texts(executed) == texts(demo)


def test_a_failed_run_stops_papermill_and_the_demo(tmp_path):
    notebook = tmp_path / "failing.ipynb"
    cells = ["%load_ext lyceum_magic", "%%lyceum\nraise ValueError('x')", "print('went on')"]
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
        ),
        notebook,
    )
    executed = tmp_path / "executed.ipynb"
    assert run_papermill(notebook, executed).returncode != 0
    assert run_demo(notebook, tmp_path / "build").returncode == 1
    for path in (executed, tmp_path / "build" / notebook.name):
        content = nbformat.read(path, as_version=4)
        outputs = [output for cell in content.cells for output in cell.get("outputs", ())]
        (error,) = [output for output in outputs if output.output_type == "error"]
        assert error.ename == "RunFailed"
        assert "went on" not in str(outputs)
