"""A callback is a hint: the server's record decides, whatever the stream does."""

from __future__ import annotations

import asyncio
import gc
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lyceum_magic.exceptions import ConfigError, LyceumError, RunTimedOut
from lyceum_magic.inbox.store import InboxStore
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.callbacks import HERE
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.runs import following as following_module
from lyceum_magic.runs import waiting as waiting_module
from lyceum_magic.runs.run import Run
from lyceum_magic.runs.workspace import Workspace
from tests.tools.waiting import eventually
from tests.tools.wire_server import (
    STREAM_SECRET,
    Request,
    WireServer,
    frame,
    json_answer,
    record,
    refusal,
    started,
    stream,
)

pytestmark = pytest.mark.usefixtures("cloud")

SECRET_PATH = f"{paths.stream('run')}/{STREAM_SECRET}"
RECORD = paths.record("run")
REQUEST = StartPython(code="1", execution_type="cpu", user_callback_urls=[HERE])
LIMIT_S = 60


@pytest.fixture(autouse=True)
def shorter_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "FIRST_HINT_PAUSE_S", 0.01)
    monkeypatch.setattr(following_module, "LONGEST_HINT_PAUSE_S", 0.02)
    monkeypatch.setattr(following_module, "STREAM_LIMIT_S", 0.05)
    for module in (following_module, waiting_module):
        monkeypatch.setattr(module, "CALLBACK_GRACE_S", 0.05)


def silent(wire: WireServer) -> None:
    """The stream says something, and then nothing more."""
    pieces = [frame(Output("a\n"), "1")]
    wire.on("POST", SECRET_PATH, stream(*pieces, hold=asyncio.Event()))


def submit(workspace: Workspace) -> Run:
    return workspace.submit(workspace.client(), REQUEST)


def address(request: Request) -> str:
    [url] = request.json["user_callback_urls"]
    assert url.startswith("http://127.0.0.1:")
    return str(url)


def call_back(url: str, status: str) -> None:
    body = json.dumps({"execution_id": "run", "status": status, "metadata": {"k": "v"}})
    request = urllib.request.Request(url, data=body.encode(), method="POST")
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        assert answer.status == 204


def tell(wire: WireServer, status: str = "completed") -> None:
    call_back(address(wire.asked("POST", paths.START_PYTHON)[0]), status)


def test_the_end_is_known_though_the_stream_is_silent(
    wire: WireServer, workspace: Workspace
) -> None:
    silent(wire)
    ended = record("run", "failed", return_code=3, system_errors=["it broke"])
    wire.on("GET", RECORD, json_answer(ended))
    told: list[Run] = []
    workspace.hooks.add(told.append)
    run = submit(workspace)
    tell(wire, "completed")  # it may say what it likes
    assert run.wait_callback(LIMIT_S) is State.FAILED
    assert (run.return_code, run.reason) == (3, "it broke")
    assert run.callback is not None
    assert run.callback["status"] == "completed"
    assert told == [run]
    assert workspace.history.entries()[0].state == "failed"


def test_a_callbacks_end_is_read_as_the_streams_would_be(
    wire: WireServer, workspace: Workspace
) -> None:
    silent(wire)
    wire.on("GET", RECORD, json_answer({"status": "timeout", "return_code": "137"}))
    run = submit(workspace)
    tell(wire)
    assert run.wait_callback(LIMIT_S) is State.FAILED
    assert (run.return_code, run.reason) == (137, "the program ended with exit code 137")
    assert isinstance(run.failure(), RunTimedOut)


def test_a_hint_that_is_not_true_ends_nothing(wire: WireServer, workspace: Workspace) -> None:
    silent(wire)
    wire.on("GET", RECORD, json_answer(record("run", "running")))
    run = submit(workspace)
    tell(wire)
    with pytest.raises(TimeoutError, match=r"run run has not ended within 0\.3 s"):
        run.wait_callback(0.3)
    assert wire.asked("GET", RECORD), "the server was asked"
    assert (run.callback, run.state.is_final) == (None, False)


def test_a_callback_may_be_faster_than_the_answer_to_the_start(
    wire: WireServer, workspace: Workspace
) -> None:
    silent(wire)
    wire.on("GET", RECORD, json_answer(record("run", "completed")))
    answer = started(wire)

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.to_thread(call_back, address(request), "completed")
        await answer(request, writer)

    wire.on("POST", paths.START_PYTHON, reply)
    assert submit(workspace).wait_callback(LIMIT_S) is State.COMPLETED


def test_a_run_that_cannot_be_followed_is_over_when_a_callback_says_so(
    wire: WireServer, workspace: Workspace
) -> None:
    wire.on("POST", SECRET_PATH, refusal(404))
    wire.on("GET", RECORD, refusal(401))
    run = submit(workspace)
    with pytest.raises(LyceumError):
        run.wait(LIMIT_S)
    wire.on("GET", RECORD, json_answer(record("run", "completed")))
    tell(wire)
    assert run.wait_callback(LIMIT_S) is State.COMPLETED
    assert run.wait(0) is State.COMPLETED


def test_a_run_that_cannot_be_followed_has_started(wire: WireServer, workspace: Workspace) -> None:
    wire.on("POST", SECRET_PATH, refusal(404))
    wire.on("GET", RECORD, refusal(401))
    run = submit(workspace)
    with pytest.raises(LyceumError):
        run.wait(LIMIT_S)
    wire.on("GET", RECORD, json_answer(record("run", "running")))
    assert run.record()["status"] == "running"


def test_what_a_callback_says_is_asked_of_the_server_until_it_answers(
    wire: WireServer, workspace: Workspace
) -> None:
    wire.on("POST", SECRET_PATH, refusal(404))
    wire.on("GET", RECORD, refusal(401))
    run = submit(workspace)
    with pytest.raises(LyceumError):
        run.wait(LIMIT_S)
    tell(wire)
    before = len(wire.asked("GET", RECORD))
    eventually(lambda: len(wire.asked("GET", RECORD)) > before + 8, "looks at the record")
    wire.on("GET", RECORD, json_answer(record("run", "running")))
    before = len(wire.asked("GET", RECORD))
    eventually(lambda: len(wire.asked("GET", RECORD)) > before + 8, "looks at the record")
    wire.on("GET", RECORD, json_answer(record("run", "completed")))
    assert run.wait_callback(LIMIT_S) is State.COMPLETED


def test_hooks_hear_of_a_run_that_nobody_holds_and_whose_stream_is_lost(
    wire: WireServer, workspace: Workspace
) -> None:
    wire.on("POST", SECRET_PATH, refusal(404))
    wire.on("GET", RECORD, refusal(401))
    told: list[Run] = []
    workspace.hooks.add(told.append)
    run = submit(workspace)
    with pytest.raises(LyceumError):
        run.wait(LIMIT_S)
    del run
    gc.collect()
    wire.on("GET", RECORD, json_answer(record("run", "completed")))
    tell(wire)
    eventually(lambda: workspace.history.entries()[0].state == "completed", "its end")
    eventually(lambda: workspace.hooks._due, "a hook that is due")
    workspace.hooks.script_waits()
    assert [run.state for run in told] == [State.COMPLETED]


def test_no_callback_is_waited_for_for_ever(wire: WireServer, workspace: Workspace) -> None:
    wire.on("POST", SECRET_PATH, stream(frame(Finished(State.COMPLETED, 0), "1")))
    run = submit(workspace)
    assert run.following.expects_callback
    assert run.wait_callback(LIMIT_S) is State.COMPLETED
    assert run.callback is None


def test_what_came_for_a_run_is_forgotten_with_it(
    wire: WireServer, workspace: Workspace, own_machine: Path
) -> None:
    wire.on("POST", SECRET_PATH, stream(frame(Finished(State.COMPLETED, 0), "1")))
    wire.on("GET", RECORD, json_answer(record("run", "completed")))
    run = submit(workspace)
    tell(wire)
    run.wait_callback(LIMIT_S)
    inbox = InboxStore(own_machine / "callbacks")
    [entry] = workspace.history.entries()
    assert inbox.arrivals_of_run(entry.tag)
    workspace.forget([entry])
    assert inbox.arrivals_of_run(entry.tag) == []
    with pytest.raises(urllib.error.HTTPError, match="404"):
        tell(wire)


def test_where_nothing_can_be_kept_nothing_is_started(
    wire: WireServer, workspace: Workspace, own_machine: Path
) -> None:
    own_machine.mkdir(exist_ok=True)
    (own_machine / "callbacks").write_text("in the way")
    with pytest.raises(ConfigError, match=r"Callbacks cannot be kept in .*LYCEUM_MAGIC_HOME"):
        submit(workspace)
    assert wire.asked("POST", paths.START_PYTHON) == []


def test_a_run_is_attached_though_its_callbacks_cannot_be_read(
    wire: WireServer, workspace: Workspace, own_machine: Path
) -> None:
    silent(wire)
    submit(workspace)
    later = Workspace()
    try:
        later.inbox.listening_address()
        (own_machine / "callbacks" / "callbacks.db").write_bytes(b"no database at all" * 100)
        assert not later.attach("run").following.expects_callback
    finally:
        later.close()


def test_another_process_hears_of_a_run_that_it_attaches(
    wire: WireServer, workspace: Workspace
) -> None:
    """Its kernel was started again: the address of a Jupyter server would still hold."""
    silent(wire)
    wire.on("GET", RECORD, json_answer(record("run", "running")))
    submit(workspace)
    later = Workspace()
    try:
        run = later.attach("run")
        assert run.following.expects_callback
        wire.on("GET", RECORD, json_answer(record("run", "completed")))
        tell(wire)
        assert run.wait_callback(LIMIT_S) is State.COMPLETED
    finally:
        later.close()
