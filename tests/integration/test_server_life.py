"""The server process: how it starts, who else may have its folder and port, how it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.proof import proof
from lyceum_magic.server.serve import _bind, serve
from lyceum_magic.server.settings import ServerSettings
from tests.tools.embedded import run_folder
from tests.tools.served_process import LIMIT_S, ServedProcess, command, served
from tests.tools.waiting import CLIENT_LIMIT_S, eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def run_serve(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A server that is expected to refuse."""
    return subprocess.run(
        command("--state-dir", str(folder), *options),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def test_a_run_goes_from_start_to_its_last_event(folder: Path) -> None:
    with served(folder) as server:
        started = server.start("print('hello')")
        stream = server.client.post(started["streaming_url"])
        record = server.client.get(paths.record(started["execution_id"])).json()
    assert '"content":"hello' in stream.text
    assert '"returnCode":0' in stream.text
    assert (record["status"], record["stdout"]) == ("completed", "hello\n")


def test_what_it_keeps_is_readable_by_its_user_alone(folder: Path) -> None:
    with served(folder) as server:
        server.client.post(server.start("print(1)")["streaming_url"])
        assert folder.stat().st_mode & 0o777 == 0o700
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path


def test_port_and_key_outlive_a_server_that_is_killed(folder: Path) -> None:
    with served(folder) as server:
        before = server.facts()
        server.end(signal.SIGKILL)
    with served(folder) as server:
        after = server.facts()
    assert before["api_key"].startswith("lk_")
    assert len(before["api_key"]) >= 46
    assert {**before, "pid": 0} == {**after, "pid": 0}
    assert before["pid"] != after["pid"]


@pytest.mark.parametrize("end", ["signal", "interrupt", "request", "idle"])
def test_a_key_does_not_outlive_a_server_that_ends_in_order(folder: Path, end: str) -> None:
    with served(folder, *(["--idle-exit", "1"] if end == "idle" else [])) as server:
        before = server.facts()
        if end == "request":
            assert server.client.post(paths.SHUTDOWN).status_code == 200
        elif end != "idle":
            server.process.send_signal(signal.SIGTERM if end == "signal" else signal.SIGINT)
        server.process.wait(LIMIT_S)
    with served(folder) as server:
        after = server.facts()
        assert after["base_url"] == before["base_url"]
        assert after["api_key"] != before["api_key"]
        old = {"Authorization": f"Bearer {before['api_key']}"}
        assert server.client.get(paths.ORG, headers=old).status_code == 401


@pytest.mark.parametrize("is_run_alive", [False, True])
def test_a_key_of_an_earlier_version_lives_as_long_as_a_run_of_its_server(
    folder: Path, is_run_alive: bool
) -> None:
    """It did not say whether it ended in order: its lock file holds the address in any case."""
    with served(folder) as server:
        before = server.facts()
        run_id = server.start("import time; time.sleep(600)")["execution_id"]
        facts = run_folder(folder, run_id) / "supervisor.json"
        eventually(facts.exists, "it has begun")
        if not is_run_alive:
            server.client.post(paths.abort(run_id))
        server.end()
    (folder / "server.lock").write_text(f"{before['base_url']}\n")
    with served(folder) as server:
        assert (server.facts()["api_key"] == before["api_key"]) == is_run_alive
        server.client.post(paths.abort(run_id))


def test_a_key_does_not_come_back_by_a_kill_before_the_next_server_listens(folder: Path) -> None:
    with served(folder) as server:
        before = server.facts()
    killed = subprocess.run(
        [
            sys.executable, "-m", "tests.faults.server", "--die", "opening",
            "--state-dir", str(folder),
        ],
        timeout=LIMIT_S,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    with served(folder) as server:
        assert server.facts()["api_key"] != before["api_key"]


def test_what_was_made_with_a_key_ends_or_stays_with_it(folder: Path) -> None:
    """Tokens of the server's own key go; keys that were made, and streams, stay."""
    with served(folder) as server:
        made = server.client.post(paths.KEYS, json={"key_name": "ci"}).json()
        sign_ins = [
            server.client.post(paths.LOGIN, json={"email": "", "password": key}).json()
            for key in (server.facts()["api_key"], made["api_key"])
        ]
        started = server.start("print('hello')")
        server.client.post(started["streaming_url"])
        server.end()
    with served(folder) as server:
        tokens = [sign_in["access_token"] for sign_in in sign_ins]
        replies = [
            server.client.get(paths.ORG, headers={"Authorization": f"Bearer {token}"})
            for token in (*tokens, made["api_key"])
        ]
        assert [reply.status_code for reply in replies] == [401, 200, 200]
        assert (
            "hello"
            in httpx.post(started["streaming_url"], trust_env=False, timeout=CLIENT_LIMIT_S).text
        )


def test_an_address_is_taken_back_before_its_port_is_free(folder: Path) -> None:
    """Otherwise a client could take the next program that listens there for the server."""
    with served(folder) as server:
        code = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
        started = server.start(code)
        with server.client.stream("POST", started["streaming_url"]) as reply:
            assert "begun" in next(line for line in reply.iter_lines() if "begun" in line)
            server.process.send_signal(signal.SIGTERM)
            port = int(server.base_url.rpartition(":")[2])
            eventually(lambda: not _listens(port), "the port is free")
            assert server.base_url not in (folder / "server.lock").read_text()
        server.process.wait(LIMIT_S)
    with served(folder) as server:
        server.client.post(paths.abort(started["execution_id"]))


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_somebody_else_took_is_replaced(folder: Path) -> None:
    with served(folder) as server:
        port = int(server.base_url.rpartition(":")[2])
        server.end()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with served(folder) as server:
            assert server.base_url != f"http://127.0.0.1:{port}"
        asked = run_serve(folder, "--port", str(port))
    assert asked.returncode == 1
    assert asked.stderr.count("\n") == 1
    assert "--port" in asked.stderr


def test_a_port_is_nobody_elses_from_the_beginning() -> None:
    """The server imports and opens its parts for a second before it answers."""
    with _bind(socket.socket, 0) as listener, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(listener.getsockname())


def test_a_second_server_on_a_folder_says_so_and_leaves(folder: Path) -> None:
    with served(folder) as server:
        second = run_serve(folder)
        assert second.returncode == 3
        assert second.stderr.count("\n") == 1
        assert server.client.get(paths.ORG).status_code == 200


def test_the_lock_names_the_address_as_long_as_the_server_lives(folder: Path) -> None:
    with served(folder) as server:
        said = (folder / "server.lock").read_text().split()
        assert said == [server.base_url, str(server.process.pid)]
        with (folder / "server.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        server.end(signal.SIGKILL)
        with (folder / "server.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_the_shared_profile_runs_no_processes_and_opens_no_stream_by_id(folder: Path) -> None:
    with served(folder) as server:
        started = server.start("print('hello')")
        server.client.post(started["streaming_url"])
        server.end()
    with served(folder, "--profile", "shared") as server:
        refused = server.client.post(paths.START_PYTHON, json={"code": "print(1)"})
        assert refused.status_code == 503
        assert "profile" in refused.json()["detail"]
        by_id = f"{server.base_url}{paths.stream(started['execution_id'])}"
        assert httpx.post(by_id, trust_env=False, timeout=CLIENT_LIMIT_S).status_code == 401
        assert "hello" in server.client.post(by_id).text
        assert (
            "hello"
            in httpx.post(started["streaming_url"], trust_env=False, timeout=CLIENT_LIMIT_S).text
        )


def test_a_memory_limit_is_taken_from_the_command_line(folder: Path) -> None:
    with served(folder, "--memory-limit", "300M") as server:
        started = server.start("taken = [bytearray(b'x' * 2**20) for _ in range(10_000)]")
        server.client.post(started["streaming_url"])
        record = server.client.get(paths.record(started["execution_id"])).json()
    assert record["status"] == "failed"
    assert record["system_errors"] == ["the program ran out of memory: its limit is 300 MiB"]


def test_a_memory_limit_that_nothing_would_keep_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(EmbeddedServerError, match="Linux alone"):
        serve(ServerSettings(folder, memory_limit_bytes=1 << 30), lambda facts: None)
    assert not folder.exists()


def test_uploads_are_spooled_on_the_disk_of_the_storage(folder: Path) -> None:
    program = f"""
import tempfile
from pathlib import Path
from lyceum_magic.server.serve import serve
from lyceum_magic.server.settings import ServerSettings
settings = ServerSettings(Path({str(folder)!r}), idle_exit_s=0.01)
serve(settings, lambda facts: print(Path(tempfile.mkdtemp()).parent))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"{folder / 'uploads'}\n"


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("--memory-limit", "5X", "512M"),
        ("--memory-limit", "1K", "64M"),
        ("--keep-days", "soon", "number of days"),
        ("--keep-bytes", "-1", "2G"),
        ("--profile", "public", "shared"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    folder: Path, option: str, value: str, advice: str
) -> None:
    refused = run_serve(folder, option, value)
    assert refused.returncode == 2
    assert advice in refused.stderr.splitlines()[-1]
    assert not folder.exists()


def test_it_proves_itself_before_it_is_sent_the_key(folder: Path) -> None:
    with served(folder) as server:
        nonce = os.urandom(16).hex()
        reply = httpx.get(
            f"{server.base_url}{paths.HEALTH}",
            params={"nonce": nonce},
            trust_env=False,
            timeout=CLIENT_LIMIT_S,
        )
        assert reply.json()["proof"] == proof(server.facts()["api_key"], nonce)


def test_a_signal_ends_it_with_a_stream_open_and_the_run_goes_on(folder: Path) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
    with served(folder) as server:
        started = server.start(code)
        with server.client.stream("POST", started["streaming_url"]) as reply:
            lines = reply.iter_lines()
            while "begun" not in next(lines):
                pass
            server.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert server.process.wait(LIMIT_S) in (0, -signal.SIGTERM)
    assert not [line for line in rest if "jobFinished" in line]
    with served(folder) as server:
        listed = server.client.get(paths.WORKLOADS).json()
        assert [run["execution_id"] for run in listed] == [started["execution_id"]]
        aborted = server.client.post(paths.abort(started["execution_id"]))
        assert aborted.json()["status"] == "aborted"


def test_a_killed_server_finds_its_run_and_a_reader_goes_on_where_it_was(folder: Path) -> None:
    go = folder.parent / "go"
    os.mkfifo(go)
    code = f"print('before', flush=True)\nopen({str(go)!r}).read()\nprint('after')"
    with served(folder) as server:
        started = server.start(code)
        with server.client.stream("POST", started["streaming_url"]) as reply:
            event_id = ""
            for line in reply.iter_lines():
                if line.startswith("id: "):
                    event_id = line.removeprefix("id: ")
                if "before" in line:
                    break
        server.end(signal.SIGKILL)
    with served(folder) as server:
        assert started["streaming_url"].startswith(server.base_url)
        go.write_text("")
        rest = server.client.post(started["streaming_url"], headers={"Last-Event-ID": event_id})
        record = server.client.get(paths.record(started["execution_id"])).json()
    assert "before" not in rest.text
    assert "after" in rest.text
    assert '"returnCode":0' in rest.text
    assert record["stdout"] == "before\nafter\n"


def test_an_idle_server_ends_when_asked(folder: Path) -> None:
    with served(folder) as server:
        assert server.client.post(paths.SHUTDOWN).status_code == 200
        assert server.process.wait(LIMIT_S) == 0


def test_a_server_started_on_demand_ends_by_itself_once_it_is_idle(folder: Path) -> None:
    with served(folder, "--idle-exit", "0") as server:
        assert server.process.wait(LIMIT_S) == 0


def test_started_by_hand_it_says_how_to_use_it_and_hides_the_key(folder: Path) -> None:
    with subprocess.Popen(
        command("--state-dir", str(folder)), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(5)]
        process.send_signal(signal.SIGINT)
        said += process.stdout.readlines()
    key = (folder / "server.json").read_text().split('"api_key": "')[1].split('"')[0]
    text = "".join(said)
    assert "lyceum auth login --url http://127.0.0.1:" in text
    assert f"lyceum-magic keys create NAME --state-dir {folder}" in text
    assert str(folder / "server.json") in text
    assert key not in text


def test_neither_key_nor_stream_secret_nor_code_is_logged(folder: Path) -> None:
    with served(folder) as server:
        started = server.start("x = 'CANARY'; raise ValueError(x)")
        server.client.post(started["streaming_url"])
        server.client.post(started["streaming_url"], headers={"Last-Event-ID": "bad"})
        server.client.get(f"{started['streaming_url']}x")
        key = server.facts()["api_key"]
        server.end()
    log = (folder.parent / "server.log").read_text()
    for secret in (key, started["streaming_url"].rpartition("/")[2], "CANARY"):
        assert secret not in log


def test_ended_runs_are_kept_as_long_as_the_command_line_says(folder: Path) -> None:
    with served(folder) as server:
        over = server.start("print('over')")
        server.client.post(over["streaming_url"])
        alive = server.start("import time\nprint('begun', flush=True)\ntime.sleep(600)")
        server.end()
    with served(folder, "--keep-days", "0") as server:
        path = paths.record(over["execution_id"])
        eventually(lambda: server.client.get(path).status_code == 404, "the end of an old run")
        eventually(lambda: not run_folder(folder, over["execution_id"]).exists(), "no folder")
        listed = server.client.get(paths.WORKLOADS).json()
        assert [run["execution_id"] for run in listed] == [alive["execution_id"]]
        aborted = server.client.post(paths.abort(alive["execution_id"]))
        assert aborted.json()["status"] == "aborted"


def test_the_oldest_runs_leave_when_all_take_too_much(folder: Path) -> None:
    code = "open('data', 'wb').write(bytes(4 << 20))"
    with served(folder) as server:
        runs = [server.start(code) for _ in range(2)]
        for run in runs:
            server.client.post(run["streaming_url"])
        ends = [
            server.client.get(paths.record(run["execution_id"])).json()["job_end"] for run in runs
        ]
        server.end()
    (first, _), (second, _) = sorted(zip(runs, ends, strict=True), key=lambda pair: pair[1])
    with served(folder, "--keep-bytes", "6M") as server:
        path = paths.record(first["execution_id"])
        eventually(lambda: server.client.get(path).status_code == 404, "the end of the oldest run")
        assert server.client.get(paths.record(second["execution_id"])).status_code == 200
        assert (run_folder(folder, second["execution_id"]) / "work" / "data").exists()


def family_of(server: ServedProcess) -> list[psutil.Process] | None:
    """All processes that a server with one run has started, once they are complete."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    return family if len(family) >= 4 else None


#: Accidents of the folder of a server that lives.
LOSSES: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "moved away": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "replaced": lambda folder: (folder.rename(folder.with_name("elsewhere")), folder.mkdir()),
    "removed with what is around it": lambda folder: shutil.rmtree(folder.parent),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_server_whose_folder_is_gone_ends_with_all_it_has_started(
    tmp_path: Path, loss: str
) -> None:
    folder = tmp_path / "around" / "state"
    with served(folder) as server:
        server.start("import time\nprint('begun', flush=True)\ntime.sleep(600)")
        eventually(lambda: list(folder.glob("runs/*/supervisor.json")), "a run")
        family = eventually(lambda: family_of(server), "a supervisor, its program, and two to come")
        LOSSES[loss](folder)
        assert server.process.wait(LIMIT_S) == 0
    eventually(lambda: not any(process.is_running() for process in family), "their end")
    assert not list(tmp_path.glob("around/state/*"))


def test_a_server_whose_lock_file_is_gone_makes_room_and_its_run_goes_on(folder: Path) -> None:
    """Another one can have the folder by then: two would spoil each other's records."""
    with served(folder) as server:
        started = server.start("import time\nprint('begun', flush=True)\ntime.sleep(600)")
        eventually(lambda: list(folder.glob("runs/*/supervisor.json")), "a run")
        (folder / "server.lock").unlink()
        assert server.process.wait(LIMIT_S) == 0
    with served(folder) as server:
        listed = server.client.get(paths.WORKLOADS).json()
        assert [run["execution_id"] for run in listed] == [started["execution_id"]]
        aborted = server.client.post(paths.abort(started["execution_id"]))
        assert aborted.json()["status"] == "aborted"
