"""Cells in images and stacks, in a real kernel: detached, attached, interrupted, found in logs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.embedded import end_server
from tests.tools.kernel import Kernel, running_kernel

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(400)]

STACK = """
services:
  job:
    image: {image}
    command: [sh, -c, "echo begun; exec sleep 300"]
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[Kernel]:
    home = tmp_path_factory.mktemp("home")
    state = home / "lyceum"
    with running_kernel({"HOME": str(home), "LYCEUM_MAGIC_HOME": str(state)}) as kernel:
        yield kernel
    end_server(state)


def containers() -> list[str]:
    command = ["docker", "ps", "--all", "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_a_failed_image_fails_its_cell_with_its_exit_code(kernel: Kernel, image: str) -> None:
    cell = kernel.run(f"%%lyceum_image {image}\necho out\necho err >&2\nexit 7")
    assert (cell.stdout, cell.stderr) == ("out\n", "err\n")
    assert cell.error is not None
    assert cell.error["ename"] == "RunFailed"
    assert "exit code 7" in "".join(cell.error["traceback"])
    assert kernel.value("(_run.return_code, _run.state.value)") == "(7, 'failed')"


def test_python_in_an_image_raises_in_its_own_lines(kernel: Kernel, image: str) -> None:
    cell = kernel.run(f"%%lyceum_image {image} --python\nx = 0\n1 / x")
    assert cell.error is not None
    trace = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.error["traceback"]))
    assert "----> 3 1 / x" in trace
    assert trace.endswith("ZeroDivisionError: division by zero")


def test_an_interrupt_ends_an_image_and_leaves_nothing(kernel: Kernel, image: str) -> None:
    cell = kernel.start(f"%%lyceum_image {image}\necho begun\nexec sleep 300")
    cell.until(lambda cell: "begun" in cell.stdout)
    kernel.interrupt()
    cell.done()
    assert cell.error is not None
    assert cell.error["ename"] == "RunAborted"
    assert "■ aborted" in cell.summary
    assert containers() == []


def test_a_detached_stack_goes_on_and_is_attached_and_stopped(kernel: Kernel, image: str) -> None:
    started = kernel.run("%%lyceum_compose --detach --as stack" + STACK.format(image=image))
    assert started.error is None, started
    kernel.pump(lambda: "job | begun" in kernel.shown)
    attached = kernel.start("%lyceum attach last")
    attached.until(lambda cell: "job | begun" in cell.stdout)
    kernel.interrupt()
    attached.done()
    assert "■ aborted" in attached.summary
    assert kernel.value("stack.state.value") == "'aborted'"
    assert kernel.run("%lyceum logs last").stdout == "job | begun\n"
    assert containers() == []


def test_the_row_of_a_stack_names_what_it_waits_for(kernel: Kernel, image: str) -> None:
    cell = kernel.start("%%lyceum_compose" + STACK.format(image=image))
    cell.until(lambda cell: "waiting for `job` to end" in cell.summary)
    cell.until(lambda cell: "job | begun" in cell.stdout)
    assert "waiting for `job` to end" in cell.summary
    kernel.interrupt()
    cell.done()
    assert "waiting" not in cell.summary


def test_a_script_s_program_saves_its_work_when_it_is_stopped(kernel: Kernel, image: str) -> None:
    program = "trap 'echo saved; exit 0' TERM; echo training; while :; do sleep 0.1; done"
    kernel.run(
        f'%%lyceum_image {image} --detach\necho first\nsh -c "{program}"\necho never',
    )
    kernel.pump(lambda: "training" in kernel.shown)
    kernel.run("%lyceum stop last")
    assert kernel.run("%lyceum logs last").stdout == "first\ntraining\nsaved\n"


def test_a_file_that_no_engine_takes_is_refused_in_one_sentence(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum_compose\nservices:\n  a:\n    build: .\n")
    assert cell.error is not None
    (line,) = cell.error["traceback"]
    assert line.startswith(
        "RequestRefused: The Compose file (line 4) uses `build` in service `a`, "
    )


def test_a_registry_that_does_not_answer_is_named(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum_image localhost:1/none:here\nls")
    assert cell.error is not None
    assert "localhost:1" in "".join(cell.error["traceback"])


def test_without_an_engine_the_server_says_how_to_get_one(tmp_path: Path, image: str) -> None:
    state = tmp_path / "lyceum"
    variables = {
        **os.environ,
        "HOME": str(tmp_path),
        "LYCEUM_MAGIC_HOME": str(state),
        "DOCKER_HOST": f"unix://{tmp_path}/none.sock",
    }
    try:
        with running_kernel(variables) as kernel:
            for cell in (
                kernel.run(f"%%lyceum_image {image}\nls"),
                kernel.run("%%lyceum_compose" + STACK.format(image=image)),
            ):
                assert cell.error is not None
                (line,) = cell.error["traceback"]
                assert line.startswith("ServiceUnavailable: No container engine answers")
                assert "Docker" in line
                assert "failed with status" not in line
    finally:
        end_server(state)
