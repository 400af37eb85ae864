"""Callbacks that arrive at the listening address are shown, even after one that cannot be."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest

from lyceum_magic.magic.commands import listen
from lyceum_magic.runs.workspace import Workspace
from tests.tools.waiting import LIMIT_S, eventually


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    workspace = Workspace()
    monkeypatch.setattr(listen, "workspace", lambda: workspace)
    yield workspace
    workspace.close()


def post(url: str, run_id: str, name: str = "") -> None:
    body = json.dumps({"execution_id": run_id, "status": "completed", "run_name": name})
    request = urllib.request.Request(url, data=body.encode(), method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=LIMIT_S) as answer:
        assert answer.status == 204


def test_one_that_cannot_be_shown_keeps_no_other_from_being_shown(
    here: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = {"second": "completed"}
    monkeypatch.setattr(listen, "_by_server", lambda run_id: answers[run_id])
    listen.show("")
    address = capsys.readouterr().out.split()[0]
    post(address, "first")
    eventually(lambda: "cannot be shown" in caplog.text, "the first one's failure")
    post(address, "second")
    said = [""]

    def shown() -> bool:
        said[0] += capsys.readouterr().out
        return "the server says completed" in said[0]

    eventually(shown, "the second one")
    assert "callback of run second at" in said[0]


def test_each_process_listens_for_itself(here: Workspace) -> None:
    listen.show("")
    first = here.listening
    listen.show("")
    assert here.listening is first


def test_no_sender_commands_the_terminal(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listen, "_by_server", lambda run_id: "completed")
    listen.show("")
    post(capsys.readouterr().out.split()[0], "run-1", "é\x1b]0;x\x07\n\x9b2J\u202eend")
    shown = here.listening
    assert isinstance(shown, listen._Listening)
    eventually(lambda: shown._count == 1, "it is shown")
    text = shown._text()
    assert "é�]0;x� �2J�end" in text
    assert all(char.isprintable() or char == "\n" for char in text)
