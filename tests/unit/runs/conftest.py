"""A workspace of a test's own, closed after it, and a scripted cloud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lyceum_magic.client import stream as stream_module
from lyceum_magic.client import transport
from lyceum_magic.protocol import paths
from lyceum_magic.runs import ending as ending_module
from lyceum_magic.runs import starting as starting_module
from lyceum_magic.runs import waiting as waiting_module
from lyceum_magic.runs.workspace import Workspace
from tests.tools.wire_server import WireServer, json_answer, started, wire_thread


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    workspace = Workspace()
    yield workspace
    workspace.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S", "FIRST_POLL_S"):
        monkeypatch.setattr(stream_module, name, 0.01)
    for module in (ending_module, waiting_module):
        monkeypatch.setattr(module, "CONFIRM_S", 0.05)
    monkeypatch.setattr(starting_module, "LOOK_UP_PAUSES_S", (0.0, 0.01))
    monkeypatch.setattr(transport.RETRY_READS, "backoff_factor", 0.001)


@pytest.fixture
def wire() -> Iterator[WireServer]:
    """A scripted server."""
    with wire_thread() as server:
        yield server


@pytest.fixture
def cloud(wire: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted server is the one that the environment names."""
    monkeypatch.setenv("LYCEUM_API_KEY", "lk_key")
    monkeypatch.setenv("LYCEUM_BASE_URL", wire.base_url)
    wire.on("GET", paths.AVAILABLE_HARDWARE, json_answer({"available_hardware_profiles": []}))
    wire.on("POST", paths.START_PYTHON, started(wire))
