"""Another user of the machine reads no session, and nothing of that user is taken for one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from tests.attacks.stranger import Stranger
from tests.tools.served_process import ServedProcess, served
from tests.tools.sessions import program, step

#: Make folders and files.
PLANT = """
    import os, sys
    for path in sys.argv[1:]:
        os.makedirs(os.path.dirname(path), 0o777, exist_ok=True)
        open(path, "w").close()
    """
#: Print the content of each file that can be read, and what a folder lists.
LOOK = """
    import os, sys
    for path in sys.argv[1:]:
        try:
            print(os.listdir(path) if os.path.isdir(path) else open(path).read())
        except OSError:
            pass
    """


@pytest.fixture
def state(common_folder: Path) -> Path:
    """A state folder in a place that the stranger can reach."""
    folder = common_folder / f"state-{os.urandom(4).hex()}"
    folder.mkdir(mode=0o700)
    return folder


def run(server: ServedProcess, step: dict[str, Any]) -> None:
    started = server.start(program(step, "save(b'secret')"), session=step)
    server.client.post(started["streaming_url"])
    branches = server.client.get(paths.session("a")).json()["branches"]
    assert branches["main"]["id"] == step["id"]


def test_another_user_reads_no_snapshot(state: Path, stranger: Stranger) -> None:
    with served(state) as server:
        run(server, step())
    found = [state / "sessions", *(state / "sessions").rglob("*")]
    assert len(found) == 8
    assert stranger.run(LOOK, *map(str, found)) == ""


@pytest.mark.parametrize("planted", ["a/cells/x", ".index/a.json", "a/packs/x"])
def test_a_folder_that_another_user_made_before_is_not_used(
    state: Path, stranger: Stranger, planted: str
) -> None:
    folder = state / "sessions"
    folder.mkdir()
    for path in (state, folder):
        path.chmod(0o777)
    stranger.run(PLANT, str(folder / planted))
    with served(state) as server:
        body = {"code": "", "execution_type": "cpu", "session": step()}
        reply = server.client.post(paths.START_PYTHON, json=body)
        assert reply.status_code == 507
        assert "belongs to another user" in reply.json()["detail"]
        assert server.client.get(paths.WORKLOADS).json() == []
