"""The notebooks as readers run them: the demo (nbclient) and papermill, over the kernel matrix."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from lyceum_magic.embedded.demo import throwaway_home
from tests.tools.environments import QUICKSTART_MATRIX, ROOT, Environment
from tests.tools.notebooks import texts

QUICKSTART = ROOT / "notebooks" / "quickstart.ipynb"
FIGURES = ROOT / "notebooks" / "figures_and_values.ipynb"
CALLBACKS = ROOT / "notebooks" / "callbacks.ipynb"
SESSION = ROOT / "notebooks" / "session.ipynb"
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
    stdout, _, summary, value = shown["train"]
    assert re.findall(r"^epoch (\d)", stdout, re.M) == list("12345678")
    assert value == re.findall(r"accuracy (\S+)", stdout)[-1].rstrip("0")
    assert "✓ completed" in summary
    assert "(LOCAL)" in summary
    stdout, stderr, summary = shown["fail"]
    assert stdout == "4.0\n"
    assert stderr.endswith("ZeroDivisionError: division by zero\n")
    assert "line 6, in <module>\n    print(mean([]))" in stderr
    assert "✗ failed" in summary
    assert "failed\nreturn code: 3" in shown["python"][0]
    assert "the time limit of 2 s ended the run" in shown["limit"][2]
    _, _, *rows = shown["list"][2].splitlines()  # what is listed, and the names of the columns
    assert [row.split()[1] for row in rows] == [
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


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second notebook as papermill leaves it."""
    executed = tmp_path_factory.mktemp("figures") / FIGURES.name
    done = run_papermill(FIGURES, executed)
    assert done.returncode == 0, done.stdout + done.stderr
    return executed


def test_figures_tables_and_values_are_there_without_a_kernel(figures):
    cells = {cell.id: cell for cell in nbformat.read(figures, as_version=4).cells}
    shown = [output.data for output in cells["there"].outputs if "data" in output]
    summary, figure, table = shown
    assert "✓ completed" in summary["text/plain"]
    assert figure["text/plain"] == "<Figure size 700x260 with 1 Axes>"
    assert figure["image/png"].startswith("iVBORw0KGgo")
    assert "<table" in table["text/html"]
    assert re.fullmatch(r"\{'north': [\d.]+, 'south': [\d.]+\}", _result(cells["back"]))
    assert texts(figures)["reports"][0].count("kWh a square metre") == 2
    assert "ZeroDivisionError: division by zero" in texts(figures)["fail"][1]
    assert "best x: 3.00" in str(cells["detach"].outputs)
    assert _result(cells["result"]) == "3.0"


def _result(cell: Any) -> str:
    (output,) = cell.outputs
    return str(output.data["text/plain"])


def test_their_page_has_every_picture(figures):
    page = figures.with_suffix(".html")
    command = ["nbconvert", "--to", "html", str(figures), "--output", str(page)]
    done = _run(["jupyter", *command])
    assert done.returncode == 0, done.stderr
    html = page.read_text()
    assert nbformat.read(figures, as_version=4).cells[5].outputs[1].data["image/png"][:500] in html
    assert "completed" in html
    assert "lyceum:" not in html  # no frame


def test_one_run_tells_two_systems_of_which_one_fails_twice(tmp_path):
    done = run_demo(CALLBACKS, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = texts(tmp_path / CALLBACKS.name)
    assert "connection refused" in shown["try"][-1]
    assert "COMPLETED" in shown["wait"][-1]
    assert shown["notes"][-1] == """["training has completed, and said 'loss 0'"]"""
    head, *rows = shown["log"][-1].splitlines()
    assert head.split("  ")[-2:] == ["reason", "next try"]
    (waiting,) = [row for row in rows if "503 Service Unavailable" in row]
    assert re.search(r"  pending  1  .*  in N s$", waiting)
    assert shown["fails"][-1] == "[503, 503]"
    assert shown["told"][-1] == "(204, ['training: completed'])"
    assert len(shown["after"][-1].splitlines()) == 3
    # Where callbacks go is shown by scheme and host alone.
    assert "/ended" not in str([shown[cell] for cell in ("log", "redeliver", "after")])


def test_a_session_goes_from_machine_to_machine_and_back_in_time(tmp_path):
    done = run_demo(SESSION, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = texts(tmp_path / SESSION.name)
    assert "on gpu.a100 (LOCAL)" in shown["train"][2]
    assert "session digits · cell 3" in shown["plot"][2]
    assert shown["plot"][3] == "<Figure size 900x300 with 2 Axes>"
    mistaken, right = (float(shown[cell][-1]) for cell in ("mistake", "right"))
    assert mistaken < 0.5 < 0.9 < right
    assert "Session digits is at cell 3" in str(shown["back"])
    assert re.search(r"^network +\S*Network", str(shown["restart"][2]), re.M)
    assert shown["go-on"][0].startswith("epoch 30: ")
    assert shown["home"][-1] == "True"
    assert shown["process"][0] == "30 epochs; the network is a Network\n\n"
