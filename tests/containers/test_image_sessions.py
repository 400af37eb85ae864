"""Image runs in a session: the container finds the session's folder, and the head moves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess
from tests.tools.sessions import program, step

from .runs import ImageRun, error_of, start_image

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def key() -> str:
    return f"a{os.urandom(8).hex()}"


def start(
    server: ServedProcess, image: str, step: dict[str, Any], code: str = "save()", **fields: Any
) -> ImageRun:
    command = ["python3", "-c", program(step, code)]
    return start_image(server, image, *command, session=step, **fields)


def head(server: ServedProcess, key: str) -> dict[str, Any]:
    return dict(server.client.get(paths.session(key)).json()["branches"]["main"])


def folder(server: ServedProcess, key: str) -> Path:
    return server.folder / "sessions" / key


@pytest.mark.parametrize("user", ["0", "1234:1234"])
def test_a_head_moves_from_cell_to_cell_for_any_user(
    server: ServedProcess, image: str, key: str, user: str
) -> None:
    first = step(key)
    record = start(server, image, first, docker_user=user).ended()
    assert record["status"] == "completed", record
    assert head(server, key)["id"] == first["id"]
    # A process of this machine continues it, and a container again.
    second = step(key, 2, head(server, key))
    read = f"print(open(os.path.join(FOLDER, 'packs', '{first['id']}.pack')).read()); save()"
    started = server.start(program(second, read), session=second)
    assert "state" in server.client.post(started["streaming_url"]).text
    third = step(key, 3, head(server, key))
    record = start(server, image, third, read, docker_user=user).ended()
    assert (record["status"], record["stdout"]) == ("completed", "state\n"), record
    assert head(server, key)["id"] == third["id"]


def test_a_container_outside_of_a_session_sees_none(
    server: ServedProcess, image: str, key: str
) -> None:
    start(server, image, step(key)).ended()
    look = "ls /lyceum-session; echo $LYCEUM_SESSION_FOLDER"
    record = start_image(server, image, "sh", "-c", look).ended()
    assert (record["stdout"], "No such file" in record["stderr"]) == ("\n", True)


@pytest.mark.parametrize(
    "code",
    [
        "os.rmdir(FOLDER + '/cells'); os.symlink('/', FOLDER + '/cells')",
        "os.symlink('../../../vault.key', FOLDER + '/cells/' + STEP['id'] + '.json')",
        "os.mkfifo(FOLDER + '/cells/' + STEP['id'] + '.json')",
        "save(); os.remove(FOLDER + '/packs/' + STEP['id'] + '.pack')",
        "save(key='another')",
    ],
)
def test_a_container_moves_no_head_by_tricks_with_files(
    server: ServedProcess, image: str, key: str, code: str
) -> None:
    start(server, image, step(key), code).ended()
    assert server.client.get(paths.session(key)).json()["branches"] == {}
    assert server.client.delete(paths.session(key)).status_code == 200
    assert not folder(server, key).exists()


def test_a_container_cannot_reach_the_server_s_own_files(
    server: ServedProcess, image: str, key: str
) -> None:
    one = step(key)
    start(server, image, one).ended()
    second = step(key, 2, head(server, key))
    code = f"""
for path, _, names in os.walk(FOLDER + "/.."):
    for name in names:
        if name == "{key}.json":
            raise SystemExit(1)
manifest = FOLDER + "/cells/{one["id"]}.json"
open(manifest, "a").write(" ")
"""
    assert start(server, image, second, code).ended()["status"] == "completed"
    assert head(server, key)["id"] == one["id"]
    body = {"docker_image_ref": image, "execution_type": "cpu", "session": second}
    reply = server.client.post(paths.START_IMAGE, json=body)
    assert (reply.status_code, "was changed" in reply.json()["detail"]) == (409, True)


def test_a_program_that_is_killed_for_time_leaves_what_it_saved(
    server: ServedProcess, image: str, key: str
) -> None:
    first = step(key)
    record = start(server, image, first, "save(); import time; time.sleep(600)", timeout=5).ended()
    assert "time limit" in error_of(record)
    assert head(server, key)["id"] == first["id"]
