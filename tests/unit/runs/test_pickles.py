"""A run's values may be pickles only if its start says so."""

from __future__ import annotations

import asyncio

import pytest

import lyceum_magic
from lyceum_magic.exceptions import TransferError
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.protocol.limits import MARK_CHARACTERS, TAG_KEY
from lyceum_magic.protocol.states import State
from lyceum_magic.remote import frames
from lyceum_magic.remote.values import pack
from lyceum_magic.runs import workspace as workspace_module
from lyceum_magic.runs.workspace import Workspace
from tests.tools.wire_server import STREAM_SECRET, Request, WireServer, frame, stream
from tests.tools.workspaces import only

LIMIT_S = 60


@pytest.fixture(autouse=True)
def server(
    wire: WireServer, cloud: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that sends a function home, as its start asked."""
    monkeypatch.setattr(workspace_module, "_workspaces", only(workspace))

    async def send_value(request: Request, writer: asyncio.StreamWriter) -> None:
        (start,) = wire.asked("POST", paths.START_PYTHON)
        mark = start.json["metadata"][TAG_KEY][:MARK_CHARACTERS]
        data = pack(lambda: 7, "f", allow_pickle=True)
        lines = frames.encode(mark, "value", "1.0", {"name": "f"}, data, "")
        events = [*(Output(line.decode()) for line in lines), Finished(State.COMPLETED, 0)]
        await stream(*(frame(event, str(n)) for n, event in enumerate(events, 1)))(request, writer)

    wire.on("POST", f"{paths.stream('run')}/{STREAM_SECRET}", send_value)


def test_a_submitted_run_takes_the_pickles_that_were_asked_for() -> None:
    run = lyceum_magic.submit("f = lambda: 7", outputs="f", allow_pickle=True).result(LIMIT_S)
    assert run.values["f"]() == 7


def test_a_submitted_run_takes_no_pickle_that_was_not_asked_for() -> None:
    run = lyceum_magic.submit("f = lambda: 7", outputs="f").result(LIMIT_S)
    with pytest.raises(TransferError, match="it came as a pickle"):
        run.values["f"]


def test_a_run_that_is_attached_takes_no_pickle() -> None:
    """An attached run's program may be another user's, or an old one."""
    run = lyceum_magic.submit("f = lambda: 7", outputs="f", allow_pickle=True).result(LIMIT_S)
    run_id = run.id
    del run
    with pytest.raises(TransferError, match="it came as a pickle"):
        lyceum_magic.attach(run_id).values["f"]
