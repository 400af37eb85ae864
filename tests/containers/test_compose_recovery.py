"""Stacks where a server, a supervisor or a container goes away."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .runs import HOLD, docker, error_of
from .stacks import FOREVER, acceptance_stack, commands, lines, service
from .stacks import start_stack as start

pytestmark = pytest.mark.usefixtures("image", "nothing_left")


def test_a_stack_survives_its_server_and_nothing_is_lost_or_doubled(folder: Path) -> None:
    count = "for number in $(seq 20); do echo $number; sleep 0.05; done"
    with served(folder) as server:
        run = start(server, acceptance_stack(f"{count}; {HOLD}; {count}; exit 7"))
        run.said("job | 5\n")
        server.end(signal.SIGKILL)
    with served(folder) as server:
        run = run.on(server)
        run.said("job | 20\n")
        run.let_go()
        record = run.ended()
    assert (record["status"], record["return_code"]) == ("failed", 7)
    assert lines(record, "job") == [str(number) for number in range(1, 21)] * 2


def test_its_end_is_found_where_no_server_saw_it(folder: Path) -> None:
    with served(folder) as server:
        run = start(server, acceptance_stack(f"echo working; {HOLD}; exit 7"))
        run.said("job | working")
        server.end(signal.SIGKILL)
    run.let_go()
    eventually((run.folder / "exit.json").exists, "the supervisor sees the end")
    with served(folder) as server:
        record = run.on(server).ended()
    assert (record["status"], record["return_code"]) == ("failed", 7)


def test_a_supervisor_that_dies_takes_its_stack_with_it(server: ServedProcess) -> None:
    run = start(server, acceptance_stack(f"echo working; {FOREVER}"))
    run.said("job | working")
    facts = json.loads((run.folder / "supervisor.json").read_text())
    os.kill(facts["pid"], signal.SIGKILL)
    assert run.ended()["status"] == "system_failure"


def test_a_supervisor_that_dies_takes_its_command_with_it(server: ServedProcess) -> None:
    health = {"test": ["CMD", "false"], "interval": "1s", "retries": 1000}
    services = {
        "database": service(f"echo here; {FOREVER}", healthcheck=health),
        "job": service("exit 0", depends_on={"database": {"condition": "service_healthy"}}),
    }
    run = start(server, services)
    run.said("database | here")
    assert commands()
    facts = json.loads((run.folder / "supervisor.json").read_text())
    os.kill(facts["pid"], signal.SIGKILL)
    assert run.ended()["status"] == "system_failure"


def test_a_new_server_sweeps_up_what_nobody_supervises(folder: Path) -> None:
    services = {"a": service(f"echo ready; {FOREVER}", volumes=["kept:/kept"])}
    with served(folder) as server:
        run = start(server, services, top={"volumes": {"kept": {}}})
        run.said("ready")
        server.end(signal.SIGKILL)
    # Killed, but as if it had written the end down: no server will look for a lost run.
    facts = json.loads((run.folder / "supervisor.json").read_text())
    now = time.time()  # a run that ended long ago would not be kept
    end = {"reason": "exited", "return_code": 0, "error": "", "started_at": now, "finished_at": now}
    os.kill(facts["pid"], signal.SIGKILL)
    (run.folder / "exit.json").write_text(json.dumps(end))
    with served(folder) as server:
        assert run.on(server).ended()["status"] == "completed"
        eventually(lambda: not docker("ps", "--all", "--quiet"), "its containers are removed")
        eventually(lambda: not docker("volume", "ls", "--quiet"), "its volume is removed")


def test_a_container_that_somebody_else_removes_ends_the_run(server: ServedProcess) -> None:
    run = start(server, {"a": service(f"echo ready; {FOREVER}"), "b": service(FOREVER)})
    run.said("a | ready")
    docker("rm", "--force", f"lyceum-{run.id}-a-1")
    record = run.ended()
    assert record["status"] == "system_failure"
    assert "removed from the engine by hand" in error_of(record)
