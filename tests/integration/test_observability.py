"""The facts that a server process tells of its runs, as the official client shows them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .test_lyceum_cli import Lyceum, log_in

WORK = (
    "import time\nheld = bytearray(b'x' * (50 << 20))\nend = time.monotonic() + 2\n"
    "while time.monotonic() < end:\n    pass\nprint('worked')\n"
)


@pytest.fixture
def server(tmp_path: Path):
    with served(tmp_path / "state") as server:
        yield server


def values(server: ServedProcess, run_id: str, name: str) -> list[float]:
    reply = server.client.get(paths.metrics(run_id), params={"step": "1s"})
    assert reply.status_code == 200, reply.text
    return [point["value"] for point in reply.json()[name]]


def test_a_run_of_two_seconds_shows_in_the_official_client(
    server: ServedProcess, tmp_path: Path
) -> None:
    lyceum = Lyceum(tmp_path / "client")
    assert log_in(lyceum, server, server.facts()["api_key"]).returncode == 0
    started = server.start(WORK)
    run_id = started["execution_id"]
    server.client.post(started["streaming_url"])
    assert max(values(server, run_id, "systemRamUsedBytes")) > 50 << 20
    assert max(values(server, run_id, "systemCpuUsagePercent")) > 0
    assert values(server, run_id, "gpuUtilizationPercent") == []

    metrics = lyceum("jobs", "metrics", run_id)
    assert metrics.returncode == 0, metrics.stdout
    (cpu,) = [line for line in metrics.stdout.splitlines() if "CPU usage" in line]
    assert "%" in cpu
    (ram,) = [line for line in metrics.stdout.splitlines() if "RAM used" in line]
    assert "MB" in ram
    assert "GPU" not in metrics.stdout.replace("GPU and", "")

    logs = lyceum("jobs", "logs", run_id)
    assert (logs.returncode, "worked" in logs.stdout) == (0, True)
    history = lyceum("jobs", "history")
    assert history.returncode == 0
    assert "completed" in history.stdout
    status = lyceum("jobs", "status", run_id)
    assert status.returncode == 0
    assert "completed" in status.stdout


def test_samples_outlive_the_server(server: ServedProcess) -> None:
    started = server.start("import time\nprint('begun', flush=True)\ntime.sleep(600)")
    run_id = started["execution_id"]
    before = eventually(lambda: values(server, run_id, "systemRamUsedBytes"), "a sample")
    server.end(signal.SIGKILL)
    with served(server.folder) as again:
        after = eventually(
            lambda: (
                found
                if len(found := values(again, run_id, "systemRamUsedBytes")) > len(before)
                else None
            ),
            "a sample of the second server",
        )
        assert after[: len(before)][0] == before[0]
        again.client.post(paths.abort(run_id))


def test_the_limit_is_the_memory_that_a_run_could_have_had(tmp_path: Path) -> None:
    with served(tmp_path / "limited", "--memory-limit", "1G") as server:
        started = server.start(WORK)
        server.client.post(started["streaming_url"])
        total = values(server, started["execution_id"], "systemRamTotalBytes")
    assert set(total) == {1 << 30}
