"""However a Python run ends, each of its callback URLs is told once, and what is true."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from tests.tools.callbacks import CallbackReceiver, lose, receiving, told_once
from tests.tools.embedded import run_folder
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

GOES_ON = "import time\nprint('begun', flush=True)\ntime.sleep(600)"


@pytest.fixture
def receiver() -> Iterator[CallbackReceiver]:
    with receiving() as receiver:
        yield receiver


def start(server: ServedProcess, receiver: CallbackReceiver, name: str, code: str) -> str:
    """Start a run with two callback URLs; return its id."""
    fields: dict[str, Any] = {
        "user_callback_urls": receiver.urls(name),
        "run_name": f"it will be {name}",
        "labels": ["one", "two"],
        "metadata": {"who": "ümlaut"},
    }
    return str(server.start(code, **fields)["execution_id"])


def begun(server: ServedProcess, run_id: str) -> None:
    path = paths.record(run_id)
    eventually(lambda: "begun" in server.client.get(path).json()["stdout"], "the program begins")


def test_every_final_state_is_told_once(tmp_path: Path, receiver: CallbackReceiver) -> None:
    codes = {"completed": "print(1)", "failed": "raise SystemExit(3)"}
    ends = {
        "aborted": lambda server, run_id: server.client.post(paths.abort(run_id)),
        "cancelled": lambda server, run_id: server.client.post(paths.stop(run_id)),
        "system_failure": lose,
    }
    with served(tmp_path / "state") as server:
        runs = {name: start(server, receiver, name, code) for name, code in codes.items()}
        runs |= {name: start(server, receiver, name, GOES_ON) for name in ends}
        for name, end in ends.items():
            begun(server, runs[name])
            end(server, runs[name])
        for name, run_id in runs.items():
            told_once(server, receiver, name, run_id)
    assert len(receiver.received) == 10


def test_an_end_that_no_server_saw_is_told_by_the_next_one(
    tmp_path: Path, receiver: CallbackReceiver
) -> None:
    code = (
        "import os, time\nprint('begun', flush=True)\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        "raise SystemExit(4)"
    )
    with served(tmp_path / "state") as server:
        run_id = start(server, receiver, "failed", code)
        begun(server, run_id)
        server.end(signal.SIGKILL)
        (tmp_path / "go").touch()
        eventually((run_folder(server.folder, run_id) / "exit.json").exists, "the run ends")
    assert receiver.received == []
    with served(tmp_path / "state") as server:
        told_once(server, receiver, "failed", run_id)
