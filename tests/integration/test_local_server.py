"""The embedded server is found, proved or started: one for a folder, and never a stranger."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from lyceum_magic.embedded import local_server
from lyceum_magic.exceptions import EmbeddedServerError, RunFailed
from lyceum_magic.folders import server_folder
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.limits import MAX_TIMEOUT_S
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.runs.run import Run
from lyceum_magic.runs.workspace import Workspace
from tests.tools.embedded import end_server, kill_server, server_facts, server_process
from tests.tools.environments import copy_of_this_environment
from tests.tools.waiting import eventually


@pytest.fixture
def folder(own_machine: Path) -> Path:
    """The state folder of this environment's server."""
    return server_folder()


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    workspace = Workspace()
    yield workspace
    workspace.close()


def submit(workspace: Workspace, code: str) -> Run:
    request = StartPython(code=code, execution_type="cpu", timeout=MAX_TIMEOUT_S)
    return workspace.submit(workspace.client("local"), request)


def change_facts(folder: Path, **changes: object) -> None:
    """Rewrite members of `server.json` in place: its mode stays."""
    (folder / "server.json").write_text(json.dumps({**server_facts(folder), **changes}))


class Stranger:
    """A program on a port that once was a server's: answers everything, and remembers it."""

    def __init__(self, port: int) -> None:
        self.heard = b""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(5)
                said = connection.recv(65536)
                if said == b"end":
                    return
                self.heard += said
                body = b'{"status": "healthy", "proof": "00"}'
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n"
                connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + body)

    def close(self) -> None:
        with socket.create_connection(self._listener.getsockname()) as last:
            last.sendall(b"end")
        self._thread.join()
        self._listener.close()


@pytest.fixture
def stranger(folder: Path) -> Iterator[Stranger]:
    """A server has died, and another program listens on its port."""
    account = local_server.ensure(folder)
    kill_server(folder)
    stranger = Stranger(int(account.base_url.rpartition(":")[2]))
    yield stranger
    stranger.close()


# One server.


def test_a_server_that_runs_is_found_again(folder: Path) -> None:
    first = local_server.ensure()
    pid = server_facts(folder)["pid"]
    assert local_server.ensure() == local_server.find() == first
    assert first.is_embedded
    assert server_facts(folder)["pid"] == pid


def test_processes_that_ask_at_once_share_one_server(folder: Path) -> None:
    program = (
        "from lyceum_magic.embedded import local_server;"
        "account = local_server.ensure(); print(account.base_url, account.token.reveal())"
    )
    asking = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    answers = {process.communicate()[0] for process in asking}
    assert [process.returncode for process in asking] == [0] * 6
    facts = server_facts(folder)
    assert answers == {f"{facts['base_url']} {facts['api_key']}\n"}
    serving = [p for p in psutil.process_iter() if _serves(p, folder)]
    assert [process.pid for process in serving] == [facts["pid"]]


def _serves(process: psutil.Process, folder: Path) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return "serve" in line and str(folder) in line


def test_each_folder_has_a_server_and_a_key_of_its_own(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    try:
        one, two = (local_server.ensure(folder) for folder in folders)
        assert one.base_url != two.base_url
        assert one.token != two.token
    finally:
        for folder in folders:
            end_server(folder)


@pytest.mark.parametrize("is_home_set", [False, True])
def test_kernels_of_two_environments_see_their_own_packages(
    tmp_path: Path, is_home_set: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_home_set:
        monkeypatch.delenv("LYCEUM_MAGIC_HOME")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    program = (
        "import lyceum_magic\nfrom lyceum_magic import folders\n"
        "run = lyceum_magic.submit('import sys; print(sys.prefix)').result()\n"
        "print(run.text, folders.server_folder(), sep='')"
    )
    seen = []
    try:
        for name in ("one", "two"):
            python = copy_of_this_environment(tmp_path / name)
            done = subprocess.run([python, "-c", program], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            seen.append(done.stdout.splitlines())
    finally:
        for folder in (tmp_path / "state").glob("*/servers/*"):
            end_server(folder)
    assert [prefix for prefix, _ in seen] == [str(tmp_path / "one"), str(tmp_path / "two")]
    assert seen[0][1] != seen[1][1]


# What a server is started with.


def test_a_server_has_a_session_of_its_own_and_none_of_the_users_keys(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's interrupts do not reach it, and its runs do not find the keys."""
    monkeypatch.setenv("LYCEUM_API_KEY", "lk_canary")
    monkeypatch.setenv("LYCEUM_ORG", "canary-org")
    local_server.ensure(folder)
    process = server_process(folder)
    assert process is not None
    assert os.getsid(process.pid) == process.pid
    said = str(process.environ()) + str(process.cmdline())
    assert "canary" not in said
    assert server_facts(folder)["api_key"] not in said


def test_a_server_that_cannot_start_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EmbeddedServerError, match=r"did not start: it said nothing; its log is"):
        local_server.ensure(folder)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="LYCEUM_MAGIC_HOME") as caught:
        local_server.ensure(tmp_path / place)
    assert "\n" not in str(caught.value)


# Deaths.


def test_after_a_kill_the_next_asks_for_the_same_key_at_the_same_place(folder: Path) -> None:
    before = local_server.ensure()
    pid = kill_server(folder)
    assert local_server.find() is None
    assert local_server.ensure() == before
    assert server_facts(folder)["pid"] != pid


def test_a_request_to_a_server_that_was_killed_starts_it_again(
    folder: Path, workspace: Workspace
) -> None:
    assert submit(workspace, "print(1)").result().text == "1\n"
    kill_server(folder)
    assert submit(workspace, "print(2)").result().text == "2\n"
    kill_server(folder)
    assert all(entry.is_final for entry in workspace.runs.as_now(workspace.history.entries()))
    assert workspace.ask(workspace.accounts.embedded().active) == []


def test_a_run_goes_on_without_its_server(
    folder: Path, workspace: Workspace, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    code = "import os, time\nprint('a', flush=True)\n"
    code += f"while not os.path.exists({str(gate)!r}): time.sleep(.01)"
    run = submit(workspace, f"{code}\nprint('b')")
    eventually(lambda: run.text == "a\n", "the first line")
    for _ in range(3):
        kill_server(folder)
        eventually(lambda: server_process(folder), "a server again")
    gate.touch()
    assert run.result().text == "a\nb\n"
    assert run.record()["combined_output"] == "a\nb\n"


# Ends in order, with which the key changes.


def test_a_server_that_is_ending_is_waited_for_and_followed_by_another(folder: Path) -> None:
    before = local_server.ensure()
    process = server_process(folder)
    assert process is not None
    process.terminate()
    lock = folder / "server.lock"
    eventually(lambda: before.base_url not in lock.read_text(), "the server begins to end")
    after = local_server.ensure()
    assert after.base_url == before.base_url
    assert after.token != before.token


def test_runs_are_followed_and_started_across_ends(
    folder: Path, workspace: Workspace, tmp_path: Path
) -> None:
    """Two processes follow one run while its server ends thrice; each end changes the key."""
    gate, other = tmp_path / "gate", Workspace()
    code = f"import os, time\nprint('a', flush=True)\nwhile not os.path.exists({str(gate)!r}): "
    run = submit(workspace, f"{code}time.sleep(.01)\nprint('b')")
    run.wait_started()
    followed = other.attach(run.id)
    try:
        keys = set()
        for _ in range(3):
            eventually(lambda: run.text == followed.text == "a\n", "the first line")
            keys.add(server_facts(folder)["api_key"])
            process = server_process(folder)
            assert process is not None
            process.terminate()
            process.wait()
            eventually(lambda: server_process(folder), "a server again")
            assert submit(workspace, "print(1)").result().text == "1\n"
        assert len(keys) == 3
        gate.touch()
        assert run.result().text == followed.result().text == "a\nb\n"
        assert followed.record()["status"] == "completed"
    finally:
        other.close()


def test_a_process_that_saw_nothing_of_the_end_goes_on_with_the_new_key(
    folder: Path, workspace: Workspace
) -> None:
    """The server serves at the same place again, so that nothing but its refusal tells."""
    run = submit(workspace, "print(1)").result()
    other = Workspace()
    assert other.attach(run.id).record()["status"] == "completed"
    assert local_server.end(folder)
    assert submit(workspace, "print(2)").result().text == "2\n"
    assert other.attach(run.id).record()["status"] == "completed"
    assert submit(other, "print(3)").result().text == "3\n"
    other.close()


# Strangers.


def test_a_stale_file_without_anybody_behind_it_is_no_obstacle(folder: Path) -> None:
    before = local_server.ensure()
    kill_server(folder)
    (folder / "server.lock").unlink()
    assert local_server.ensure().base_url == before.base_url


def test_a_program_on_the_servers_port_is_never_told_the_key(
    folder: Path, stranger: Stranger
) -> None:
    key = server_facts(folder)["api_key"]
    account = local_server.ensure(folder)
    assert account.base_url == server_facts(folder)["base_url"]
    assert account.token.reveal() == key
    assert not stranger.heard


def test_a_kernel_that_knew_the_old_server_does_not_tell_the_stranger_either(
    folder: Path, workspace: Workspace
) -> None:
    run = submit(workspace, "print(1)").result()
    key = server_facts(folder)["api_key"]
    port = int(server_facts(folder)["base_url"].rpartition(":")[2])
    kill_server(folder)
    stranger = Stranger(port)
    try:
        assert run.record()["status"] == "completed"
        assert submit(workspace, "print(2)").result().text == "2\n"
    finally:
        stranger.close()
    assert key.encode() not in stranger.heard
    assert not stranger.heard


def test_a_stranger_that_holds_the_lock_too_is_asked_for_a_proof_and_refused(
    folder: Path,
) -> None:
    """Only the same user can hold the lock; a proof is asked for all the same."""
    account = local_server.ensure(folder)
    key = account.token.reveal()
    kill_server(folder)
    stranger = Stranger(int(account.base_url.rpartition(":")[2]))
    program = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\nprint('held', flush=True)\ninput()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "server.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(EmbeddedServerError):
            local_server.ensure(folder)
    finally:
        holder.communicate("\n")
        stranger.close()
    assert b"nonce=" in stranger.heard
    assert key.encode() not in stranger.heard


@pytest.mark.parametrize("url", ["http://192.0.2.1:80", "http://example.invalid:80", "nonsense"])
def test_a_file_that_names_another_machine_is_not_followed(folder: Path, url: str) -> None:
    local_server.ensure(folder)
    pid = kill_server(folder)
    change_facts(folder, base_url=url)
    assert local_server.find(folder) is None
    assert pid


# What lies in the folder.


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_could_read_is_never_used_again(folder: Path, mode: int) -> None:
    account = local_server.ensure(folder)
    kill_server(folder)  # after which the key would stay
    (folder / "server.json").chmod(mode)
    assert local_server.find(folder) is None
    assert local_server.ensure(folder).token != account.token
    assert (folder / "server.json").stat().st_mode & 0o777 == 0o600


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a function that puts something else in the place of a file."""

    def damage(file: Path) -> None:
        file.unlink(missing_ok=True)
        make(file)

    return damage


def make_full_folder(place: Path) -> None:
    place.mkdir()
    (place / "kept").touch()


@pytest.mark.parametrize("name", ["server.json", "deliveries.json", "interpreter.json"])
@pytest.mark.parametrize("make", [Path.mkdir, make_full_folder, os.mkfifo])
def test_what_is_no_file_in_the_place_of_one_keeps_no_server_from_its_start(
    folder: Path, name: str, make: Callable[[Path], object]
) -> None:
    folder.mkdir(parents=True)
    make(folder / name)
    local_server.ensure()
    end_server(folder)
    assert (folder / name).is_file()


@pytest.mark.parametrize("name", ["start.lock", "server.log", "server.lock"])
def test_what_is_no_file_in_the_place_of_a_lock_or_log_is_named(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    with pytest.raises(EmbeddedServerError, match=rf"{folder / name}.*[Rr]emove "):
        local_server.ensure()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"api_key": "lk_canary"}', "\x00"])
def test_a_file_that_no_server_wrote_is_replaced(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "server.json").write_text(text)
    (folder / "server.json").chmod(0o600)
    account = local_server.ensure()
    assert server_facts(folder)["base_url"] == account.base_url
    assert account.token.reveal() != "lk_canary"


#: Damages to `server.json` while its server lives.
DAMAGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda file: file.write_text(""),
    "cut off": lambda file: file.write_text(file.read_text()[:40]),
    "no object": lambda file: file.write_text("[]"),
    "removed": lambda file: file.unlink(),
    "no key": lambda file: change_facts(file.parent, api_key=None),
    "an empty key": lambda file: change_facts(file.parent, api_key=""),
    "a port in words": lambda file: change_facts(file.parent, base_url="http://127.0.0.1:http"),
    "open to others": lambda file: file.chmod(0o644),
    "closed to all": lambda file: file.chmod(0),
    "a folder": replace_by(Path.mkdir),
    "a folder that is not empty": replace_by(make_full_folder),
    "a pipe": replace_by(os.mkfifo),
    "a link": lambda file: file.rename(file.parent / "x") and file.symlink_to(file.parent / "x"),
    "another's": lambda file: change_facts(file.parent, pid=1, base_url="http://127.0.0.1:9"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_file_beside_a_live_server_is_written_again(folder: Path, damage: str) -> None:
    before = local_server.ensure()
    pid = server_facts(folder)["pid"]
    DAMAGES[damage](folder / "server.json")
    program = (
        "from lyceum_magic.embedded import local_server; print(local_server.ensure().base_url)"
    )
    new = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert new.stdout == f"{before.base_url}\n", new.stderr
    assert server_facts(folder)["pid"] == pid
    assert not (folder / "server.json").stat().st_mode & 0o177
    assert local_server.find() == before


def test_a_live_server_that_cannot_be_reached_is_named_with_the_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = local_server.ensure()
    monkeypatch.setattr(local_server, "_MEND_LIMIT_S", 0.0)
    process = server_process(folder)
    assert process is not None
    process.suspend()  # so that it mends nothing
    eventually(lambda: process.status() == psutil.STATUS_STOPPED, "it is stopped")
    (folder / "server.json").write_text("{")
    with pytest.raises(EmbeddedServerError) as caught:
        local_server.ensure()
    said = str(caught.value)
    assert f"Process {process.pid} serves {folder}" in said
    assert f"`kill -9 {process.pid}`" in said  # a stopped process heeds no other signal
    assert account.token.reveal() not in said
    done = subprocess.run(
        [sys.executable, "-m", "lyceum_magic.cli", "doctor"], capture_output=True, text=True
    )
    assert "cannot be reached" in done.stdout
    assert f"kill -9 {process.pid}" in done.stdout
    process.kill()  # the way out
    process.wait()
    assert local_server.ensure().base_url


@pytest.mark.parametrize("key", ["", None])
def test_a_file_without_a_key_opens_no_server(folder: Path, key: str | None) -> None:
    local_server.ensure()
    kill_server(folder)
    change_facts(folder, api_key=key)
    account = local_server.ensure()
    assert len(account.token.reveal()) > 40
    parts = urlsplit(account.base_url)
    for header in ("Bearer ", "Bearer", "Bearer None", "Bearer null", "bearer \t"):
        # Not httpx: it would not send the first of them.
        with closing(http.client.HTTPConnection(str(parts.hostname), parts.port)) as connection:
            connection.request("GET", paths.WORKLOADS, headers={"Authorization": header})
            assert connection.getresponse().status == 401


# Versions.


def test_an_older_server_that_is_idle_makes_room(folder: Path) -> None:
    before = local_server.ensure(folder)
    pid = server_facts(folder)["pid"]
    change_facts(folder, version="0.0.1")
    after = local_server.ensure(folder)
    assert after.token != before.token
    facts = server_facts(folder)
    assert facts["pid"] != pid
    assert facts["version"] == local_server.__version__
    assert not psutil.pid_exists(pid)


def test_an_older_server_that_has_a_run_is_used(folder: Path, workspace: Workspace) -> None:
    run = submit(workspace, "import time; time.sleep(600)")
    change_facts(folder, version="0.0.1")
    account = local_server.ensure(folder)
    assert account.base_url == server_facts(folder)["base_url"]
    assert server_facts(folder)["version"] == "0.0.1"
    run.abort()
    with pytest.raises(RunFailed):
        run.result()


def test_a_newer_server_is_used(folder: Path) -> None:
    before = local_server.ensure(folder)
    change_facts(folder, version="99.0")
    assert local_server.ensure(folder) == before
    assert server_facts(folder)["version"] == "99.0"


# The end.


def test_ending_a_server_is_refused_while_it_has_runs(folder: Path, workspace: Workspace) -> None:
    assert local_server.end(folder)
    run = submit(workspace, "import time; time.sleep(600)")
    assert not local_server.end(folder)
    run.abort()
    assert local_server.end(folder)
    eventually(lambda: server_process(folder) is None, "the server's end")


def test_looking_for_a_server_leaves_no_trace(folder: Path) -> None:
    assert local_server.find(folder) is None
    assert not folder.exists()
