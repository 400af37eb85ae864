"""Sessions with real runs: a head moves to what a run has saved, and stays otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served
from tests.tools.sessions import program, step


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServedProcess]:
    with served(tmp_path / "state") as server:
        yield server


def run(server: ServedProcess, step: dict[str, Any], code: str = "save()", **fields: Any) -> str:
    """Run a program that takes part in a session to its end, and return its output."""
    started = server.start(program(step, code), session=step, **fields)
    return server.client.post(started["streaming_url"]).text


def session(server: ServedProcess, key: str = "a") -> dict[str, Any]:
    reply = server.client.get(paths.session(key))
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def head(server: ServedProcess, key: str = "a", branch: str = "main") -> dict[str, Any]:
    return dict(session(server, key)["branches"][branch])


def test_a_head_moves_from_cell_to_cell(server: ServedProcess) -> None:
    first = step()
    assert "jobFinished" in run(server, first)
    one = head(server)
    assert (one["id"], one["cell"]) == (first["id"], 1)
    second = step(cell=2, parent=one)
    run(server, second)
    assert head(server)["id"] == second["id"]
    shown = session(server)
    assert (shown["title"], shown["cells"], shown["busy"]) == ("a.ipynb", 2, {})
    listed = server.client.get(paths.snapshots("a")).json()
    assert [item["cell"] for item in listed] == [1, 2]
    assert listed[1]["parent"] == {"id": one["id"], "sha256": one["sha256"]}
    assert (listed[1]["variables"], listed[1]["bytes"]) == (1, 5)


def test_a_program_outside_of_a_session_sees_none(server: ServedProcess) -> None:
    started = server.start("import os; print('LYCEUM_SESSION_FOLDER' in os.environ)")
    assert "False" in server.client.post(started["streaming_url"]).text
