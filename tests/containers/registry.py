"""A private registry that asks for a name and a password, and one that delivers slowly."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker

from tests.tools.waiting import eventually

USERNAME = "ada"
PASSWORD = "open-sesame-4711"

_CONFIG = """
version: 0.1
log: {{accesslog: {{disabled: true}}, level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""


@dataclass(frozen=True)
class Registry:
    """Its address: `127.0.0.1:port`, to which engines speak plain HTTP."""

    address: str

    def push(self, image: str, name: str) -> str:
        """Put an image of the engine into the registry; return its name there."""
        there = f"{self.address}/{name}"
        client = docker.from_env()
        client.images.get(image).tag(there)
        credentials = {"username": USERNAME, "password": PASSWORD}
        for event in client.api.push(there, stream=True, decode=True, auth_config=credentials):
            assert "error" not in event, event
        client.images.remove(there)
        client.close()
        return there

    def push_bytes(self, size: int, name: str) -> str:
        """Put an image into the registry that is one file of random bytes and not in the engine."""
        with tempfile.TemporaryDirectory() as folder:
            blob, archive = Path(folder, "blob"), Path(folder, "blob.tar")
            blob.write_bytes(os.urandom(size))
            with tarfile.open(archive, "w") as tar:
                tar.add(blob, "blob")
            subprocess.run(
                ["docker", "import", archive, "blob:test"], check=True, capture_output=True
            )
        there = self.push("blob:test", name)
        subprocess.run(["docker", "rmi", "blob:test"], check=True, capture_output=True)
        return there


@contextmanager
def private_registry() -> Iterator[Registry]:
    """A registry that lets in USERNAME with PASSWORD, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        line = subprocess.run(
            ["htpasswd", "-Bbn", USERNAME, PASSWORD], check=True, capture_output=True
        ).stdout
        Path(folder, "htpasswd").write_bytes(line)
        port = _free_port()
        config = Path(folder, "config.yml")
        config.write_text(_CONFIG.format(folder=folder, port=port))
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
        try:
            eventually(lambda: _listens(process, port), "the registry listens")
            yield Registry(f"127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait()


class SlowRegistry:
    """Another address of a registry, whose large blobs trickle from their middle on.

    An engine that is told to stop notices that with the next bytes, hence not silence.

    Attributes:
        released: to be set for the rest to come at once.
        is_stuck: set when a client waits for the rest.
        was_left: set when the client that waited has hung up.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.released = threading.Event()
        self.is_stuck = threading.Event()
        self.was_left = threading.Event()
        slow = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                slow.forward(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def forward(self, handler: BaseHTTPRequestHandler) -> None:
        origin = http.client.HTTPConnection(self._origin)
        headers = {key: value for key, value in handler.headers.items() if key != "Host"}
        origin.request(handler.command, handler.path, headers=headers)
        reply = origin.getresponse()
        body = reply.read()
        handler.send_response(reply.status)
        for key, value in reply.getheaders():
            if key.lower() not in ("connection", "transfer-encoding"):
                handler.send_header(key, value)
        handler.end_headers()
        sent = len(body) // 2 if len(body) > 1 << 20 else 0
        try:
            handler.wfile.write(body[:sent])
            while sent and not self.released.wait(0.05):
                self.is_stuck.set()
                handler.wfile.write(body[sent : sent + 1])
                sent += 1
            handler.wfile.write(body[sent:])
        except (BrokenPipeError, ConnectionResetError):
            self.was_left.set()

    @contextmanager
    def serving(self) -> Iterator[SlowRegistry]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "docker-registry ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def basic(username: str = USERNAME, password: str = PASSWORD) -> dict[str, str]:
    """The fields of a start that sign in to the registry."""
    return {
        "docker_registry_credential_type": "basic",
        "docker_username": username,
        "docker_password": password,
    }
