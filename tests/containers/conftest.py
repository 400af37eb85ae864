"""A real engine, and an image made without a registry; run by `tests/tools/docker-engine`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .registry import Registry, private_registry
from .runs import bucket, docker
from .stacks import commands

TOOLS = Path(__file__).resolve().parents[1] / "tools"

#: An image with Python and busybox.
IMAGE = "localhost/python:test"


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Require an engine: without one the tests are skipped with the reason; in CI they fail."""
    done = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    reason = os.environ.get("NO_ENGINE") or done.stderr.strip() or "no Docker engine answers"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def image(engine: None) -> Iterator[str]:
    """The name of an image with Python and busybox."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        environment = {**os.environ, "PYTHON": sys.executable}
        subprocess.run([TOOLS / "python-rootfs", root], env=environment, check=True)
        archive = Path(folder) / "root.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        changes = ["--change", "ENV PATH=/bin:/usr/bin", "--change", 'CMD ["/bin/sh"]']
        subprocess.run(
            ["docker", "import", *changes, archive, IMAGE], check=True, capture_output=True
        )
    yield IMAGE
    subprocess.run(["docker", "rmi", "--force", IMAGE], check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The state folder of a server that the test starts itself."""
    return tmp_path / "state"


@pytest.fixture(scope="module")
def _server(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    with served(tmp_path_factory.mktemp("served") / "state") as server:
        yield server


@pytest.fixture
def server(_server: ServedProcess) -> Iterator[ServedProcess]:
    """A server whose storage is empty."""
    yield _server
    for path in bucket(_server).glob("*"):
        path.unlink()


@pytest.fixture
def nothing_left(engine: None) -> Iterator[None]:
    """The test leaves no container, network, volume or command."""
    networks = docker("network", "ls", "--quiet")
    yield
    assert docker("ps", "--all", "--format", "{{.Names}}") == ""
    assert docker("volume", "ls", "--quiet") == ""
    assert docker("network", "ls", "--quiet") == networks
    eventually(lambda: not commands(), "no command goes on")


@pytest.fixture(scope="module")
def registry(image: str) -> Iterator[Registry]:
    """A private one, with `team/tool:1` in it."""
    with private_registry() as registry:
        registry.push(image, "team/tool:1")
        yield registry
