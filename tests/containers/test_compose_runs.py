"""Compose runs on a real engine, through a served server: as a user would have them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.server.runners.stack import Stack
from tests.integration.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .registry import PASSWORD, USERNAME, Registry, SlowRegistry, private_registry
from .runs import ServedRun, bucket, docker, error_of

#: Waits until the test lets go, or somebody ends it; busybox's shell answers signals in between.
HOLD = "while [ ! -e /mnt/s3/go ]; do sleep 0.05; done"
FOREVER = "while :; do sleep 0.05; done"


def let_go(server: ServedProcess) -> None:
    (bucket(server) / "go").touch()


def service(script: str, image: str = "localhost/python:test", **more: Any) -> dict[str, Any]:
    """A service that runs a shell script."""
    return {"image": image, "command": ["sh", "-c", script.replace("$", "$$")], **more}


def start(server: ServedProcess, services: dict[str, Any], **fields: Any) -> ServedRun:
    """Starts a stack, the storage mounted. `top` is what the file has beside its services."""
    file = {"services": services, **fields.pop("top", {})}
    body = {
        # JSON is YAML.
        "compose_file_code": json.dumps(file),
        "execution_type": "cpu",
        "enable_s3_mount": True,
        "timeout": 300,
        **fields,
    }
    reply = server.client.post(paths.START_COMPOSE, json=body)
    assert reply.status_code == 200, reply.text
    return ServedRun(server, reply.json())


def lines(record: dict[str, Any], service: str, stream: str = "stdout") -> list[str]:
    """What one service put out."""
    prefix = f"{service} | "
    text = str(record[stream])
    return [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]


def acceptance_stack(job: str = "echo working; exit 7") -> dict[str, Any]:
    """A database-like service, a worker that waits for it, and a job that fails."""
    ready = "test -e /tmp/ready"
    return {
        "database": service(
            f"echo starting; touch /tmp/ready; echo ready; {FOREVER}",
            restart="unless-stopped",
            healthcheck={"test": ["CMD-SHELL", ready], "interval": "0.1s", "retries": 100},
        ),
        "worker": service(
            f"echo attached; echo busy >&2; {FOREVER}",
            restart="unless-stopped",
            depends_on={"database": {"condition": "service_healthy"}},
        ),
        "job": service(job, depends_on=["worker"]),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(scope="module")
def _server(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    with served(tmp_path_factory.mktemp("served") / "state") as server:
        yield server


@pytest.fixture
def server(_server: ServedProcess) -> Iterator[ServedProcess]:
    """A server whose storage is empty."""
    yield _server
    for path in bucket(_server).glob("*"):
        path.unlink()


@pytest.fixture(autouse=True)
def nothing_left(image: str) -> Iterator[None]:
    """No test leaves a container, a network, a volume or a command behind."""
    networks = docker("network", "ls", "--quiet")
    yield
    assert docker("ps", "--all", "--format", "{{.Names}}") == ""
    assert docker("volume", "ls", "--quiet") == ""
    assert docker("network", "ls", "--quiet") == networks
    eventually(lambda: not commands(), "no command goes on")


def commands() -> list[psutil.Process]:
    """The `docker compose` processes that start stacks."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "--progress" in (process.info["cmdline"] or ())
    ]


@pytest.fixture(scope="module")
def registry(image: str) -> Iterator[Registry]:
    with private_registry() as registry:
        registry.push(image, "team/tool:1")
        yield registry


# --- the stack of the acceptance list --------------------------------------------------------


def test_a_stack_ends_with_its_job_and_fails_with_its_code(server: ServedProcess) -> None:
    run = start(server, acceptance_stack(f"echo working; {HOLD}; echo failing >&2; exit 7"))
    run.said("job | working\n")  # while it runs
    let_go(server)
    *_, end = run.events()
    assert isinstance(end, Finished)
    assert end.return_code == 7
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("failed", 7)
    assert error_of(record) == "service `job` ended with exit code 7"
    assert record["stdout"].splitlines() == [
        "database | starting",
        "database | ready",
        "worker | attached",
        "job | working",
    ]
    assert sorted(record["stderr"].splitlines()) == ["job | failing", "worker | busy"]


def test_an_abort_kills_it_at_once(server: ServedProcess) -> None:
    run = start(server, acceptance_stack(f"trap '' TERM; echo working; {FOREVER}"))
    run.said("job | working")
    assert run.abort()["status"] == "aborted"
    record = run.ended()
    assert record["return_code"] is None
    assert lines(record, "worker") == ["attached"]


def test_a_stop_gives_every_service_time_to_finish(server: ServedProcess) -> None:
    drain = "trap 'echo draining; sleep 3; echo drained; exit 0' TERM"
    run = start(server, acceptance_stack(f"{drain}; echo working; {FOREVER}"), graceful_timeout=60)
    run.said("job | working")
    run.stop()
    record = run.ended()
    assert record["status"] == "cancelled"
    assert lines(record, "job") == ["working", "draining", "drained"]


def test_a_stop_is_a_kill_after_the_grace(server: ServedProcess) -> None:
    drain = "trap 'echo draining; sleep 60; echo drained' TERM"
    run = start(server, acceptance_stack(f"{drain}; echo working; {FOREVER}"), graceful_timeout=1)
    run.said("job | working")
    run.stop()
    record = run.ended()
    assert record["status"] == "cancelled"
    assert lines(record, "job") == ["working", "draining"]


def test_it_survives_its_server_and_nothing_is_lost_or_doubled(folder: Path) -> None:
    count = "for number in $(seq 20); do echo $number; sleep 0.05; done"
    with served(folder) as server:
        run = start(server, acceptance_stack(f"{count}; {HOLD}; {count}; exit 7"))
        run.said("job | 5\n")
        server.end(signal.SIGKILL)
    with served(folder) as server:
        run = run.on(server)
        run.said("job | 20\n")
        let_go(server)
        record = run.ended()
    assert (record["status"], record["return_code"]) == ("failed", 7)
    assert lines(record, "job") == [str(number) for number in range(1, 21)] * 2


def test_its_end_is_found_where_no_server_saw_it(folder: Path) -> None:
    with served(folder) as server:
        run = start(server, acceptance_stack(f"echo working; {HOLD}; exit 7"))
        run.said("job | working")
        server.end(signal.SIGKILL)
    let_go(server)
    eventually((folder / "runs" / run.id / "exit.json").exists, "the supervisor sees the end")
    with served(folder) as server:
        record = run.on(server).ended()
    assert (record["status"], record["return_code"]) == ("failed", 7)


# --- what it says ----------------------------------------------------------------------------


def test_lines_are_whole_and_their_streams_apart(server: ServedProcess) -> None:
    script = "printf one; sleep 0.1; printf ' line\\ntwo\\n'; printf bad >&2; printf last"
    record = start(server, {"web": service(script)}).ended()
    assert record["stdout"] == "web | one line\nweb | two\nweb | last\n"
    assert record["stderr"] == "web | bad\n"


def test_replicas_have_numbers(server: ServedProcess) -> None:
    record = start(server, {"web": service("echo hello", scale=2)}).ended()
    assert sorted(record["stdout"].splitlines()) == ["web-1 | hello", "web-2 | hello"]
    assert record["status"] == "completed"


def test_much_output_arrives_whole(server: ServedProcess) -> None:
    program = "for number in range(100_000): print(number)"
    run = start(server, {"a": service("exit 0", command=["python3", "-c", program])})
    text = "".join(event.text for event in run.events() if isinstance(event, Output))
    assert text.splitlines() == [f"a | {number}" for number in range(100_000)]


def test_a_long_line_is_one_line(server: ServedProcess) -> None:
    program = "print('x' * 100_000); print('y', end='')"
    record = start(server, {"a": service("", command=["python3", "-c", program])}).ended()
    assert record["stdout"] == f"a | {'x' * 100_000}\na | y\n"


def test_a_service_that_is_restarted_is_followed_on(server: ServedProcess) -> None:
    script = "echo begun; printf ended; [ -e /mnt/s3/third ] && exit 0; "
    script += "[ -e /mnt/s3/second ] && touch /mnt/s3/third; touch /mnt/s3/second; exit 1"
    record = start(server, {"flaky": service(script, restart="on-failure")}).ended()
    assert lines(record, "flaky") == ["begun", "ended"] * 3
    assert (record["status"], record["return_code"]) == ("completed", 0)


# --- how it ends -----------------------------------------------------------------------------


def test_the_first_failure_counts(server: ServedProcess) -> None:
    services = {
        "good": service("exit 0"),
        "late": service("while [ ! -e /mnt/s3/early ]; do sleep 0.05; done; sleep 0.2; exit 3"),
        "early": service("touch /mnt/s3/early; exit 5"),
    }
    record = start(server, services).ended()
    assert (record["status"], record["return_code"]) == ("failed", 5)
    assert error_of(record) == "service `early` ended with exit code 5"


def test_services_that_go_on_are_asked_to_end(server: ServedProcess) -> None:
    services = {
        "server": service(
            f"trap 'echo saved; exit 0' TERM; touch /mnt/s3/up; {FOREVER}", restart="always"
        ),
        "job": service("while [ ! -e /mnt/s3/up ]; do sleep 0.05; done"),
    }
    record = start(server, services).ended()
    assert (record["status"], record["stdout"]) == ("completed", "server | saved\n")


def test_a_time_limit_asks_before_it_kills(server: ServedProcess) -> None:
    script = f"trap 'echo draining; exit 0' TERM; {FOREVER}"
    record = start(server, {"a": service(script, restart="always")}, timeout=1).ended()
    assert (record["status"], record["status_details"]) == ("failed", "timeout")
    assert record["return_code"] is None
    assert record["stdout"] == "a | draining\n"


def test_running_out_of_memory_is_named(server: ServedProcess) -> None:
    greedy = service("", command=["python3", "-c", "b'x' * (1 << 30)"], mem_limit="64m")
    record = start(server, {"greedy": greedy}).ended()
    assert (record["status"], record["return_code"]) == ("failed", 137)
    assert error_of(record) == "service `greedy` ran out of memory: its limit is 64 MiB"


def test_a_dependency_that_never_becomes_healthy_is_named(server: ServedProcess) -> None:
    health = {"test": ["CMD", "false"], "interval": "0.1s", "retries": 2}
    services = {
        "database": service(f"echo here; {FOREVER}", restart="always", healthcheck=health),
        "job": service("exit 0", depends_on={"database": {"condition": "service_healthy"}}),
    }
    record = start(server, services).ended()
    assert (record["status"], record["return_code"]) == ("failed", 1)
    assert "`database` never became healthy" in error_of(record)
    assert record["stdout"] == "database | here\n"


def test_a_dependency_that_fails_gives_the_code(server: ServedProcess) -> None:
    services = {
        "init": service("echo no; exit 4"),
        "job": service(
            "exit 0", depends_on={"init": {"condition": "service_completed_successfully"}}
        ),
    }
    record = start(server, services).ended()
    assert (record["status"], record["return_code"]) == ("failed", 4)
    assert "`init` ended with code 4" in error_of(record)
    assert record["stdout"] == "init | no\n"


def test_a_stack_that_cannot_be_started_says_why(server: ServedProcess) -> None:
    nowhere = {"image": "localhost/python:test", "working_dir": "/etc/passwd", "command": ["true"]}
    record = start(server, {"a": nowhere}).ended()
    assert (record["status"], record["return_code"]) == ("failed", None)
    assert "the stack could not be started" in error_of(record)
    assert "/etc/passwd" in error_of(record)


def test_an_abort_gets_it_while_it_waits_for_health(server: ServedProcess) -> None:
    health = {"test": ["CMD", "false"], "interval": "1s", "retries": 1000}
    services = {
        "database": service(f"echo here; {FOREVER}", healthcheck=health),
        "job": service("exit 0", depends_on={"database": {"condition": "service_healthy"}}),
    }
    run = start(server, services)
    run.said("database | here")
    assert run.abort()["status"] == "aborted"
    assert "job | " not in run.ended()["stdout"]


def test_an_abort_gets_it_at_every_step(server: ServedProcess) -> None:
    services = {"a": service(FOREVER), "b": service(FOREVER)}
    run = start(server, services)
    assert run.abort()["status"] == "aborted"
    run = start(server, services)
    eventually((run.folder / "exit.draft").exists, "its supervisor is there")
    run.abort()
    assert run.ended()["status"] == "aborted"
    run = start(server, services)
    eventually(commands, "it is being started")
    run.abort()
    assert run.ended()["status"] == "aborted"


def test_an_abort_does_not_wait_for_a_stop(server: ServedProcess) -> None:
    script = f"trap 'echo draining' TERM; echo ready; {FOREVER}"
    run = start(server, {"a": service(script)}, graceful_timeout=300)
    run.said("ready")
    stopping = threading.Thread(target=run.stop)
    stopping.start()
    run.said("draining")
    assert run.abort()["status"] == "aborted"
    stopping.join()


def test_a_supervisor_that_dies_takes_its_stack_with_it(server: ServedProcess) -> None:
    run = start(server, acceptance_stack(f"echo working; {FOREVER}"))
    run.said("job | working")
    facts = json.loads((run.folder / "supervisor.json").read_text())
    os.kill(facts["pid"], signal.SIGKILL)
    assert run.ended()["status"] == "system_failure"


def test_a_supervisor_that_dies_takes_its_command_with_it(server: ServedProcess) -> None:
    health = {"test": ["CMD", "false"], "interval": "1s", "retries": 1000}
    services = {
        "database": service(f"echo here; {FOREVER}", healthcheck=health),
        "job": service("exit 0", depends_on={"database": {"condition": "service_healthy"}}),
    }
    run = start(server, services)
    run.said("database | here")
    assert commands()
    facts = json.loads((run.folder / "supervisor.json").read_text())
    os.kill(facts["pid"], signal.SIGKILL)
    assert run.ended()["status"] == "system_failure"


def test_a_new_server_sweeps_up_what_nobody_supervises(folder: Path) -> None:
    services = {"a": service(f"echo ready; {FOREVER}", volumes=["kept:/kept"])}
    with served(folder) as server:
        run = start(server, services, top={"volumes": {"kept": {}}})
        run.said("ready")
        server.end(signal.SIGKILL)
    # Killed, but as if it had written the end down: nobody will look for it as for a lost run.
    facts = json.loads((run.folder / "supervisor.json").read_text())
    now = time.time()  # a run that ended long ago would not be kept
    end = {"reason": "exited", "return_code": 0, "error": "", "started_at": now, "finished_at": now}
    os.kill(facts["pid"], signal.SIGKILL)
    (run.folder / "exit.json").write_text(json.dumps(end))
    with served(folder) as server:
        assert run.on(server).ended()["status"] == "completed"
        eventually(lambda: not docker("ps", "--all", "--quiet"), "its containers are removed")
        eventually(lambda: not docker("volume", "ls", "--quiet"), "its volume is removed")


def test_a_container_that_somebody_else_removes_ends_the_run(server: ServedProcess) -> None:
    run = start(server, {"a": service(f"echo ready; {FOREVER}"), "b": service(FOREVER)})
    run.said("a | ready")
    docker("rm", "--force", f"lyceum-{run.id}-a-1")
    record = run.ended()
    assert record["status"] == "system_failure"
    assert "somebody has removed" in error_of(record)


# --- what it is given ------------------------------------------------------------------------


def test_the_storage_is_mounted_where_it_is_asked_for(server: ServedProcess) -> None:
    services = {
        "a": service("echo from a >/mnt/s3/a"),
        "b": service("while [ ! -s /mnt/s3/a ]; do sleep 0.05; done; cat /mnt/s3/a"),
    }
    record = start(server, services).ended()
    assert record["stdout"] == "b | from a\n"
    assert (bucket(server) / "a").read_text() == "from a\n"
    record = start(server, {"a": service("ls /mnt/s3")}, enable_s3_mount=False).ended()
    assert record["status"] == "failed"


def test_folders_of_the_run_and_volumes_are_shared(server: ServedProcess) -> None:
    after = {"first": {"condition": "service_completed_successfully"}}
    mounts = ["./data:/data", "shared:/shared", "/anonymous"]
    services = {
        "first": service(
            "echo 1 >/data/x; echo 2 >/shared/x; echo 3 >/anonymous/x", volumes=mounts
        ),
        "second": service("cat /data/x /shared/x", volumes=mounts, depends_on=after),
    }
    run = start(server, services, top={"volumes": {"shared": {"name": "fixed"}}})
    record = run.ended()
    assert lines(record, "second") == ["1", "2"]
    assert (run.folder / "work" / "data" / "x").read_text() == "1\n"


def test_two_runs_of_one_file_do_not_meet(server: ServedProcess) -> None:
    services = {"a": service(f"echo ready; {HOLD}", container_name="fixed")}
    top = {"name": "fixed", "networks": {"default": {"name": "fixed"}}}
    runs = [start(server, services, top=top) for _ in range(2)]
    for run in runs:
        run.said("a | ready")
        container = json.loads(docker("inspect", f"lyceum-{run.id}-a-1"))[0]
        [(network, connection)] = container["NetworkSettings"]["Networks"].items()
        assert network == f"lyceum-{run.id}_default"
        assert "fixed" in connection["Aliases"]
    let_go(server)
    for run in runs:
        assert run.ended()["status"] == "completed"


def test_nothing_of_the_server_s_environment_comes_in(
    folder: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SECRET", "tell-nobody")
    script = "echo ${SERVER_SECRET:-none} ${HOME:-none}"
    interpolated = {**service("env"), "environment": {"A": "<${SERVER_SECRET}${HOME}>", "B": "$$x"}}
    passed_on = service(script, environment=["SERVER_SECRET"])
    with served(folder) as server:
        run = start(server, {"a": interpolated, "b": passed_on})
        record = run.ended()
    assert record["status"] == "completed", record["system_errors"]
    assert {"A=<>", "B=$x", f"LYCEUM_RUN_ID={run.id}"} <= set(lines(record, "a"))
    assert lines(record, "b")[0].startswith("none")
    assert "tell-nobody" not in json.dumps(record)


def test_secrets_reach_every_service_and_a_service_s_own_variables_win(folder: Path) -> None:
    # Shorter than what is masked.
    secrets = [{"name": "PLAIN", "value": "p$1"}, {"name": "TAKEN", "value": "t$2"}]
    with served(folder) as server:
        reply = server.client.post(paths.SECRETS, json={"environment_variables": secrets})
        assert reply.is_success, reply.text
        services = {
            "a": service('echo "$PLAIN" "$TAKEN"', environment={"TAKEN": "own"}),
            "b": service('echo "$PLAIN" "$TAKEN"', environment=["TAKEN"]),
        }
        record = start(server, services).ended()
    assert lines(record, "a") == ["p$1 own"]
    assert lines(record, "b") == ["p$1 t$2"]


def test_secrets_are_masked_and_on_no_command_line(folder: Path) -> None:
    secret = "a-secret-of-mine-4711"
    key = "-----BEGIN KEY-----\nMIIEvQIBADAN\n-----END KEY-----"
    health = {"test": ["CMD-SHELL", "[ -e /mnt/s3/go ]"], "interval": "0.1s", "retries": 1000}
    services = {
        "a": service(f"echo <$KEY>; {FOREVER}", healthcheck=health, restart="always"),
        "b": service('echo "$PEM"', depends_on={"a": {"condition": "service_healthy"}}),
    }
    secrets = [{"name": "KEY", "value": secret}, {"name": "PEM", "value": key}]
    with served(folder) as server:
        reply = server.client.post(paths.SECRETS, json={"environment_variables": secrets})
        assert reply.is_success, reply.text
        services["a"]["command"][2] = services["a"]["command"][2].replace("<$$KEY>", '"<$$KEY>"')
        run = start(server, services)
        run.said("a | <")
        assert commands()  # it still starts: the command has been given the secrets
        for process in psutil.process_iter(["cmdline"]):
            assert secret not in " ".join(process.info["cmdline"] or ())
        for path in folder.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
        let_go(server)
        record = run.ended()
    assert lines(record, "a") == ["<***>"]
    assert lines(record, "b") == ["***"]


def test_what_it_uses_is_the_sum_over_its_containers(server: ServedProcess, image: str) -> None:
    import docker as sdk

    script = "b = bytes(60_000_000); print('ready', flush=True); import time; time.sleep(600)"
    one = {"image": image, "command": ["python3", "-c", script]}
    run = start(server, {"a": one, "b": one})
    run.said("a | ready")
    run.said("b | ready")
    client = sdk.from_env()
    usage = Stack(client, run.id).usage()
    client.close()
    run.abort()
    assert usage is not None
    assert usage.cpu_s > 0
    assert usage.memory_bytes > 5_000_000


# --- images and registries -------------------------------------------------------------------


def basic(password: str = PASSWORD) -> dict[str, str]:
    return {
        "docker_registry_credential_type": "basic",
        "docker_username": USERNAME,
        "docker_password": password,
    }


def test_private_images_run_with_the_right_credentials(
    server: ServedProcess, registry: Registry
) -> None:
    there = f"{registry.address}/team/tool:1"
    record = start(server, {"a": service("echo hello", there)}, **basic()).ended()
    assert record["stdout"] == "a | hello\n"
    # It is here now: the credentials are looked at all the same.
    again = start(server, {"a": service("echo hello", there)}, **basic("wrong-4711")).ended()
    assert again["status"] == "failed"
    assert "does not accept the credentials" in error_of(again)
    assert "wrong-4711" not in json.dumps(again)
    docker("rmi", there)


def test_missing_credentials_and_missing_images_are_told_apart(
    server: ServedProcess, registry: Registry
) -> None:
    private = f"{registry.address}/team/tool:1"
    missing = start(server, {"a": service("exit 0", private)}).ended()
    assert (missing["status"], missing["return_code"]) == ("failed", None)
    assert f"gives {private} only to those who sign in" in error_of(missing)
    nothing = f"{registry.address}/team/tool:2"
    absent = start(server, {"a": service("exit 0", nothing)}, **basic()).ended()
    assert f"has no image {nothing}" in error_of(absent)


def test_a_pull_tells_how_far_it_is_and_ends_with_the_run(
    server: ServedProcess, registry: Registry
) -> None:
    registry.push_bytes(20 << 20, "team/large:1")
    with SlowRegistry(registry.address).serving() as slow:
        image = f"{slow.address}/team/large:1"
        run = start(server, {"a": service("exit 0", image)}, **basic())
        run.is_at(f"pulling {image}")
        assert slow.is_stuck.wait(30)
        assert run.record()["status"] == "starting"
        assert run.abort()["status"] == "aborted"
        assert slow.was_left.wait(30), "the engine goes on pulling"


# --- what is refused -------------------------------------------------------------------------

SERVICE = "services:\n  web:\n    image: localhost/python:test\n"

REFUSED = [
    ("services: [1", ["line 1", "column"]),
    ("services:\n  web:\n    image: x\n   command: y\n", ["line 4", "column 4"]),
    ("- a", ["mapping", "a list"]),
    ("version: '3'", ["no services"]),
    ("services: {web: {}}", ["web", "neither an image nor a build context"]),
    (SERVICE + "    build: .", ["`build`", "push it"]),
    (SERVICE + "    env_file: /etc/environment", ["`env_file`", "`environment`"]),
    (SERVICE + "    label_file: x", ["`label_file`"]),
    (SERVICE + "    extends: {file: /etc/passwd, service: x}", ["extends", "web"]),
    (SERVICE + "include: [/etc/passwd]", ["`include`"]),
    (SERVICE + "    secrets: [s]\nsecrets: {s: {file: /etc/shadow}}", ["`s`", "a file"]),
    (SERVICE + "    configs: [s]\nconfigs: {s: {environment: PATH}}", ["`s`", "a variable"]),
    (SERVICE + "    provider: {type: x}", ["`provider`"]),
    (SERVICE + "    post_start: [{command: x, privileged: true}]", ["`post_start`"]),
    (SERVICE + "    colour: red", ["colour", "not allowed"]),
    (SERVICE + "    depends_on: [database]", ["undefined service", "database"]),
    (SERVICE + "    environment: {A: '${B?wanted}'}", ["B", "wanted"]),
    (SERVICE + "    profiles: [x]", ["profile"]),
    (SERVICE + "    image: other", ["`image` is there twice", "line 4"]),
    ("services: {web: {image: 'Not An Image'}}", ["'Not An Image'"]),
]
PRIVILEGED = [
    ("    privileged: true", "`privileged` in service `web`"),
    ("    cap_add: [SYS_ADMIN]", "`cap_add`"),
    ("    devices: [/dev/fuse]", "`devices`"),
    ("    network_mode: host", "`network_mode: host`"),
    ("    pid: host", "`pid: host`"),
    ("    ipc: host", "`ipc: host`"),
    ("    userns_mode: host", "`userns_mode: host`"),
    ("    cgroup: host", "`cgroup: host`"),
    ("    security_opt: ['seccomp:unconfined']", "seccomp:unconfined"),
    ("    use_api_socket: true", "`use_api_socket`"),
    ("    volumes: ['/var/run/docker.sock:/var/run/docker.sock']", "`/var/run/docker.sock`"),
    ("    volumes: ['../../x:/x']", "the host path"),
    ("    volumes: ['bound:/x']\nvolumes: {bound: {driver_opts: {o: bind, device: /etc}}}",
     "volume `bound`"),
    ("    volumes: ['theirs:/x']\nvolumes: {theirs: {external: true}}", "external volume"),
    ("    networks: [theirs]\nnetworks: {theirs: {external: true}}", "external network"),
]  # fmt: skip


def refusal(server: ServedProcess, text: str) -> str:
    body = {"compose_file_code": text, "execution_type": "cpu"}
    reply = server.client.post(paths.START_COMPOSE, json=body)
    assert reply.status_code == 422, reply.text
    detail = reply.json()["detail"]
    return detail if isinstance(detail, str) else " ".join(entry["msg"] for entry in detail)


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_cannot_run_is_refused_with_a_sentence(
    server: ServedProcess, text: str, words: list[str]
) -> None:
    sentence = refusal(server, text)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(("more", "words"), PRIVILEGED)
def test_what_reaches_the_machine_is_refused(server: ServedProcess, more: str, words: str) -> None:
    sentence = refusal(server, SERVICE + more)
    assert words in sentence
    assert "--allow-privileged" in sentence


def test_a_server_may_allow_what_reaches_the_machine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("the host's\n")
    services = {
        "a": service("cat /host/seen", cap_add=["CHOWN"], volumes=[f"{tmp_path}:/host"]),
        "b": service("cat /proc/1/comm", pid="host"),
    }
    with served(folder, "--allow-privileged") as server:
        record = start(server, services).ended()
        assert "`build`" in refusal(server, SERVICE + "    build: .")
    assert record["status"] == "completed", record["system_errors"]
    assert lines(record, "a") == ["the host's"]


def test_without_compose_it_says_how_to_get_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        # As on a machine that has the engine's socket alone.
        elsewhere.setenv("PATH", str(tmp_path))
        with served(folder) as server:
            body = {"compose_file_code": SERVICE, "execution_type": "cpu"}
            reply = server.client.post(paths.START_COMPOSE, json=body)
    assert reply.status_code == 503
    assert "install Docker with its Compose plugin" in reply.json()["detail"]
