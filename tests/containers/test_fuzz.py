"""No request that the description allows, or nearly allows, makes the server fail.

schemathesis generates them from the served description. `make test-all` gives it two minutes, and
`make fuzz` ten.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served

FUZZ_S = int(os.environ.get("FUZZ_S", "20"))

CONFIG = """
headers = { Authorization = "Bearer ${LYCEUM_KEY}" }

[generation]
# What cannot be sent at all says nothing about the server.
allow-x00 = false
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
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", config, "--no-color",
            "fuzz", f"{server.base_url}{paths.OPENAPI}", "--max-time", str(FUZZ_S),
            "--checks", "not_a_server_error,status_code_conformance",
            "--exclude-path", paths.SHUTDOWN, "--continue-on-failure",
        ],
        env={**os.environ, "LYCEUM_KEY": server.facts()["api_key"]},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert server.client.get(paths.HEALTH).json()["status"] == "healthy"
