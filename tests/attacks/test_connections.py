"""Connections of another user: none is read, and none keeps the server from its work."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.server import descriptors, peers
from lyceum_magic.server.peers import ConnectionTable
from tests.attacks.stranger import Stranger
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import CLIENT_LIMIT_S, eventually

#: Opens connections to PORT, with half a request in each, and opens them again as they are closed.
STORM = """
import os, resource, select, socket, sys
port, how, number = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
poll, sockets, opened = select.epoll(), {}, 0
while True:
    while len(sockets) < number:
        one = socket.socket(socket.AF_INET6 if how == "ipv6" else socket.AF_INET)
        one.setblocking(False)
        address = ("::ffff:127.0.0.1", port) if how == "ipv6" else ("127.0.0.1", port)
        try:
            one.connect(address)
        except BlockingIOError:
            pass
        sockets[one.fileno()] = one
        poll.register(one, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        opened += 1
        if opened == 3 * number:
            print("ready")
    for descriptor, events in poll.poll(1):
        one = sockets[descriptor]
        try:
            if events & select.EPOLLOUT:
                one.send(b"POST /api/v1/stream/x HTTP/1.1\\r\\nHost: ")
            if how == "brief" or events & (select.EPOLLIN | select.EPOLLHUP) and not one.recv(1):
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            del sockets[descriptor]
            one.close()
"""

#: Asks PORT for PATH and prints what comes back.
ASK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as one:
    try:
        request = f"{sys.argv[2]} HTTP/1.1\\r\\nHost: 127.0.0.1:{sys.argv[1]}\\r\\n\\r\\n"
        one.sendall(request.encode())
        print(one.recv(4096))
    except ConnectionError as exc:
        print(type(exc).__name__)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def few_descriptors(soft: int, hard: int) -> list[str]:
    """Execute a command with these limits."""
    return ["sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh"]


def port_of(server: ServedProcess) -> str:
    return server.base_url.rpartition(":")[2]


def ended(server: ServedProcess, run_id: str) -> str:
    final = {"completed", "failed", "system_failure", "aborted", "cancelled"}

    def status() -> str | None:
        found = server.client.get(paths.record(run_id)).json()["status"]
        return found if found in final else None

    return str(eventually(status, f"run {run_id} ends"))


@pytest.mark.parametrize("how", ["plain", "ipv6", "brief"])
def test_runs_begin_and_end_under_a_storm_of_half_open_connections(
    folder: Path, stranger: Stranger, how: str
) -> None:
    go = folder.parent / "go"
    go.mkdir()
    code = f"import os, time\nwhile not os.path.exists({str(go / 'on')!r}): time.sleep(0.02)"
    # Hard as well: no raised limit helps here.
    with served(folder, through=few_descriptors(1024, 1024)) as server:
        held = [server.start(code)["execution_id"] for _ in range(8)]
        waiting = server.start("print(1)")["execution_id"]
        with stranger.running(STORM, port_of(server), how, "1500") as storm:
            assert storm.stdout is not None
            assert storm.stdout.readline() == "ready\n"
            (go / "on").touch()
            assert {ended(server, run_id) for run_id in [*held, waiting]} == {"completed"}
            assert psutil.Process(server.process.pid).num_fds() < 500
        assert (folder.parent / "server.log").stat().st_size < 20_000


def test_a_stranger_is_not_answered(folder: Path, stranger: Stranger) -> None:
    with served(folder) as server:
        for line in (f"GET {paths.HEALTH}", f"POST {paths.LOGIN}", "GET /openapi.json"):
            said = stranger.run(ASK, port_of(server), line)
            assert said in ("ConnectionResetError\n", "BrokenPipeError\n"), said
        assert (
            httpx.get(
                f"{server.base_url}{paths.HEALTH}", trust_env=False, timeout=CLIENT_LIMIT_S
            ).status_code
            == 200
        )


def test_a_shared_server_answers_everybody(folder: Path, stranger: Stranger) -> None:
    with served(folder, "--profile", "shared") as server:
        assert "200 OK" in stranger.run(ASK, port_of(server), f"GET {paths.HEALTH}")


def test_a_stranger_s_own_server_answers_him_and_root(
    stranger: Stranger, common_folder: Path
) -> None:
    """The user of the server counts, not that of the tests."""
    code = """
        import select, socket, sys
        sys.path.insert(0, sys.argv[1])
        import peers
        listener = peers.OwnUsersListener(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        print(listener.getsockname()[1])
        while True:
            select.select([listener], [], [])
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
            connection.sendall(b"hello")
            connection.close()
        """
    (common_folder / "peers.py").write_text(
        (Path(__file__).parents[2] / "lyceum_magic/server/peers.py").read_text()
    )
    say = (
        "import socket, sys\n"
        "print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(9))"
    )
    with stranger.running(code, str(common_folder)) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        assert stranger.run(say, port) == "b'hello'\n"
        with socket.create_connection(("127.0.0.1", int(port))) as connection:
            assert connection.recv(9) == b"hello"
        nobody = subprocess.run(
            ["python3", "-c", say, port], user=65534, group=65534, capture_output=True, text=True
        )
        assert "ConnectionResetError" in nobody.stderr or nobody.stdout == "b''\n"


def test_an_end_that_nobody_holds_is_nobody_s() -> None:
    """The kernel shows it as root's."""
    table = ConnectionTable.open()
    assert table is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = listener.getsockname()
        held, left = socket.create_connection(here), socket.create_connection(here)
        peers = [held.getsockname(), left.getsockname()]
        left.sendall(b"x")
        left.close()
        assert table.owners(here, peers) == {peers[0]: os.geteuid()}
        held.close()
    table.close()


def test_a_program_begins_with_the_limit_that_the_server_was_given(folder: Path) -> None:
    show = "import resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE))"
    with served(folder, through=few_descriptors(256, 4096)) as server:
        limits = psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert limits == (4096, 4096)
        reply = server.client.post(server.start(show)["streaming_url"])
        assert "(256, 4096)" in reply.text


def test_half_a_request_is_not_waited_for_for_ever(folder: Path) -> None:
    with served(folder) as server, contextlib.ExitStack() as connections:
        port = int(port_of(server))
        refused = (
            "POST /api/v1/execution/streaming/start HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{port}\r\nContent-Length: 5000\r\n\r\n{{"
        )
        halves = [b"", b"GET /api/v1/health HTTP/1.1\r\nHost: ", refused.encode()]
        opened = []
        for half in halves:
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.settimeout(100)
            connection.sendall(half)
            opened.append(connection)
        assert b" 401 " in opened[-1].recv(4096)
        opened[-1].sendall(b" ")  # and no more of the body
        for connection in opened:
            assert _is_closed(connection)


def _is_closed(connection: socket.socket) -> bool:
    """Return True if the server closes the connection; raise TimeoutError if it does not."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return True


def test_the_limit_is_raised_to_65536_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 200_000)]
    monkeypatch.setattr("resource.getrlimit", lambda which: limits[-1])
    monkeypatch.setattr("resource.setrlimit", lambda which, pair: limits.append(pair))
    descriptors.inherited_limit.cache_clear()
    try:
        descriptors.raise_limit()
        assert (limits[-1], descriptors.inherited_limit()) == ((65_536, 200_000), 1024)
        limits[:] = [(1024, resource.RLIM_INFINITY)]
        descriptors.raise_limit()
        assert limits[-1] == (65_536, resource.RLIM_INFINITY)
    finally:
        descriptors.inherited_limit.cache_clear()


def test_the_kernels_table_is_read_once_for_hundreds_of_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look costs milliseconds, and a stranger's connections come by the thousand."""
    looks = 0
    read = peers._read

    def counted(file: int) -> bytes:
        nonlocal looks
        looks += 1
        return read(file)

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(peers.OwnUsersListener(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        listener.listen()
        for _ in range(200):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        monkeypatch.setattr(peers, "_read", counted)
        for _ in range(200):
            stack.enter_context(listener.accept()[0])
    assert looks <= 2  # the second where the kernel has left out a line
