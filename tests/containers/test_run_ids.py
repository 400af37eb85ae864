"""Everything that every user can read of containers and stacks holds no run's id."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import httpx
import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess

from .runs import HOLD, start_image
from .stacks import FOREVER, commands, service, start_stack

pytestmark = pytest.mark.usefixtures("image", "nothing_left")


def world_readable() -> Iterator[str]:
    """The command lines and cgroups of all processes."""
    for process in filter(str.isdecimal, os.listdir("/proc")):
        for name in ("cmdline", "cgroup", "comm"):
            with contextlib.suppress(OSError), open(f"/proc/{process}/{name}", "rb") as file:
                yield file.read().decode(errors="replace")


def test_a_stack_that_is_still_being_started(server: ServedProcess) -> None:
    health = {"test": ["CMD", "false"], "interval": "1s", "retries": 1000}
    services = {
        "database": service(
            f"echo here; {FOREVER}",
            healthcheck=health,
            ports=["127.0.0.1:0:5432"],
            volumes=["./data:/data"],
        ),
        "job": service("exit 0", depends_on={"database": {"condition": "service_healthy"}}),
    }
    run = start_stack(server, services)
    run.said("database | here")
    assert commands()
    seen = "\n".join(world_readable())
    assert run.folder.name in seen
    assert run.id not in seen
    server.client.post(paths.abort(run.id))
    assert run.ended()["status"] == "aborted"


def test_an_image(server: ServedProcess, image: str) -> None:
    run = start_image(server, image, "sh", "-c", f"echo here; {HOLD}")
    run.said("here")
    assert run.id not in "\n".join(world_readable())
    run.let_go()
    assert run.ended()["status"] == "completed"


def test_the_output_of_an_ended_stack_is_read_by_its_id_alone(server: ServedProcess) -> None:
    """Ask as `lyceum compose logs` does, which sends no key."""
    run = start_stack(server, {"job": service("echo kept")})
    assert run.ended()["status"] == "completed"
    reply = httpx.post(f"{server.base_url}{paths.stream(run.id)}", trust_env=False)
    assert "job | kept" in reply.text
