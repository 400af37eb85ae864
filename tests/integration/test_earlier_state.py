"""A state folder that an earlier version made: one for all environments, `LYCEUM_MAGIC_HOME`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from lyceum_magic.embedded import local_server
from lyceum_magic.embedded.holder import holder_of
from lyceum_magic.folders import server_folder
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.limits import MAX_TIMEOUT_S
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.runs.workspace import Workspace
from tests.tools.callbacks import receiving
from tests.tools.embedded import end_server, kill_server, server_facts, server_process
from tests.tools.environments import copy_of_this_environment
from tests.tools.served_process import LIMIT_S, ServedProcess, command, served
from tests.tools.waiting import CLIENT_LIMIT_S, eventually

#: Lays its state folder out as earlier versions did, which named the folders of runs by their ids.
EARLIER = (
    "-c",
    """
import sys
from lyceum_magic.cli import main
from lyceum_magic.server.run_folders import RunFolders

RunFolders.of = lambda self, run_id: self._parent / run_id
sys.exit(main())
""",
)

#: A cell that prints, waits for a file, and then reads a file in its own folder by the path that it
#: has known since it began.
PROGRAM = """\
import os, sys, time
open(os.path.join(sys.path[0], 'late.py'), 'w').write('word = "late"')
print('begun', flush=True)
while not os.path.exists({gate!r}): time.sleep(.01)
import late
print(late.word, open(__file__).readline(), end='')
"""


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    workspace = Workspace()
    yield workspace
    workspace.close()


@pytest.fixture
def earlier(own_machine: Path) -> Iterator[ServedProcess]:
    with served(own_machine, program=EARLIER) as server:
        yield server
    (own_machine / "server.lock").unlink(missing_ok=True)


def put_secret(server: ServedProcess, name: str, value: str) -> None:
    body = {"environment_variables": [{"name": name, "value": value}]}
    assert server.client.post(paths.SECRETS, json=body).is_success


def begun(server: ServedProcess, run_id: str) -> bool:
    return "begun" in server.client.get(paths.record(run_id)).json()["combined_output"]


def test_all_of_it_moves_to_the_first_server_with_the_run_that_goes_on(
    own_machine: Path, workspace: Workspace, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with receiving() as receiver, served(own_machine, program=EARLIER) as server:
        put_secret(server, "TOKEN", "of-before")
        (own_machine / "storage" / "local" / "kept.txt").write_text("kept")
        over = server.start("print('over')")
        server.client.post(over["streaming_url"])
        url = f"{receiver.origin}/told"
        alive = server.start(PROGRAM.format(gate=str(gate)), user_callback_urls=[url])
        eventually(lambda: begun(server, alive["execution_id"]), "it has begun")
        server.end(signal.SIGKILL)

        run = workspace.submit(
            workspace.client("local"),
            StartPython(
                code="import os; print(os.environ['TOKEN'][::-1])",
                execution_type="cpu",
                timeout=MAX_TIMEOUT_S,
            ),
        )
        assert run.result().text == "erofeb-fo\n"
        client = workspace.accounts.embedded()
        folder = server_folder()
        assert server_facts(folder)["base_url"] == client.account.base_url
        assert workspace.ask(client.record, over["execution_id"])["stdout"] == "over\n"
        assert (folder / "storage" / "local" / "kept.txt").read_text() == "kept"
        gate.touch()
        receiver.at("/told")
        record = workspace.ask(client.record, alive["execution_id"])
    assert (record["status"], record["stdout"]) == (
        "completed", "begun\nlate import os, sys, time\n",
    )  # fmt: skip
    assert not (own_machine / "runs.sqlite3").exists()
    assert not (own_machine / "server.json").exists()


def test_the_old_paths_go_once_the_runs_are_over(own_machine: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with served(own_machine, program=EARLIER) as server:
        alive = server.start(PROGRAM.format(gate=str(gate)))
        eventually(lambda: begun(server, alive["execution_id"]), "it has begun")
        server.end()
    local_server.ensure()
    assert (own_machine / "runs" / alive["execution_id"] / "work").is_dir()
    kill_server(own_machine)
    local_server.ensure()
    assert (own_machine / "runs" / alive["execution_id"] / "work").is_dir()
    gate.touch()
    exit_file = server_folder() / "runs" / alive["execution_id"] / "exit.json"
    eventually(exit_file.exists, "its end")
    end_server(own_machine)
    local_server.ensure()
    assert [path for path in own_machine.rglob("*") if path.is_symlink()] == []


def test_a_run_that_began_before_the_move_is_found_where_it_is_now(
    own_machine: Path, workspace: Workspace, earlier: ServedProcess
) -> None:
    """The journal names the folder of that time."""
    run = workspace.submit(
        workspace.accounts.embedded(own_machine),
        StartPython(code="print(1)", execution_type="cpu", timeout=MAX_TIMEOUT_S),
    )
    assert run.result().text == "1\n"
    assert workspace.history.find("last").server_folder == str(own_machine)
    earlier.end()
    assert run.record()["status"] == "completed"
    assert server_process(server_folder()) is not None
    other = Workspace()
    try:
        assert other.attach(str(run.id)).record()["stdout"] == "1\n"
    finally:
        other.close()
    assert not (own_machine / "runs.sqlite3").exists()


def test_an_earlier_server_with_runs_is_used_and_left_alone(
    own_machine: Path, workspace: Workspace, earlier: ServedProcess
) -> None:
    started = earlier.start("import time\nprint('begun', flush=True)\ntime.sleep(600)")
    eventually(lambda: begun(earlier, started["execution_id"]), "it has begun")
    assert workspace.accounts.embedded().account.base_url == earlier.base_url
    run = workspace.submit(
        workspace.accounts.embedded(),
        StartPython(code="print(1)", execution_type="cpu", timeout=60),
    )
    assert run.result().text == "1\n"
    assert server_process(server_folder()) is None
    earlier.client.post(paths.abort(started["execution_id"]))
    # It is over: the next one makes room, and its state comes along.
    moved = local_server.ensure(local_server.current_folder(make_room=True))
    assert earlier.process.wait(LIMIT_S) == 0
    assert server_facts(own_machine)["base_url"] == moved.base_url
    assert run.record()["stdout"] == "1\n"


def test_an_earlier_server_of_another_environment_is_left_alone(
    own_machine: Path, tmp_path: Path
) -> None:
    python = copy_of_this_environment(tmp_path / "other")
    with served(own_machine, python=python, program=EARLIER) as server:
        put_secret(server, "TOKEN", "of the other")
        account = local_server.ensure(local_server.current_folder(make_room=True))
        assert account.base_url != server.base_url
        assert server.client.get(paths.ORG).is_success
        assert f"wait for process {server.process.pid}, which serves them" in doctor()
        server.end()
    assert "wait for the next environment" in doctor()
    assert f"lie in {own_machine} and" in doctor()
    # It is that environment's, whose next server takes it over; ours has its own state by now.
    end_server(own_machine)
    local_server.ensure()
    assert (own_machine / "runs.sqlite3").exists()
    ask = (
        "from lyceum_magic import folders; from lyceum_magic.embedded import local_server; "
        "local_server.ensure(); "
        "print(folders.server_folder())"
    )
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    facts = server_facts(Path(done.stdout.strip()))
    listed = httpx.get(
        facts["base_url"] + paths.SECRETS,
        headers={"Authorization": f"Bearer {facts['api_key']}"},
        trust_env=False,
        timeout=CLIENT_LIMIT_S,
    )
    assert "TOKEN" in listed.text
    assert not (own_machine / "runs.sqlite3").exists()
    assert "earlier state" not in doctor()
    assert local_server.earlier_state() == ""


def doctor() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lyceum_magic.cli", "doctor"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_earlier_state_that_waits_is_taken_in_as_it_is_advised(own_machine: Path) -> None:
    local_server.ensure()
    end_server(own_machine)
    with served(own_machine, program=EARLIER) as server:
        put_secret(server, "TOKEN", "of-before")
        server.end()
    said = local_server.earlier_state()
    assert f"move {server_folder()} away" in said
    server_folder().rename(own_machine / "away")
    local_server.ensure()
    assert local_server.earlier_state() == ""
    assert not (own_machine / "runs.sqlite3").exists()


def test_a_first_start_waits_for_an_earlier_server_that_is_only_starting(
    own_machine: Path,
) -> None:
    """Taken for another environment's, it would be left alone, and its state with it."""
    with served(own_machine, program=EARLIER) as server:
        server.end()
    starting = subprocess.Popen(command("--state-dir", str(own_machine), program=EARLIER))
    try:
        eventually(lambda: holder_of(own_machine), "it holds the folder")
        psutil.Process(starting.pid).suspend()
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(local_server.current_folder)
            with pytest.raises(TimeoutError):
                asked.result(0.5)
            psutil.Process(starting.pid).resume()
            assert asked.result(LIMIT_S) == own_machine
    finally:
        starting.kill()
        starting.wait()


@pytest.mark.parametrize("left", ["vault.key", "runs", "runs.sqlite3"])
def test_a_move_that_was_cut_off_goes_on(
    own_machine: Path, workspace: Workspace, left: str
) -> None:
    """The last item in the order of the move is still there, the others have gone."""
    with served(own_machine, program=EARLIER) as server:
        put_secret(server, "TOKEN", "of-before")
        over = server.start("print('over')")
        server.client.post(over["streaming_url"])
        server.end()
    folder = server_folder()
    folder.mkdir(parents=True, mode=0o700)
    order = ["server.json", "vault.key", "storage", "runs", "runs.sqlite3"]
    for name in order[: order.index(left)]:
        (own_machine / name).rename(folder / name)
    run = workspace.submit(
        workspace.client("local"),
        StartPython(
            code="import os; print(os.environ['TOKEN'][::-1])", execution_type="cpu", timeout=60
        ),
    )
    assert run.result().text == "erofeb-fo\n"
    assert (
        workspace.ask(workspace.accounts.embedded().record, over["execution_id"])["stdout"]
        == "over\n"
    )


def test_a_folder_that_was_never_a_servers_loses_nothing(own_machine: Path) -> None:
    for name in ("runs", "storage"):
        (own_machine / name).mkdir(parents=True)
        (own_machine / name / "mine").write_text("")
    local_server.ensure()
    assert (own_machine / "runs" / "mine").exists()
    assert (own_machine / "storage" / "mine").exists()


def test_a_server_is_started_with_the_python_of_its_folder(
    own_machine: Path, tmp_path: Path
) -> None:
    """A look at another environment's run does not make this environment serve it."""
    python = copy_of_this_environment(tmp_path / "other")
    ask = (
        "from lyceum_magic import folders; from lyceum_magic.embedded import local_server; "
        "local_server.ensure(); "
        "print(folders.server_folder())"
    )
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    theirs = Path(done.stdout.strip())
    end_server(theirs)
    local_server.ensure(theirs)
    process = server_process(theirs)
    assert process is not None
    assert process.cmdline()[0] == python != sys.executable
    end_server(theirs)
    assert json.loads((theirs / "interpreter.json").read_text()) == python
    Path(python).unlink()
    local_server.ensure(theirs)  # its runs can be read all the same
    process = server_process(theirs)
    assert process is not None
    assert process.cmdline()[0] == sys.executable
