"""The sources of images, on a real engine."""

from __future__ import annotations

import base64
import json
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.tools.served_process import ServedProcess, served

from .registry import PASSWORD, USERNAME, Registry, SlowRegistry, basic
from .runs import HOLD, docker, error_of
from .runs import start_image as start

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_a_private_image_runs_with_the_right_credentials(
    server: ServedProcess, registry: Registry
) -> None:
    there = f"{registry.address}/team/tool:1"
    run = start(server, there, "echo", "hello", **basic())
    assert run.ended()["stdout"] == "hello\n"
    # It is here now: the credentials are looked at all the same.
    again = start(server, there, "echo", "hello", **basic(password="wrong")).ended()
    assert again["status"] == "failed"
    assert "does not accept the credentials" in error_of(again)
    docker("rmi", there)


def test_wrong_missing_and_unneeded_are_told_apart(
    server: ServedProcess, registry: Registry
) -> None:
    private = f"{registry.address}/team/tool:1"
    wrong = error_of(start(server, private, **basic(password="wrong-4711")).ended())
    assert f"{registry.address} does not accept the credentials" in wrong
    assert "wrong-4711" not in wrong
    missing = error_of(start(server, private).ended())
    assert f"gives {private} only to those who sign in" in missing
    tag = error_of(start(server, f"{registry.address}/team/tool:2", **basic()).ended())
    assert f"{registry.address} has no image {registry.address}/team/tool:2" in tag
    name = error_of(start(server, f"{registry.address}/team/none", **basic()).ended())
    assert "has no image" in name
    nowhere = error_of(start(server, "127.0.0.1:1/tool:1").ended())
    assert "the image 127.0.0.1:1/tool:1 cannot be pulled, for the registry 127.0.0.1:1" in nowhere


def test_a_pull_tells_how_far_it_is_and_ends_with_the_run(
    server: ServedProcess, registry: Registry
) -> None:
    name = "team/large:1"
    registry.push_bytes(8 << 20, name)
    with SlowRegistry(registry.address).serving() as slow:
        run = start(server, f"{slow.address}/{name}", "x", **basic())
        run.is_at(f"% of {slow.address}/{name}")
        assert slow.is_stuck.wait(30)
        assert run.record()["status"] == "starting"
        assert run.abort()["status"] == "aborted"
        assert slow.was_left.wait(30), "the engine goes on pulling"
    assert docker("images", "--quiet", f"{slow.address}/team/large") == ""


def test_a_pull_goes_on_with_the_next_server(folder: Path, registry: Registry) -> None:
    name = "team/kept:1"
    registry.push_bytes(8 << 20, name)
    with SlowRegistry(registry.address).serving() as slow:
        with served(folder) as server:
            run = start(server, f"{slow.address}/{name}", "x", **basic())
            assert slow.is_stuck.wait(30)
            server.end(signal.SIGKILL)
        slow.released.set()
        with served(folder) as server:
            record = run.on(server).ended()
    # The image has no program at all: it has arrived.
    assert (record["status"], record["return_code"]) == ("failed", 127)
    docker("rmi", f"{slow.address}/{name}")


@contextmanager
def amazon(registry: Registry) -> Iterator[str]:
    """A double of ECR's one call; it knows one access key, and gives the registry's password."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["X-Amz-Target"].endswith(".GetAuthorizationToken")
            self.rfile.read(int(self.headers["Content-Length"]))
            signed = self.headers["Authorization"]
            if "Credential=AKIDRIGHT/" in signed and "/eu-central-1/ecr/" in signed:
                token = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
                data = {
                    "authorizationToken": token,
                    "proxyEndpoint": f"http://{registry.address}",
                }
                self.reply(200, {"authorizationData": [data]})
            else:
                self.reply(400, {"__type": "UnrecognizedClientException", "message": "no"})

        def reply(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_amazon_s_keys_open_its_registry(
    folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = f"{registry.address}/team/tool:1"
    keys = {
        "docker_registry_credential_type": "aws",
        "aws_access_key_id": "AKIDRIGHT",
        "aws_secret_access_key": "secret-4711",
        "aws_region": "eu-central-1",
    }
    with amazon(registry) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with served(folder) as server:
            assert start(server, there, "echo", "hi", **keys).ended()["stdout"] == "hi\n"
            wrong = start(server, there, **{**keys, "aws_access_key_id": "AKIDWRONG"}).ended()
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:1")
    with served(folder) as server:
        unreachable = start(server, there, **keys).ended()
    assert wrong["status"] == unreachable["status"] == "failed"
    assert error_of(wrong) == (
        "Amazon did not accept the credentials for region eu-central-1: UnrecognizedClientException"
    )
    assert "could not be asked for a password" in error_of(unreachable)
    docker("rmi", there)


def test_secrets_are_on_no_command_line_and_not_on_disk_in_the_clear(
    folder: Path, registry: Registry
) -> None:
    there = f"{registry.address}/team/tool:1"
    canary = f"canary-{uuid.uuid4().hex}"
    with served(folder) as server:
        command = f"echo ready; {HOLD}"
        fields = {"docker_run_env": f"CANARY={canary}", **basic()}
        run = start(server, there, "sh", "-c", command, **fields)
        run.said("ready")
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
        assert any(b"container_work" in line for line in lines)
        secrets = [canary.encode(), PASSWORD.encode(), base64.b64encode(PASSWORD.encode())]
        files = {p: p.read_bytes() for p in folder.parent.rglob("*") if p.is_file()}
        assert files
        for secret in secrets:
            assert not [line for line in lines if secret in line]
            assert not [path for path, data in files.items() if secret in data]
        run.let_go()
        run.ended()
    docker("rmi", there)
