"""Runs that go on after their cell, their kernel and their page."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.tools.embedded import end_server, server_facts, server_process
from tests.tools.kernel import Kernel, running_kernel
from tests.tools.waiting import eventually

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One server for all tests of this file."""
    folder = tmp_path_factory.mktemp("detached")
    yield folder
    end_server(folder)


@pytest.fixture(scope="module")
def kernel(state: Path) -> Iterator[Kernel]:
    with running_kernel(env={"LYCEUM_MAGIC_HOME": str(state)}) as kernel:
        yield kernel


def test_a_detached_cell_returns_at_once_and_its_outputs_follow(
    kernel: Kernel, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    cell = kernel.run(
        f"%%lyceum --detach --as job\nprint('begun')\nopen({str(gate)!r}).read()\n"
        "display('a display')\nprint('behind')\n'the value'"
    )
    assert (cell.stdout, cell.error) == ("", None)
    kernel.pump(lambda: "begun" in kernel.shown)
    assert "running" in kernel.shown
    assert "detached" in kernel.shown
    gate.write_text("")
    # Each block of outputs is brought up to date by itself.
    kernel.pump(lambda: "completed" in kernel.shown and "begun\nbehind\n" in kernel.shown)
    assert "'a display'\n'the value'" in kernel.shown
    assert kernel.value("job.result().text") == "'begun\\nbehind\\n'"


def test_a_detached_cell_says_where_its_results_will_be(kernel: Kernel) -> None:
    cell = kernel.run(
        "%%lyceum --detach --as job -o c,d --save *.txt\nc, d = 1, 2\nopen('note.txt', 'w').close()"
    )
    assert (cell.stdout, cell.error) == (
        "[lyceum] job.values will have c, d\n[lyceum] job.save_files() will write *.txt\n",
        None,
    )
    assert kernel.value("(job.wait(30), dict(job.values), list(job.files))[1:]") == (
        "({'c': 1, 'd': 2}, ['note.txt'])"
    )


def test_a_detached_run_that_fails_says_so_and_stops_no_notebook(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum --detach\n1 / 0")
    assert cell.error is None
    kernel.pump(lambda: "failed" in kernel.shown)
    failed = kernel.run("_run.result()")
    assert failed.error is not None
    assert failed.error["ename"] == "RunFailed"


def test_a_start_that_is_refused_stops_the_detached_cell(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum --detach -m gpu.unheard\n1")
    assert cell.error is not None
    assert "There is no machine 'gpu.unheard'" in cell.error["evalue"]


def test_an_interrupt_leaves_a_detached_run_alone(kernel: Kernel, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    kernel.run(f"%%lyceum --detach\nopen({str(gate)!r}).read()\nprint('alive')")
    other = kernel.start("import time\nprint('here')\ntime.sleep(600)")
    other.until(lambda cell: "here" in cell.stdout)
    kernel.interrupt()
    assert other.done().error is not None
    gate.write_text("")
    kernel.pump(lambda: "alive" in kernel.shown)
    assert kernel.value("_run.wait().value") == "'completed'"


def test_a_flood_of_a_detached_run_is_bounded(kernel: Kernel) -> None:
    kernel.run(
        "%%lyceum --detach\nfor n in range(30_000): print(n)\nfor n in range(14): display(n)"
    )
    kernel.pump(lambda: "29999" in kernel.shown and "completed" in kernel.shown)
    kernel.pump(lambda: "4 more displays" in kernel.shown)
    text = next(d["text/plain"] for d in kernel.displays.values() if "29999" in d["text/plain"])
    assert len(text) < 25_000
    assert text.startswith("[lyceum] 29,8")
    assert "lines above" in text.split("\n")[0]
    assert text.endswith("29998\n29999\n")
    assert kernel.value("_run.text.count(chr(10))") == "30000"


def test_a_kernel_ends_no_run_of_another_one_by_chance(kernel: Kernel, state: Path) -> None:
    kernel.run("%%lyceum --detach --as important\nimport time\ntime.sleep(600)")
    with running_kernel(env={"LYCEUM_MAGIC_HOME": str(state)}) as other:
        for command in ("abort", "stop"):
            refused = other.run(f"%lyceum {command} last")
            assert refused.error is not None
            assert "This notebook has started no run" in refused.error["evalue"]
        assert "running" in other.run("%lyceum status last").result
    ended = kernel.run("%lyceum abort last")
    assert "aborted" in ended.result
    assert kernel.value("important.state.value") == "'aborted'"


def test_two_kernels_follow_a_run_whose_server_ends_and_starts_again(
    own_machine: Path, tmp_path: Path
) -> None:
    """The server's key changes with it, which neither kernel is told."""
    gate = tmp_path / "gate"
    code = f"import os, time\nprint('begun')\nwhile not os.path.exists({str(gate)!r}): "
    with running_kernel() as first, running_kernel() as second:
        cell = first.start(f"%%lyceum --as job\n{code}time.sleep(.02)\nprint('end')\n6 * 7")
        cell.until(lambda cell: "begun" in cell.stdout)
        watcher = second.start("%lyceum attach last")
        watcher.until(lambda cell: "begun" in cell.stdout)
        for _ in range(2):
            key = server_facts(own_machine)["api_key"]
            process = server_process(own_machine)
            assert process is not None
            process.terminate()
            process.wait()
            eventually(lambda: server_process(own_machine), "a server again")
            eventually(lambda key=key: server_facts(own_machine)["api_key"] != key, "another key")
        gate.touch()
        assert cell.done().stdout == watcher.done().stdout == "begun\nend\n"
        assert "42" in cell.summary
        assert first.run("%%lyceum\nprint('next')").stdout == "next\n"
        assert "completed" in second.run("%lyceum status last").result


PICTURE = """
import time, os
print("run", {n})
display({{"image/png": "iVBORw0KGgo{n}", "text/plain": "figure {n}"}}, raw=True)
while not os.path.exists({gate!r}):
    print("tick {n}")
    time.sleep(0.05)
print("end of", {n})
"result {n}"
"""


def test_twenty_detached_runs_outlive_their_kernel(state: Path, tmp_path: Path) -> None:
    """Killed in the middle, then each attached to from another kernel: complete, and its own."""
    gate = tmp_path / "gate"
    code = (
        "import lyceum_magic\n"
        f"PICTURE = {PICTURE!r}\n"
        "for n in range(20):\n"
        "    get_ipython().run_cell_magic('lyceum', f'--detach --name run{n}', "
        f"PICTURE.format(n=n, gate={str(gate)!r}))\n"
    )
    with running_kernel(env={"LYCEUM_MAGIC_HOME": str(state)}) as first:
        cell = first.run(code)
        assert cell.error is None, cell
        first.pump(lambda: "tick" in first.shown)
        os.kill(first.pid, signal.SIGKILL)
    gate.write_text("")
    with running_kernel(env={"LYCEUM_MAGIC_HOME": str(state)}) as second:
        second.run("import lyceum_magic, json")
        found = json.loads(
            second.run(
                "print(json.dumps({e.name: e.run_id for e in lyceum_magic.runs() "
                "if e.name.startswith('run')}))"
            ).stdout
        )
        assert len(found) == 20
        for n in range(20):
            cell = second.run(f"%lyceum attach {found[f'run{n}']}")
            assert cell.error is None, cell
            lines = cell.stdout.splitlines()
            assert lines[0] == f"run {n}"
            assert lines[-1] == f"end of {n}"
            assert set(lines[1:-1]) <= {f"tick {n}"}
            bundles = [
                message["content"]["data"]
                for message in cell.messages
                if message["msg_type"] == "display_data"
            ]
            assert {"image/png": f"iVBORw0KGgo{n}", "text/plain": f"figure {n}"} in bundles
            assert bundles[-1] == {"text/plain": f"'result {n}'"}
            outputs = second.value("[o['output_type'] for o in _run.outputs]")
            assert outputs.count("display_data") == 2


def executed(folder: Path, *cells: str) -> list[list[str]]:
    """The texts of each cell's outputs, as nbclient saves them."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in ("%load_ext lyceum_magic", *cells)]
    )
    NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    return [
        [str(output.data["text/plain"]) if "data" in output else output.text for output in outputs]
        for outputs in (cell.outputs for cell in notebook.cells[1:])
    ]


# The kernel's client warns that loopback is not encrypted, and zmq that it chose a loop.
unlistened = pytest.mark.filterwarnings("ignore")


@unlistened
def test_a_notebook_that_ends_before_its_detached_run_has_no_empty_output(tmp_path: Path) -> None:
    ((row, text),) = executed(tmp_path, "%%lyceum --detach\nopen('gate').read()")
    assert "detached: %lyceum attach" in row
    assert text.startswith("[lyceum] its outputs are shown when a later cell ends after it")


@unlistened
def test_a_detached_run_that_ends_in_time_is_whole_in_the_file(tmp_path: Path) -> None:
    (row, text), (state, first, second) = executed(
        tmp_path,
        "%%lyceum --detach\nprint('over')\ndisplay('a figure')\ndisplay('another')",
        "_run.wait().value",
    )
    assert "completed" in row
    assert (text, state, first, second) == ("over\n", "'completed'", "'a figure'", "'another'")


@unlistened
def test_a_detached_run_that_is_silent_says_so_in_the_file(tmp_path: Path) -> None:
    (row, text), _ = executed(tmp_path, "%%lyceum --detach\npass", "_run.wait().value")
    assert "completed" in row
    assert text == "[lyceum] it has printed nothing\n"
