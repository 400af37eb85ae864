"""Another user who listens where the server of a key has listened is told nothing of the key."""

from __future__ import annotations

import fcntl
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import jwt
import pytest

from lyceum_magic.config import server_folder
from lyceum_magic.embedded import local_server
from lyceum_magic.exceptions import ConfigError, ServerUnreachable
from lyceum_magic.magic import line
from lyceum_magic.magic.cell import Defaults
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.runs.workspace import Workspace
from tests.attacks.stranger import Stranger
from tests.integration.test_lyceum_cli import LYCEUM
from tests.tools.embedded import server_facts, server_process
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import CLIENT_LIMIT_S, eventually

LIMIT_S = 120

pytestmark = pytest.mark.timeout(2 * LIMIT_S)

#: Listens at an address as soon as it is free, answers whatever is asked as a healthy server, or as
#: the server at another port answers it, and writes down all that is said to it.
_LISTENER = """
    import socket, sys, threading, time

    host, port, file, real_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    heard = open(file, "ab", buffering=0)
    body = (
        b'{"status": "healthy", "version": "9.9", "proof": "00", "key_proofs": ["00"], '
        b'"machine_types": [], "available_hardware_profiles": [], "execution_id": "x", '
        b'"access_token": "x", "status": "completed", "slug": "local"}'
    )
    head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\n"
    head += b"content-length: %d\\r\\n\\r\\n" % len(body)

    def answered_by_the_server(said):
        said = said.replace(b":%d\\r" % port, b":%d\\r" % real_port, 1)
        said = said.replace(b"::1:", b"127.0.0.1:", 1)
        said = said.replace(b"\\r\\n\\r\\n", b"\\r\\nConnection: close\\r\\n\\r\\n", 1)
        with socket.create_connection(("127.0.0.1", real_port)) as server:
            server.sendall(said)
            answer = b""
            while more := server.recv(65536):
                answer += more
        return answer

    def serve(connection):
        with connection:
            while said := connection.recv(65536):
                heard.write(said)
                answer = answered_by_the_server(said) if real_port else head + body
                connection.sendall(answer)

    while True:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
            break
        except OSError:
            listener.close()
            time.sleep(0.001)
    print("ready")
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    """


class Listener:
    """Return what the stranger's program has received."""

    def __init__(self, process: subprocess.Popen[str], file: Path) -> None:
        self._process = process
        self._file = file

    def wait(self) -> None:
        """Return once it listens."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    @property
    def heard(self) -> str:
        return self._file.read_text("latin-1") if self._file.exists() else ""


@contextmanager
def listening(
    stranger: Stranger, port: int, *, host: str = "127.0.0.1", relay_to: int = 0
) -> Iterator[Listener]:
    """The stranger's program, which listens as soon as it can.

    Args:
        relay_to: the port of the server whose answers it gives; 0 for answers of its own.
    """
    file = stranger.home / f"heard-{port}-{time.monotonic_ns()}"
    with stranger.running(_LISTENER, host, str(port), str(file), str(relay_to)) as process:
        yield Listener(process, file)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def new_key(server: ServedProcess) -> str:
    reply = server.client.post(paths.KEYS, json={"key_name": "laptop"})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["api_key"])


def log_in(url: str, key: str) -> None:
    """With the official client, as the README says."""
    command = [str(LYCEUM), "auth", "login", "--url", url, "--api-key", key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout


def write_login(**members: str) -> None:
    file = Path.home() / ".lyceum" / "config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(members))


def python(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    workspace = Workspace()
    yield workspace
    workspace.close()


# A login whose server has ended.


def test_submit_tells_no_key_to_whoever_took_the_port(stranger: Stranger, folder: Path) -> None:
    with served(folder) as server:
        key = new_key(server)
        log_in(server.base_url, key)
        program = "import lyceum_magic; print(lyceum_magic.submit('print(6 * 7)').result().text)"
        assert python(program).stdout == "42\n\n"
        server.end()
    with listening(stranger, port_of(server.base_url)) as listener:
        listener.wait()
        done = python(program)
        assert "keys create NAME" in done.stderr.splitlines()[-1]
        assert f"key={key[:8]} " in listener.heard
        assert key[8:] not in listener.heard
        assert "uthorization" not in listener.heard
        with served(folder) as server:  # where the key is as good as ever, for its owner
            log_in(server.base_url, key)
            assert python(program).stdout == "42\n\n"


@pytest.mark.parametrize(
    "program",
    [
        "from lyceum_magic.cli import main; main(['doctor'])",
        "from lyceum_magic import attach; attach('last').result()",
        "from lyceum_magic import attach; attach('last').record()",
        "import lyceum_magic; lyceum_magic.submit_image('alpine', 'true')",
    ],
)
def test_nothing_else_tells_them_either(stranger: Stranger, folder: Path, program: str) -> None:
    with served(folder) as server:
        key = new_key(server)
        log_in(server.base_url, key)
        started = python("import lyceum_magic; lyceum_magic.submit('import time; time.sleep(60)')")
        assert started.returncode == 0, started.stderr
        server.end()
    with listening(stranger, port_of(server.base_url)) as listener:
        listener.wait()
        python(program)
        assert f"key={key[:8]} " in listener.heard
        assert key[8:] not in listener.heard
    with served(folder) as server:
        for run in server.client.get(paths.WORKLOADS).json():
            server.client.post(paths.abort(run["execution_id"]))


def test_a_process_that_has_talked_to_the_server_tells_them_nothing(
    stranger: Stranger, folder: Path, workspace: Workspace
) -> None:
    """Its connection was proved, and the next one is another."""
    with served(folder) as server:
        key = new_key(server)
        log_in(server.base_url, key)
        client = workspace.client()
        assert workspace.ask(client.machine_types)
        with listening(stranger, port_of(server.base_url)) as listener:
            server.end()
            listener.wait()
            for ask in (client.machine_types, client.active, client.history):
                with pytest.raises(ConfigError):
                    workspace.ask(ask)
            assert "nonce=" in listener.heard
            assert key[8:] not in listener.heard


@pytest.mark.parametrize("stale", [True, False])
def test_neither_token_of_a_sign_in_is_told(
    stranger: Stranger, folder: Path, workspace: Workspace, stale: bool
) -> None:
    with served(folder) as server:
        body = {"email": "", "password": new_key(server)}
        pair = server.client.post(paths.LOGIN, json=body).json()
        access, refresh = pair["access_token"], pair["refresh_token"]
        if stale:
            access = jwt.encode({"exp": int(time.time()) - 10}, "made up, and of 256 bits at least")
        write_login(base_url=server.base_url, api_key=access, refresh_token=refresh)
        server.end()
    with listening(stranger, port_of(server.base_url)) as listener:
        listener.wait()
        with pytest.raises(ConfigError):
            workspace.ask(workspace.client().machine_types)
        assert "nonce=" in listener.heard
        for token in (access, refresh):
            assert token.rpartition(".")[2] not in listener.heard


def test_a_key_that_is_typed_for_the_logins_server_is_not_told_either(
    stranger: Stranger, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, port = f"lk_typed-{'k' * 37}", _free_port()
    write_login(base_url=f"http://127.0.0.1:{port}")
    monkeypatch.setattr(line, "workspace", lambda: workspace)
    monkeypatch.setattr(line, "ask_secret", lambda *question: key)
    defaults = Defaults(machine="cpu", timeout_s=60, max_lines=100, max_bytes=10_000)
    with listening(stranger, port) as listener:
        listener.wait()
        with pytest.raises(ConfigError, match="does not prove"):
            line.run_line("login", defaults, lambda *names: None)
        assert "nonce=" in listener.heard
        assert key[8:] not in listener.heard
    assert key not in (Path.home() / ".lyceum" / "config.json").read_text()


# A program in between.


def test_a_proof_from_the_server_at_another_port_does_not_help(
    stranger: Stranger, folder: Path, workspace: Workspace
) -> None:
    with served(folder, "--profile", "shared") as server:
        key = new_key(server)
        log_in(server.base_url, key)
        server.end()
    port, other = port_of(server.base_url), _free_port()
    with (
        served(folder, "--profile", "shared", "--port", str(other)),
        listening(stranger, port, relay_to=other) as listener,
    ):
        listener.wait()
        with pytest.raises((ConfigError, ServerUnreachable)):
            workspace.ask(workspace.client().machine_types)
        assert "nonce=" in listener.heard
        assert key[8:] not in listener.heard


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_a_program_at_the_same_port_of_another_address_does_not_help(
    stranger: Stranger, folder: Path, workspace: Workspace, host: str
) -> None:
    with served(folder, "--profile", "shared") as server:
        key = new_key(server)
        port = port_of(server.base_url)
        write_login(base_url=f"http://{host}:{port}", api_key=key)
        with listening(stranger, port, host="::1", relay_to=port) as listener:
            listener.wait()
            try:
                workspace.ask(workspace.client().machine_types)
            except (ConfigError, ServerUnreachable):
                assert "nonce=" in listener.heard
            else:  # by the name it has found the server itself
                assert host == "localhost"
            assert key[8:] not in listener.heard


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# The key in server.json.


def test_the_servers_own_key_is_worth_nothing_after_its_end(
    stranger: Stranger, folder: Path
) -> None:
    with served(folder) as server:
        stolen = server.facts()["api_key"]
        server.end()
    with served(folder) as server:
        code = """
            import sys, urllib.error, urllib.request
            request = urllib.request.Request(sys.argv[1], headers={"Authorization": sys.argv[2]})
            try:
                print(urllib.request.urlopen(request).status)
            except urllib.error.HTTPError as exc:
                print(exc.code)
            except OSError:
                print("nothing")
            """
        url = f"{server.base_url}{paths.ORG}"
        assert stranger.run(code, url, f"Bearer {stolen}").strip() in ("401", "nothing")
        headers = {"Authorization": f"Bearer {stolen}"}
        assert (
            httpx.get(url, headers=headers, trust_env=False, timeout=CLIENT_LIMIT_S).status_code
            == 401
        )


def test_a_run_is_followed_past_a_stranger_who_took_the_port(
    stranger: Stranger, own_machine: Path, workspace: Workspace, tmp_path: Path
) -> None:
    """While its server ends, no program is told the key or the secret of the run's stream."""
    gate = tmp_path / "gate"
    code = f"import os, time\nprint('a', flush=True)\nwhile not os.path.exists({str(gate)!r}): "
    request = StartPython(
        code=f"{code}time.sleep(.01)\nprint('b')", execution_type="cpu", timeout=600
    )
    run = workspace.submit(workspace.embedded(), request)
    eventually(lambda: run.text == "a\n", "the first line")
    port = port_of(server_facts(own_machine)["base_url"])
    process = server_process(own_machine)
    assert process is not None
    lock_file = server_folder() / "start.lock"
    with listening(stranger, port) as listener, lock_file.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # no server starts before the stranger listens
        process.terminate()
        listener.wait()
        process.wait(LIMIT_S)
        fcntl.flock(lock, fcntl.LOCK_UN)
        gate.touch()
        assert run.result().text == "a\nb\n"
        assert run.record()["status"] == "completed"
        assert port_of(server_facts(own_machine)["base_url"]) != port
        assert listener.heard == ""


def test_a_stranger_at_the_port_is_not_taken_for_the_server(
    stranger: Stranger, own_machine: Path
) -> None:
    local_server.ensure()
    port = port_of(server_facts(own_machine)["base_url"])
    process = server_process(own_machine)
    assert process is not None
    with listening(stranger, port) as listener:
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
        listener.wait()
        assert local_server.find() is None
        assert port_of(local_server.ensure().base_url) != port
        assert listener.heard == ""
