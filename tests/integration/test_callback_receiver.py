"""The rules of both receivers: in a real Jupyter server, and on a loopback port of a process.

Raw requests over a socket, because the requests to refuse are those that no library sends.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from lyceum_magic.inbox import jupyter_servers, loopback
from lyceum_magic.inbox.loopback import PATH, LoopbackReceiver
from lyceum_magic.inbox.store import InboxStore
from lyceum_magic.protocol.callbacks import MAX_BODY_BYTES
from tests.tools.jupyter_server import JupyterServer, running_jupyter_server
from tests.tools.waiting import LIMIT_S, eventually

BODY = b'{"execution_id": "run-1", "status": "completed"}'


class Face:
    """A receiver, and an address of it at which this test waits."""

    def __init__(self, port: int, path: str, folder: Path) -> None:
        self.port = port
        self.inbox = InboxStore(folder)
        self.process = secrets.token_hex(4)
        self.secret = secrets.token_urlsafe(32)
        self.path = path + self.secret
        self.bell = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.bell.bind(("127.0.0.1", 0))
        self.bell.settimeout(LIMIT_S)
        self.inbox.register(
            self.secret, process=self.process, tag=None, poke_port=self.bell.getsockname()[1]
        )

    def send(self, head: str, body: bytes = b"") -> int:
        """Return the status of the answer to a raw request; `HOST` stands for the right host."""
        head = head.replace("PATH", self.path).replace("HOST", f"127.0.0.1:{self.port}")
        with socket.create_connection(("127.0.0.1", self.port), LIMIT_S) as connection:
            with suppress(ConnectionError):  # refused before all of it was read, and answered
                connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
            answer = b""
            while b"\r\n\r\n" not in answer:
                piece = connection.recv(4096)
                assert piece, f"no answer: {answer!r}"
                answer += piece
        assert self.secret.encode() not in answer
        assert b"access-control" not in answer.lower()
        return int(answer.split()[1])

    def post(self, body: bytes = BODY, *headers: str, path: str = "PATH") -> int:
        length = f"Content-Length: {len(body)}"
        lines = [f"POST {path} HTTP/1.1", "Host: HOST", length, "Connection: close", *headers]
        return self.send("\n".join(lines), body)

    def arrived(self) -> list[str]:
        return [arrival.event.id for arrival in self.inbox.arrivals(self.process)]


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    folder = tmp_path_factory.mktemp("jupyter")
    with running_jupyter_server(folder, env={"LYCEUM_MAGIC_HOME": str(folder / "lyceum")}) as it:
        callbacks = folder / "lyceum" / "callbacks"
        environ = {"JPY_PARENT_PID": str(it.pid)}
        eventually(lambda: jupyter_servers.url_of_mine(callbacks, environ), "the server's file")
        yield it


@pytest.fixture(params=["jupyter", "loopback"])
def face(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Face]:
    with ExitStack() as stack:
        if request.param == "jupyter":
            server: JupyterServer = request.getfixturevalue("jupyter")
            path = f"{server.base}{PATH.lstrip('/')}"
            made = Face(server.port, path, server.folder / "lyceum" / "callbacks")
            stack.callback(assert_silent, server, made)
        else:
            inbox = InboxStore(tmp_path / "callbacks")
            receiver, _ = stack.enter_context(running_loopback(inbox))
            made = Face(receiver.port, PATH, tmp_path / "callbacks")
        stack.callback(made.bell.close)
        yield made


@contextmanager
def running_loopback(inbox: InboxStore) -> Iterator[tuple[LoopbackReceiver, BlockingPortal]]:
    with start_blocking_portal() as portal:
        receiver = LoopbackReceiver(inbox)
        task, _ = portal.start_task(receiver.serve)
        try:
            yield receiver, portal
        finally:
            task.cancel()


def assert_silent(server: JupyterServer, face: Face) -> None:
    """Check that neither secret nor path is in the log, which has everything else at DEBUG."""
    server.ask("GET", "api/status")  # after this, all that came before is in the log
    assert "GET /user/ann/api/status" in server.log
    assert face.secret not in server.log
    assert PATH + face.secret[:4] not in server.log


def test_a_callback_is_kept_and_told_of(face: Face) -> None:
    assert face.post(BODY, "webhook-id: msg_1") == 204
    assert face.bell.recv(16) == b""
    [arrival] = face.inbox.arrivals(face.process)
    assert (arrival.event.id, arrival.event.run_id) == ("msg_1", "run-1")


def test_a_callback_that_comes_again_is_kept_once(face: Face) -> None:
    first, *others = (face.post(BODY, "webhook-id: msg_1") for _ in range(3))
    assert (first, others) == (204, [204, 204])
    assert face.post() == face.post() == 204  # without an id: run and state
    assert face.arrived() == ["msg_1", "run-1/completed"]


@pytest.mark.parametrize(
    "twice", [["webhook-id: a", "Webhook-Id: b"], ["webhook-timestamp: 1"] * 2], ids=["id", "time"]
)
def test_headers_that_contradict_each_other_are_refused(face: Face, twice: list[str]) -> None:
    assert face.post(BODY, *twice) == 400
    assert face.arrived() == []


def test_a_chunked_body_is_taken(face: Face) -> None:
    head = "POST PATH HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked"
    assert face.send(head, b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)) == 204
    assert face.arrived() == ["run-1/completed"]


@pytest.mark.parametrize(
    "path", ["PATHx", "PATH/", "PATH/../x", "PATH%ff", "PATH%2f", "FOLDER", "FOLDER/"]
)
def test_another_path_is_not_there(face: Face, path: str) -> None:
    assert face.post(path=path.replace("FOLDER", face.path.rpartition("/")[0])) == 404
    assert face.arrived() == []


def test_a_slash_too_many_is_not_logged(face: Face) -> None:
    assert face.post(path="/PATH") == (204 if "/user/" in face.path else 404)


@pytest.mark.parametrize(
    "path",
    [
        "http://HOST/PATH", "/lyceum/callbacks/SECRET", "/user/bob/lyceum/callbacks/SECRET",
        "/user/ann/lyceum/c%61llbacks/SECRET", "/user/ann/lyceum%2Fcallbacks/SECRET",
        "/user/ann/Lyceum/Callbacks/SECRET", "/user/ann//lyceum//callbacks//SECRET",
        "/user/ann/lyceum\\callbacks/SECRET", "/user/ann/tree/lyceum/callbacks/SECRET",
    ],
)  # fmt: skip
def test_a_path_that_is_almost_right_is_not_there_nor_in_the_log(
    jupyter: JupyterServer, path: str
) -> None:
    face = Face(
        jupyter.port, f"{jupyter.base}{PATH.lstrip('/')}", jupyter.folder / "lyceum" / "callbacks"
    )
    with closing(face.bell):
        assert face.post(path=path.replace("SECRET", face.secret)) == 404
        assert face.arrived() == []
    assert_silent(jupyter, face)


@pytest.mark.parametrize(
    "folder",
    ["lyceum/callbacks", "my-lyceum/callbacks_x", "work/lyceum/callbacks", "Lyceum/Callbacks/deep"],
)
def test_a_folder_by_the_same_name_can_be_opened(jupyter: JupyterServer, folder: str) -> None:
    (jupyter.folder / folder).mkdir(parents=True, exist_ok=True)
    (jupyter.folder / folder / "note.txt").write_text("mine")
    listed = json.loads(jupyter.ask("GET", f"api/contents/{folder}"))
    assert "note.txt" in [item["name"] for item in listed["content"]]
    assert jupyter.ask("GET", f"files/{folder}/note.txt") == b"mine"
    assert json.loads(jupyter.ask("GET", f"api/contents/{folder}/note.txt"))["content"] == "mine"


def test_a_query_is_no_part_of_the_address(face: Face) -> None:
    assert face.post(path="PATH?attempt=1") == 204


def test_a_wrong_secret_looks_like_a_path_that_is_not_there(face: Face) -> None:
    assert face.post(path=face.path.replace(face.secret, secrets.token_urlsafe(32))) == 404
    assert face.arrived() == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "NONSENSE"])
def test_only_post_is_open(face: Face, method: str) -> None:
    assert face.send(f"{method} PATH HTTP/1.1\nHost: HOST\nContent-Length: 0") == 405


@pytest.mark.parametrize(
    "header",
    ["Origin: http://evil.example", "Origin: http://HOST", "Origin: null",
     "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"],
)  # fmt: skip
def test_a_page_of_a_browser_is_refused(face: Face, header: str) -> None:
    assert face.post(BODY, header) == 403
    assert face.arrived() == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:PORT", "10.0.0.1"])
def test_a_foreign_host_is_refused(face: Face, host: str) -> None:
    host = host.replace("PORT", str(face.port))
    head = f"POST PATH HTTP/1.1\nHost: {host}\nContent-Length: {len(BODY)}"
    assert face.send(head, BODY) == 403
    assert face.arrived() == []


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[]", b'"text"', b"{}", b'{"execution_id": 7}', b"\xff\xfe{}",
     b'{"execution_id": "../x"}', b"[" * 60_000, b'{"execution_id": NaN}'],
)  # fmt: skip
def test_what_is_no_callback_is_refused(face: Face, body: bytes) -> None:
    assert face.post(body) == 400
    assert face.arrived() == []


def test_a_body_that_is_too_large_is_refused(face: Face) -> None:
    large = json.dumps({"execution_id": "run-1", "error": "x" * 200_000}).encode()
    assert face.post(large) == 413
    assert face.post(BODY.ljust(MAX_BODY_BYTES)) == 204
    assert face.post(BODY.ljust(MAX_BODY_BYTES + 1)) == 413


def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(face: Face) -> None:
    """The body never ends, and an answer comes all the same."""
    head = "POST PATH HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked"
    chunks = (b"1000\r\n" + b"x" * 4096 + b"\r\n") * (MAX_BODY_BYTES // 4096 + 1)
    assert face.send(head, chunks) == 413
    assert face.arrived() == []


def test_what_breaks_off_is_not_kept(face: Face) -> None:
    with socket.create_connection(("127.0.0.1", face.port)) as connection:
        head = f"POST {face.path} HTTP/1.1\r\nHost: 127.0.0.1:{face.port}\r\n"
        connection.sendall(head.encode() + b"Content-Length: 4000\r\n\r\n" + BODY)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(4096)
    assert face.arrived() == []


def test_a_broken_database_lets_the_sender_try_again(face: Face) -> None:
    path = face.inbox._path
    kept = path.read_bytes()
    path.write_bytes(b"no database at all" * 100)
    try:
        assert face.post() == 503
    finally:
        path.write_bytes(kept)
    assert face.post() == 204


def test_who_finds_no_room_waits_until_the_others_are_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopback, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(loopback, "LIMIT_S", 0.3)
    with ExitStack() as stack:
        receiver, _ = stack.enter_context(running_loopback(InboxStore(tmp_path)))
        face = Face(receiver.port, PATH, tmp_path)
        stack.callback(face.bell.close)
        before = len(os.listdir("/dev/fd"))
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port), 10))
            for _ in range(5)
        ]
        assert face.post() == 204
        assert len(os.listdir("/dev/fd")) <= before + len(idle) + 2
        assert [connection.recv(1) for connection in idle] == [b""] * 5


def test_a_process_without_descriptors_receives_again_when_it_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loopback, "AGAIN_S", 0.02)
    with ExitStack() as stack:
        receiver, _ = stack.enter_context(running_loopback(InboxStore(tmp_path)))
        face = Face(receiver.port, PATH, tmp_path)
        stack.callback(face.bell.close)
        client = stack.enter_context(closing(socket.socket()))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        highest = max(map(int, os.listdir("/dev/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
        with ExitStack() as taken:
            with suppress(OSError):
                while True:
                    taken.callback(os.close, os.dup(client.fileno()))
            client.connect(("127.0.0.1", receiver.port))
            eventually(lambda: "no callback can be received now" in caplog.text, "a refusal")
        assert face.post() == 204


def test_a_connection_that_fails_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = InboxStore(tmp_path)
    with running_loopback(inbox) as (receiver, _):
        face = Face(receiver.port, PATH, tmp_path)
        with closing(face.bell):
            with monkeypatch.context() as patched:
                patched.setattr(inbox, "find", lambda secret: {}[secret])
                with pytest.raises(AssertionError, match="no answer"):
                    face.post()
            assert face.post() == 204
    assert caplog.messages == ["a callback failed with KeyError"]


def test_the_inbox_is_its_users_alone(face: Face) -> None:
    assert face.post() == 204
    folder = face.inbox._path.parent
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("callbacks.db*")}
    assert set(files.values()) == {0o600}, files
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(face.secret.encode() not in path.read_bytes() for path in folder.glob("callback*"))


def test_a_server_with_old_and_new_configuration_loads_the_receiver_once(tmp_path: Path) -> None:
    configuration = tmp_path / "etc" / "jupyter_server_config.d" / "old_and_new.json"
    configuration.parent.mkdir(parents=True)
    names = ("lyceum_magic.jupyter", "lyceum_magic.server_extension")
    loaded = {"ServerApp": {"jpserver_extensions": dict.fromkeys(names, True)}}
    configuration.write_text(json.dumps(loaded))
    env = {
        "LYCEUM_MAGIC_HOME": str(tmp_path / "lyceum"),
        "JUPYTER_CONFIG_PATH": str(tmp_path / "etc"),
    }
    with running_jupyter_server(tmp_path / "server", env=env) as server:
        for name in names:
            assert f"{name} | extension was successfully loaded" in server.log
        assert "Traceback" not in server.log
        path = f"{server.base}{PATH.lstrip('/')}"
        face = Face(server.port, path, tmp_path / "lyceum" / "callbacks")
        with closing(face.bell):
            assert face.post(BODY, "webhook-id: msg_1") == 204
            assert face.arrived() == ["msg_1"]


def test_other_routes_of_the_jupyter_server_ask_for_its_token(jupyter: JupyterServer) -> None:
    with socket.create_connection(("127.0.0.1", jupyter.port)) as connection:
        connection.sendall(
            f"POST {jupyter.base}api/kernels HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Content-Length: 2\r\nConnection: close\r\n\r\n{}".encode()
        )
        assert connection.recv(64).split()[1] == b"403"


def test_pages_are_told_by_an_event_of_the_server(jupyter: JupyterServer) -> None:
    import websocket

    folder = jupyter.folder / "lyceum" / "callbacks"
    face = Face(jupyter.port, f"{jupyter.base}lyceum/callbacks/", folder)
    url = f"ws://127.0.0.1:{jupyter.port}{jupyter.base}api/events/subscribe?token={jupyter.token}"
    with closing(face.bell), closing(websocket.create_connection(url, LIMIT_S)) as events:
        assert face.post() == 204
        event = json.loads(events.recv())
        while not event["schema_id"].endswith("lyceum-magic:callback:1"):
            event = json.loads(events.recv())
    assert (event["execution_id"], event["status"]) == ("run-1", "completed")
    assert face.secret not in json.dumps(event)
