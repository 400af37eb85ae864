"""However an image or a stack ends, each of its callback URLs is told once, and what is true."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from tests.tools.callbacks import CallbackReceiver, lose, receiving, told_once
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .runs import HOLD, ServedRun, start_image
from .stacks import service, start_stack


def image_run(server: ServedProcess, image: str, script: str, **fields: Any) -> ServedRun:
    return start_image(server, image, "sh", "-c", script, enable_s3_mount=True, **fields)


def stack_run(server: ServedProcess, image: str, script: str, **fields: Any) -> ServedRun:
    return start_stack(server, {"job": service(script, image)}, **fields)


kinds = pytest.mark.parametrize("start", [image_run, stack_run])
Start = Callable[..., ServedRun]

ENDS: dict[str, Callable[[ServedProcess, str], object]] = {
    "aborted": lambda server, run_id: server.client.post(paths.abort(run_id)),
    "cancelled": lambda server, run_id: server.client.post(paths.stop(run_id)),
    "system_failure": lose,
}


def begin(
    start: Start, server: ServedProcess, image: str, to: CallbackReceiver, name: str, script: str
) -> ServedRun:
    return start(server, image, script, user_callback_urls=to.urls(name), run_name=f"to be {name}")


@kinds
def test_every_final_state_is_told_once(start: Start, server: ServedProcess, image: str) -> None:
    scripts = {"completed": "true", "failed": "exit 3"}
    scripts |= dict.fromkeys(ENDS, f"echo begun; {HOLD}")
    with receiving() as receiver:
        runs = {
            name: begin(start, server, image, receiver, name, script)
            for name, script in scripts.items()
        }
        for name, end in ENDS.items():
            runs[name].said("begun")
            end(server, runs[name].id)
        for name, run in runs.items():
            told_once(server, receiver, name, run.id)
        assert len(receiver.received) == 10


@kinds
def test_an_end_that_no_server_saw_is_told_by_the_next_one(
    start: Start, folder: Path, image: str
) -> None:
    with receiving() as receiver:
        with served(folder) as server:
            run = begin(start, server, image, receiver, "failed", f"echo begun; {HOLD}; exit 4")
            run.said("begun")
            server.end(signal.SIGKILL)
            run.let_go()
            eventually((run.folder / "exit.json").exists, "the run ends")
        assert receiver.received == []
        with served(folder) as server:
            told_once(server, receiver, "failed", run.id)
