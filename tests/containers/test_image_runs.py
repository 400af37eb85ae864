"""Image runs on a real engine, through a served server: as a user would have them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.protocol.requests import StartImage
from lyceum_magic.server.runners.base import RunSpec
from lyceum_magic.server.runners.container import ContainerRunner
from tests.integration.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .registry import PASSWORD, USERNAME, Registry, SlowRegistry, private_registry
from .runs import ServedRun, bucket, docker, error_of

#: Waits until the test lets go, or somebody ends it; busybox's shell answers signals in between.
HOLD = "while [ ! -e /mnt/s3/go ]; do sleep 0.05; done"


class ImageRun(ServedRun):
    """One image run on a served server."""

    @property
    def container(self) -> str:
        return f"lyceum-{self.id}"

    def let_go(self) -> None:
        (bucket(self.server) / "go").touch()


def start(server: ServedProcess, image: str, *command: str, **fields: Any) -> ImageRun:
    body: dict[str, Any] = {"docker_image_ref": image, "execution_type": "cpu", **fields}
    if command:
        body["docker_run_cmd"] = list(command)
    reply = server.client.post(paths.START_IMAGE, json=body)
    assert reply.status_code == 200, reply.text
    return ImageRun(server, reply.json())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(scope="module")
def _server(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    with served(tmp_path_factory.mktemp("served") / "state") as server:
        yield server


@pytest.fixture
def server(_server: ServedProcess) -> Iterator[ServedProcess]:
    """A server whose storage is empty."""
    yield _server
    for path in bucket(_server).glob("*"):
        path.unlink()


@pytest.fixture(autouse=True)
def nothing_left(engine: None) -> Iterator[None]:
    """No test leaves a container or a volume in the engine."""
    yield
    assert docker("ps", "--all", "--format", "{{.Names}}") == ""
    assert docker("volume", "ls", "--quiet") == ""


@pytest.fixture(scope="module")
def registry(image: str) -> Iterator[Registry]:
    with private_registry() as registry:
        registry.push(image, "team/tool:1")
        yield registry


# --- what a container says and how it ends ---------------------------------------------------


def test_output_is_live_without_a_line_break_and_its_streams_are_apart(
    server: ServedProcess, image: str
) -> None:
    run = start(server, image, "sh", "-c", f"printf first; printf worse >&2; {HOLD}; echo last")
    run.said("first")  # while it runs
    run.said("worse")
    run.let_go()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("completed", 0)
    assert (record["stdout"], record["stderr"]) == ("firstlast\n", "worse")


def test_an_end_is_told_with_its_exit_code(server: ServedProcess, image: str) -> None:
    run = start(server, image, "sh", "-c", "exit 7")
    *_, end = run.events()
    assert isinstance(end, Finished)
    record = run.ended()
    assert (end.return_code, record["status"], record["return_code"]) == (7, "failed", 7)


def test_a_signal_is_128_and_its_number(server: ServedProcess, image: str) -> None:
    record = start(server, image, "sh", "-c", "kill -TERM $$").ended()
    assert (record["status"], record["return_code"]) == ("failed", 143)
    assert "SIGTERM" in error_of(record)


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (["nosuch"], 127, "'nosuch' was not found in the image"),
        (["/etc/passwd"], 126, "'/etc/passwd' cannot be executed"),
        (["sh", "-c", "nosuch"], 127, "exit code 127: a command was not found"),
    ],
)
def test_a_command_that_cannot_be_executed_is_named(
    server: ServedProcess, image: str, command: list[str], code: int, sentence: str
) -> None:
    record = start(server, image, *command).ended()
    assert (record["status"], record["return_code"]) == ("failed", code)
    assert sentence in error_of(record)


def test_without_a_command_the_image_s_own_runs(server: ServedProcess, image: str) -> None:
    record = start(server, image).ended()  # a shell without anything to read
    assert (record["status"], record["return_code"]) == ("completed", 0)


def test_running_out_of_memory_is_named_with_the_limit(server: ServedProcess, image: str) -> None:
    greedy = f"echo ready; {HOLD}; exec python3 -c 'b\"x\" * (1 << 30)'"
    run = start(server, image, "sh", "-c", greedy)
    run.said("ready")
    docker("update", "--memory", "64m", "--memory-swap", "64m", run.container)
    run.let_go()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("failed", 137)
    assert error_of(record) == "the container ran out of memory: its limit is 64 MiB"


def test_much_output_arrives_whole(server: ServedProcess, image: str) -> None:
    program = "for number in range(200_000): print(number)"
    run = start(server, image, "python3", "-c", program)
    text = "".join(event.text for event in run.events() if isinstance(event, Output))
    assert text.splitlines() == [str(number) for number in range(200_000)]


# --- what a container is given ---------------------------------------------------------------


def test_variables_arrive_and_a_line_without_a_value_sets_none(
    server: ServedProcess, image: str
) -> None:
    env = "PLAIN=a b\nEQUALS=x=y\nEMPTY=\nNOTHING\n"
    print_them = 'env; echo "<$PLAIN> <$EQUALS> <${EMPTY-unset}> <${NOTHING-unset}>"'
    run = start(server, image, "sh", "-c", print_them, docker_run_env=env)
    record = run.ended()
    assert "<a b> <x=y> <> <unset>\n" in record["stdout"]
    assert f"LYCEUM_RUN_ID={run.id}\n" in record["stdout"]


def test_it_runs_as_the_user_asked_for(server: ServedProcess, image: str) -> None:
    command = "id -u; id -g; echo mine >/mnt/s3/file; cat /mnt/s3/file"
    run = start(server, image, "sh", "-c", command, docker_user="1000:1001")
    assert run.ended()["stdout"] == "1000\n1001\nmine\n"


def test_a_user_that_the_image_does_not_have_is_refused(server: ServedProcess, image: str) -> None:
    record = start(server, image, "sh", docker_user="ghost").ended()
    assert (record["status"], record["return_code"]) == ("failed", None)
    assert "has no user 'ghost'" in error_of(record)


def test_the_storage_is_mounted_both_ways(server: ServedProcess, image: str) -> None:
    start(server, image, "sh", "-c", "echo out >/mnt/s3/theirs").ended()
    assert (bucket(server) / "theirs").read_text() == "out\n"
    (bucket(server) / "ours").write_text("in")
    run = start(server, image, "cat", "/data/in/ours", s3_mount_path="/data/in")
    assert run.ended()["stdout"] == "in"


def test_without_the_storage_there_is_no_such_folder(server: ServedProcess, image: str) -> None:
    record = start(server, image, "ls", "/mnt/s3", enable_s3_mount=False).ended()
    assert record["status"] == "failed"
    assert "No such file" in record["stderr"]


# --- limits, stop and abort ------------------------------------------------------------------


def test_a_time_limit_asks_before_it_kills(server: ServedProcess, image: str) -> None:
    command = f"trap 'echo draining; exit 0' TERM; {HOLD}"
    record = start(server, image, "sh", "-c", command, timeout=1).ended()
    assert (record["status"], record["status_details"]) == ("failed", "timeout")
    assert record["return_code"] is None
    assert record["stdout"] == "draining\n"
    assert "time limit of 1 s" in error_of(record)


def test_a_stop_gives_time_to_finish(server: ServedProcess, image: str) -> None:
    command = f"trap 'echo draining; sleep 1; echo done; exit 0' TERM; echo ready; {HOLD}"
    run = start(server, image, "sh", "-c", command, graceful_timeout=60)
    run.said("ready")
    run.stop()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("cancelled", 0)
    assert record["stdout"] == "ready\ndraining\ndone\n"


def test_a_stop_is_a_kill_after_the_grace(server: ServedProcess, image: str) -> None:
    command = f"trap '' TERM; echo ready; {HOLD}"
    run = start(server, image, "sh", "-c", command, graceful_timeout=1)
    run.said("ready")
    run.stop()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("cancelled", 137)


def test_an_abort_does_not_wait_for_a_stop(server: ServedProcess, image: str) -> None:
    command = f"trap 'echo draining' TERM; echo ready; {HOLD}"
    run = start(server, image, "sh", "-c", command, graceful_timeout=300)
    run.said("ready")
    threading.Thread(target=run.stop).start()
    run.said("draining")
    assert run.abort()["status"] == "aborted"


def test_a_stopped_notebook_is_complete(server: ServedProcess, image: str) -> None:
    command = f"echo ready; {HOLD}"
    run = start(server, image, "sh", "-c", command, job_type="customer_notebook")
    run.said("ready")
    run.stop()
    assert run.ended()["status"] == "completed"


def test_an_abort_gets_a_run_at_every_step(server: ServedProcess, image: str) -> None:
    """Before its supervisor is there, while it makes the container, before and after its start."""
    for _ in range(4):
        run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
        run.abort()
        assert run.ended()["status"] == "aborted"
    run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
    eventually((run.folder / "exit.draft").exists, "its supervisor is there")
    run.abort()
    assert run.ended()["status"] == "aborted"
    run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
    run.said("ready")
    assert run.abort()["status"] == "aborted"
    assert run.ended()["return_code"] is None


def test_anonymous_volumes_go_with_their_container(server: ServedProcess, image: str) -> None:
    base = docker("create", image)
    docker("commit", "--change", "VOLUME /data", base, "localhost/volume:test")
    docker("rm", base)
    command = f"echo x >/data/x; echo ready; {HOLD}"
    run = start(server, "localhost/volume:test", "sh", "-c", command)
    run.said("ready")
    assert docker("volume", "ls", "--quiet")
    run.let_go()
    assert run.ended()["status"] == "completed"  # `nothing_left` looks for the volume
    docker("rmi", "localhost/volume:test")


# --- images and registries -------------------------------------------------------------------


def basic(username: str = USERNAME, password: str = PASSWORD) -> dict[str, str]:
    return {
        "docker_registry_credential_type": "basic",
        "docker_username": username,
        "docker_password": password,
    }


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
        run.is_at(f"pulling {slow.address}/{name}: ")
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


# --- who dies and comes back -----------------------------------------------------------------


def test_output_survives_the_server_whole(folder: Path, image: str) -> None:
    count = 3000
    program = f"""
import os, time
for number in range({count}):
    print(number, flush=True)
    time.sleep(0.001)
    while number == {count // 2} and not os.path.exists("/mnt/s3/go"):
        time.sleep(0.01)
"""
    with served(folder) as server:
        run = start(server, image, "python3", "-c", program)
        run.said("100\n")
        server.end(signal.SIGKILL)
    with served(folder) as server:
        run = run.on(server)
        run.said("200\n")
        assert run.record()["status"] == "running"
        server.end(signal.SIGKILL)
    with served(folder) as server:
        run = run.on(server)
        run.let_go()
        text = "".join(event.text for event in run.events() if isinstance(event, Output))
        record = run.ended()
    assert text.splitlines() == [str(number) for number in range(count)]
    assert (record["status"], record["return_code"]) == ("completed", 0)


def test_a_run_that_ended_without_a_server_is_found_with_its_end(folder: Path, image: str) -> None:
    with served(folder) as server:
        run = start(server, image, "sh", "-c", f"echo ready; {HOLD}; echo last; exit 4")
        run.said("ready")
        server.end(signal.SIGKILL)
        run.let_go()
        eventually((run.folder / "exit.json").exists, "the run ends")
    with served(folder) as server:
        record = run.on(server).ended()
    assert (record["return_code"], record["stdout"]) == (4, "ready\nlast\n")


def test_a_supervisor_that_dies_takes_its_container_with_it(
    server: ServedProcess, image: str
) -> None:
    run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
    run.said("ready")
    os.kill(json.loads((run.folder / "supervisor.json").read_text())["pid"], signal.SIGKILL)
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("system_failure", None)
    assert record["stdout"] == "ready\n"


def test_a_new_server_sweeps_up_what_nobody_supervises(folder: Path, image: str) -> None:
    with served(folder) as server:
        live = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
        live.said("ready")
        server.end(signal.SIGKILL)
    stray = str(uuid.uuid4())
    labels = [
        *("--label", f"lyceum.state={folder}", "--label", f"lyceum.run={stray}"),
        *("--label", "lyceum.kind=image"),
        # As an image has it that `docker compose build` made.
        *("--label", "com.docker.compose.project=team"),
    ]
    docker("run", "--detach", "--name", f"lyceum-{stray}", *labels, image, "sleep", "1000")
    docker("run", "--detach", "--name", "foreign", image, "sleep", "1000")
    with served(folder) as server:
        names = {"foreign", live.container}
        eventually(
            lambda: set(docker("ps", "-a", "--format", "{{.Names}}").split()) == names,
            "the stray container is removed",
        )
        live = live.on(server)
        live.let_go()
        assert live.ended()["status"] == "completed"
    docker("rm", "--force", "foreign")


def test_a_container_that_somebody_else_removes_ends_its_run(
    server: ServedProcess, image: str
) -> None:
    run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
    run.said("ready")
    docker("rm", "--force", run.container)
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("failed", 137)
    # It may still be there for a moment: then it was killed, else removed.
    assert re.search("killed by signal 9|was removed, and not by this server", error_of(record))


def test_a_full_disk_ends_a_run_and_the_end_is_still_written(folder: Path, image: str) -> None:
    (folder / "runs").mkdir(parents=True)
    small = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder / "runs")]
    subprocess.run(small, check=True)  # in the mount namespace of the tests' engine
    try:
        with served(folder) as server:
            run = start(server, image, "python3", "-c", "while True: print('x' * 1000)")
            record = run.ended()
        assert json.loads((run.folder / "exit.json").read_text())["reason"] == "lost"
    finally:
        subprocess.run(["umount", str(folder / "runs")], check=True)
    assert record["status"] == "system_failure"
    assert error_of(record) == "the run's output could not be written: No space left on device"


# --- what it uses ----------------------------------------------------------------------------


def test_a_run_s_use_is_its_container_s(image: str, tmp_path: Path) -> None:
    async def measure() -> None:
        runner = ContainerRunner(tmp_path, bucket=tmp_path / "bucket")
        request = StartImage(
            docker_image_ref=image,
            docker_run_cmd=["python3", "-c", "b = b'x' * (40 << 20)\nwhile True: pass"],
        )
        await runner.open()
        run_id = str(uuid.uuid4())
        (tmp_path / "runs" / run_id).mkdir(parents=True)
        spec = RunSpec(run_id, tmp_path / "runs" / run_id, request)
        run = await runner.start(spec, lambda step: None)
        try:
            assert await run.usage() is None  # it has not begun
            await run.started()
            async with asyncio.timeout(60):
                while True:
                    usage = await run.usage()
                    assert usage is not None
                    if usage.cpu_s > 0.2 and usage.memory_bytes > 40 << 20:
                        break
        finally:
            await run.kill()
            end = await run.ended()
            await runner.close()
        assert end.reason == "aborted"
        assert await run.usage() is None

    asyncio.run(measure())
