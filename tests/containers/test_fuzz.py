"""No request that the description allows, or nearly allows, makes the server fail.

schemathesis generates them from the served description: for each route its limits, one by one, and
a few random requests. `make test-all` goes on with sequences of requests for two minutes, and
`make fuzz` for ten.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served

#: Seconds for sequences; schemathesis needs the first minute of them to get ready.
FUZZ_S = int(os.environ.get("FUZZ_S", "120"))

CONFIG = """
headers = { Authorization = "Bearer ${LYCEUM_KEY}" }

[generation]
# What cannot be sent at all says nothing about the server.
allow-x00 = false

[checks]
# 501 answers for what the cloud alone has.
not_a_server_error.expected-statuses = ["2xx", "4xx", "501"]
"""

pytestmark = pytest.mark.timeout(FUZZ_S + 600)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServedProcess]:
    (tmp_path / "index").mkdir()
    index = (tmp_path / "index").as_uri()
    with served(tmp_path / "state", "--index-url", index) as server:
        yield server
        for run in server.client.get(paths.WORKLOADS).json():
            server.client.post(paths.abort(run["execution_id"]))


def test_no_request_makes_the_server_fail(server: ServedProcess, tmp_path: Path) -> None:
    told = schemathesis(server, tmp_path, "run", "--phases", "coverage,fuzzing", "-n", "2")
    generated = re.search(r"(\d+) generated", told)
    assert generated is not None, told
    assert int(generated[1]) > 1000, told


@pytest.mark.exhaustive
def test_no_sequence_of_requests_makes_the_server_fail(
    server: ServedProcess, tmp_path: Path
) -> None:
    schemathesis(server, tmp_path, "fuzz", "--max-time", str(FUZZ_S))


def schemathesis(server: ServedProcess, folder: Path, command: str, *options: str) -> str:
    """Let schemathesis ask the server, which must answer as it describes, and go on to live.

    Returns:
        The printed report.
    """
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", config, "--no-color",
            command, f"{server.base_url}{paths.OPENAPI}", *options,
            "--checks", "not_a_server_error,status_code_conformance",
            "--exclude-path", paths.SHUTDOWN, "--continue-on-failure",
        ],
        env={**os.environ, "LYCEUM_KEY": server.facts()["api_key"]},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert server.client.get(paths.HEALTH).json()["status"] == "healthy"
    return done.stdout
