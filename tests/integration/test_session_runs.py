"""Sessions with real runs: a head moves to what a run has saved, and stays otherwise."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Output, decode
from lyceum_magic.server.runners.folder import read_facts
from tests.tools.embedded import run_folder
from tests.tools.served_process import LIMIT_S, ServedProcess, served
from tests.tools.sessions import program, step
from tests.tools.small_disks import full, small_disk
from tests.tools.waiting import eventually

#: Wait until the test makes a file in the session's folder.
HOLD = "import time\nwhile not os.path.exists(os.path.join(FOLDER, 'go')): time.sleep(0.02)\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    with served(tmp_path_factory.mktemp("home") / "state") as server:
        yield server


@pytest.fixture
def key() -> str:
    """A session of the test's own."""
    return f"a{os.urandom(8).hex()}"


def begin(
    server: ServedProcess, step: dict[str, Any], code: str = "save()", **fields: Any
) -> dict[str, Any]:
    return server.start(program(step, code), session=step, **fields)


def run(server: ServedProcess, step: dict[str, Any], code: str = "save()", **fields: Any) -> str:
    """Run a program that takes part in a session to its end, and return its events."""
    return server.client.post(begin(server, step, code, **fields)["streaming_url"]).text


def said(server: ServedProcess, started: dict[str, Any], text: str) -> None:
    """Return when a run has put out a text."""
    path = started["streaming_url"].removeprefix(server.base_url)
    heard = ""
    with server.client.stream("POST", path) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: "):
                for event in decode(line.removeprefix("data: ")):
                    heard += event.text if isinstance(event, Output) else ""
            if text in heard:
                return
    raise AssertionError(heard)


def session(server: ServedProcess, key: str = "a") -> dict[str, Any]:
    reply = server.client.get(paths.session(key))
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def head(server: ServedProcess, key: str = "a") -> dict[str, Any]:
    return dict(session(server, key)["branches"]["main"])


def refused(server: ServedProcess, step: dict[str, Any], status: int = 409) -> str:
    body = {"code": "", "execution_type": "cpu", "session": step}
    reply = server.client.post(paths.START_PYTHON, json=body)
    assert reply.status_code == status, reply.text
    detail = str(reply.json()["detail"])
    assert "\n" not in detail
    return detail


def status(server: ServedProcess, started: dict[str, Any]) -> str:
    return str(server.client.get(paths.record(started["execution_id"])).json()["status"])


# --- heads -----------------------------------------------------------------------------------


def test_a_head_moves_from_cell_to_cell(server: ServedProcess, key: str) -> None:
    first = step(key)
    assert "jobFinished" in run(server, first)
    one = head(server, key)
    assert (one["id"], one["cell"]) == (first["id"], 1)
    second = step(key, cell=2, parent=one)
    run(server, second)
    assert head(server, key)["id"] == second["id"]
    shown = session(server, key)
    assert (shown["title"], shown["cells"], shown["busy"]) == ("a.ipynb", 2, {})
    listed = server.client.get(paths.snapshots(key)).json()
    assert [item["cell"] for item in listed] == [1, 2]
    assert listed[1]["parent"] == {"id": one["id"], "sha256": one["sha256"]}
    assert (listed[1]["variables"], listed[1]["bytes"]) == (1, 5)


def test_a_program_outside_of_a_session_sees_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYCEUM_SESSION_FOLDER", "/of/the/servers/own")
    with served(tmp_path / "state") as server:
        started = server.start("import os; print(os.environ.get('LYCEUM_SESSION_FOLDER'))")
        assert "None" in server.client.post(started["streaming_url"]).text
        run(server, first := step())
        assert head(server)["id"] == first["id"]


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("save(); raise SystemExit(3)", "failed"),
        ("save(); os.kill(os.getpid(), 9)", "failed"),
        ("save(); import time; time.sleep(600)", "failed"),
        ("save(); os.kill(os.getppid(), 9); import time; time.sleep(600)", "system_failure"),
    ],
    ids=["raise", "killed", "timeout", "supervisor killed"],
)
def test_what_was_saved_counts_however_the_run_ends(
    server: ServedProcess, key: str, code: str, end: str
) -> None:
    first = step(key)
    run(server, first, code, timeout=3)
    assert head(server, key)["id"] == first["id"]
    assert server.client.get(paths.HISTORY).json()["executions"][0]["status"] == end


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(600)",
        "write('packs/' + STEP['id'] + '.pack', b'half'); os.kill(os.getpid(), 9)",
        "raise MemoryError",
        "save(); os.truncate(os.path.join(FOLDER, 'packs', STEP['id'] + '.pack'), 2)",
        "save(parent=None, cell=9)",
    ],
    ids=["timeout", "killed", "no memory", "half a pack", "another cell"],
)
def test_a_run_that_did_not_save_leaves_the_head(
    server: ServedProcess, key: str, code: str
) -> None:
    run(server, step(key))
    one = head(server, key)
    run(server, step(key, cell=2, parent=one), code, timeout=2)
    assert head(server, key) == one
    again = step(key, cell=2, parent=one)
    run(server, again)
    assert head(server, key)["id"] == again["id"]
    folder = server.folder / "sessions" / key
    eventually(lambda: len(list((folder / "packs").iterdir())) == 2, "only whole packs are left")


def test_of_two_starts_at_once_one_is_refused(server: ServedProcess, key: str) -> None:
    def start(one: dict[str, Any]) -> httpx.Response:
        body = {"code": program(one, HOLD), "execution_type": "cpu", "session": one}
        return server.client.post(paths.START_PYTHON, json=body)

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(start, [step(key) for _ in range(8)]))
    codes = sorted(reply.status_code for reply in replies)
    assert codes == [200] + [409] * 7
    (accepted,) = [reply.json() for reply in replies if reply.status_code == 200]
    assert accepted["execution_id"] in refused(server, step(key))
    (server.folder / "sessions" / key / "go").touch()
    server.client.post(accepted["streaming_url"])


# --- servers that die ------------------------------------------------------------------------


def test_a_head_moves_although_the_server_died_between_save_and_end(tmp_path: Path) -> None:
    first = step()
    with served(tmp_path / "state") as server:
        started = begin(server, first, f"save()\nprint('saved', flush=True)\n{HOLD}")
        said(server, started, "saved")
        server.end(signal.SIGKILL)
    with served(tmp_path / "state") as server:
        assert started["execution_id"] in refused(server, step())
        (server.folder / "sessions/a/go").touch()
        server.client.post(paths.stream(started["execution_id"]))
        assert head(server)["id"] == first["id"]
        run(server, step(cell=2, parent=head(server)))
        assert session(server)["cells"] == 2


@pytest.mark.parametrize("saves", [True, False])
def test_a_run_that_ended_while_no_server_was_there_is_settled_by_the_next(
    tmp_path: Path, saves: bool
) -> None:
    first = step()
    with served(tmp_path / "state") as server:
        code = f"print('on', flush=True)\n{HOLD}{'save()' if saves else ''}"
        started = begin(server, first, code)
        said(server, started, "on")
        supervisor = psutil.Process(
            read_facts(run_folder(server.folder, started["execution_id"]))["pid"]
        )
        server.end(signal.SIGKILL)
    (tmp_path / "state/sessions/a/go").touch()
    gone, _ = psutil.wait_procs([supervisor], timeout=LIMIT_S)
    assert gone
    with served(tmp_path / "state") as server:
        eventually(lambda: status(server, started) == "completed", "the run is over")
        branches = session(server)["branches"]
        assert [branch["id"] for branch in branches.values()] == [first["id"]] * saves


# --- disks and limits ------------------------------------------------------------------------


def test_a_full_disk_is_one_sentence_and_the_head_stays(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with served(state) as server, small_disk(state / "sessions"):
        run(server, step())
        one = head(server)
        with full(state / "sessions"):
            said = run(server, step(cell=2, parent=one), "save(bytes(1 << 20))")
            assert "No space left" in said
            assert head(server) == one
            assert "is full: make room" in refused(server, step("another"), 507)
        second = step(cell=2, parent=one)
        run(server, second)
        assert head(server)["id"] == second["id"]


def test_a_head_that_a_full_disk_kept_in_its_place_moves_later(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with served(state) as server, small_disk(state / "sessions"):
        first = step()
        started = begin(server, first, f"save()\nprint('saved', flush=True)\n{HOLD}")
        said(server, started, "saved")
        (state / "sessions/a/go").touch()
        index = state / "sessions/.index"
        with full(state / "sessions"):
            server.client.post(started["streaming_url"])
            # An index that was written in part would be broken.
            assert [path.name for path in index.iterdir()] == ["a.json"]
        assert head(server)["id"] == first["id"]


def test_runs_are_swept_and_sessions_stay(tmp_path: Path) -> None:
    with served(tmp_path / "state") as server:
        run(server, first := step())
    with served(tmp_path / "state", "--keep-days", "0.00001") as server:
        runs = tmp_path / "state/runs"
        eventually(
            lambda: not [path for path in runs.iterdir() if not path.name.startswith(".")],
            "the run is swept",
        )
        assert head(server)["id"] == first["id"]


def test_an_idle_session_is_swept_and_one_with_a_kept_cell_stays(tmp_path: Path) -> None:
    with served(tmp_path / "state") as server:
        run(server, kept := step("kept"))
        run(server, step())
        server.client.put(paths.kept_snapshot("kept", kept["id"]))
    with served(tmp_path / "state", "--keep-session-days", "0.00001") as server:
        eventually(lambda: server.client.get(paths.session("a")).status_code == 404, "it is swept")
        assert head(server, "kept")["id"] == kept["id"]


def test_files_of_a_session_are_for_this_user_alone(server: ServedProcess, key: str) -> None:
    run(server, step(key))
    folders = [server.folder / "sessions", *(server.folder / "sessions").rglob("*")]
    modes = {path.stat().st_mode & 0o777 for path in folders if path.is_dir()}
    assert modes == {0o700}
    assert {path.stat().st_uid for path in folders} == {os.getuid()}
