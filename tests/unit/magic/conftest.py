"""A scripted cloud, and the process's workspace with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.protocol.states import State
from lyceum_magic.runs import workspace as workspace_module
from lyceum_magic.runs.workspace import Workspace
from tests.tools.wire_server import (
    STREAM_SECRET,
    WireServer,
    frame,
    json_answer,
    started,
    stream,
    wire_thread,
)
from tests.tools.workspaces import only


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    """A scripted server, which is the cloud of this process; a run there prints a line."""
    with wire_thread() as server, monkeypatch.context() as patch:
        patch.setenv("LYCEUM_API_KEY", "lk_key")
        patch.setenv("LYCEUM_BASE_URL", server.base_url)
        server.on("GET", paths.AVAILABLE_HARDWARE, json_answer({}))
        for path in paths.STARTS.values():
            server.on("POST", path, started(server))
        ends(server, Finished(State.COMPLETED, 0))
        workspace = Workspace()
        patch.setattr(workspace_module, "_workspaces", only(workspace))
        try:
            yield server
        finally:
            workspace.close()


def ends(wire: WireServer, end: Finished) -> None:
    """Let the next run print a line and end like this."""
    pieces = [frame(Output("hello\n"), "1"), frame(end, "2")]
    wire.on("POST", f"{paths.stream('run')}/{STREAM_SECRET}", stream(*pieces))


@pytest.fixture(autouse=True)
def no_shell_is_left() -> Iterator[None]:
    """IPython makes a shell where something is displayed; other tests are those of scripts."""
    from IPython.core.interactiveshell import InteractiveShell

    yield
    if InteractiveShell.initialized():
        InteractiveShell.instance().history_manager.end_session()
        InteractiveShell.clear_instance()
