"""Image runs where a server, a supervisor, a container or the disk goes away."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from lyceum_magic.protocol.events import Output
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .runs import HOLD, docker, error_of
from .runs import start_image as start

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_output_survives_the_server_whole(folder: Path, image: str) -> None:
    count = 3000
    program = f"""
import os, time
for number in range({count}):
    print(number, flush=True)
    time.sleep(0.001)
    while number == {count // 2} and not os.path.exists("/mnt/s3/go"):
        time.sleep(0.01)
"""
    with served(folder) as server:
        run = start(server, image, "python3", "-c", program)
        run.said("100\n")
        server.end(signal.SIGKILL)
    with served(folder) as server:
        run = run.on(server)
        run.said("200\n")
        assert run.record()["status"] == "running"
        server.end(signal.SIGKILL)
    with served(folder) as server:
        run = run.on(server)
        run.let_go()
        text = "".join(event.text for event in run.events() if isinstance(event, Output))
        record = run.ended()
    assert text.splitlines() == [str(number) for number in range(count)]
    assert (record["status"], record["return_code"]) == ("completed", 0)


def test_a_run_that_ended_without_a_server_is_found_with_its_end(folder: Path, image: str) -> None:
    with served(folder) as server:
        run = start(server, image, "sh", "-c", f"echo ready; {HOLD}; echo last; exit 4")
        run.said("ready")
        server.end(signal.SIGKILL)
        run.let_go()
        eventually((run.folder / "exit.json").exists, "the run ends")
    with served(folder) as server:
        record = run.on(server).ended()
    assert (record["return_code"], record["stdout"]) == (4, "ready\nlast\n")


def test_a_supervisor_that_dies_takes_its_container_with_it(
    server: ServedProcess, image: str
) -> None:
    run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
    run.said("ready")
    os.kill(json.loads((run.folder / "supervisor.json").read_text())["pid"], signal.SIGKILL)
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("system_failure", None)
    assert record["stdout"] == "ready\n"


def test_a_new_server_sweeps_up_what_nobody_supervises(folder: Path, image: str) -> None:
    with served(folder) as server:
        live = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
        live.said("ready")
        server.end(signal.SIGKILL)
    stray = str(uuid.uuid4())
    labels = [
        *("--label", f"lyceum.state={folder}", "--label", f"lyceum.run={stray}"),
        *("--label", "lyceum.kind=image"),
        # As an image has it that `docker compose build` made.
        *("--label", "com.docker.compose.project=team"),
    ]
    docker("run", "--detach", "--name", f"lyceum-{stray}", *labels, image, "sleep", "1000")
    docker("run", "--detach", "--name", "foreign", image, "sleep", "1000")
    with served(folder) as server:
        names = {"foreign", live.container}
        eventually(
            lambda: set(docker("ps", "-a", "--format", "{{.Names}}").split()) == names,
            "the stray container is removed",
        )
        live = live.on(server)
        live.let_go()
        assert live.ended()["status"] == "completed"
    docker("rm", "--force", "foreign")


def test_a_container_that_somebody_else_removes_ends_its_run(
    server: ServedProcess, image: str
) -> None:
    run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
    run.said("ready")
    docker("rm", "--force", run.container)
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("failed", 137)
    # It may still be there for a moment: then it was killed, else removed.
    assert re.search("killed by signal 9|was removed, and not by this server", error_of(record))


def test_a_full_disk_ends_a_run_and_the_end_is_still_written(folder: Path, image: str) -> None:
    (folder / "runs").mkdir(parents=True)
    small = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder / "runs")]
    subprocess.run(small, check=True)  # in the mount namespace of the tests' engine
    try:
        with served(folder) as server:
            run = start(server, image, "python3", "-c", "while True: print('x' * 1000)")
            record = run.ended()
        assert json.loads((run.folder / "exit.json").read_text())["reason"] == "lost"
    finally:
        subprocess.run(["umount", str(folder / "runs")], check=True)
    assert record["status"] == "system_failure"
    assert error_of(record).startswith("the run's output could not be written: the disk of ")
    assert error_of(record).endswith(" is full: make room on it")
