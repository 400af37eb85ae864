"""Compose runs on a real engine, through a served server: as a user would have them."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import psutil
import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.server.runners.compose.stack import Stack
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .runs import HOLD, bucket, docker, error_of
from .stacks import FOREVER, acceptance_stack, commands, lines, service
from .stacks import start_stack as start

pytestmark = pytest.mark.usefixtures("image", "nothing_left")


# --- the stack of the acceptance list --------------------------------------------------------


def test_a_stack_ends_with_its_job_and_fails_with_its_code(server: ServedProcess) -> None:
    run = start(server, acceptance_stack(f"echo working; {HOLD}; echo failing >&2; exit 7"))
    run.said("job | working\n")  # while it runs
    run.let_go()
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
    assert record["status"] == "cancelled", record["system_errors"]
    assert lines(record, "job") == ["working", "draining", "drained"]


def test_a_stop_is_a_kill_after_the_grace(server: ServedProcess) -> None:
    drain = "trap 'echo draining; sleep 60; echo drained' TERM"
    run = start(server, acceptance_stack(f"{drain}; echo working; {FOREVER}"), graceful_timeout=1)
    run.said("job | working")
    run.stop()
    record = run.ended()
    assert record["status"] == "cancelled"
    assert lines(record, "job") == ["working", "draining"]


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


# --- what it is given ------------------------------------------------------------------------


def test_a_variable_that_is_not_set_is_said_to_be_empty(server: ServedProcess) -> None:
    services = {"a": service('echo "<$X>"', environment={"X": "${LYCEUM_NOWHERE}"})}
    record = start(server, services).ended()
    assert record["stdout"] == "a | <>\n"
    assert record["stderr"].startswith("${LYCEUM_NOWHERE} is empty: ")


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
    run.let_go()
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
        run.let_go()
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


def test_an_optional_dependency_on_an_inactive_service_is_left_out(server: ServedProcess) -> None:
    optional = {"condition": "service_started", "required": False}
    services = {
        "debug": service("echo never", profiles=["debug"]),
        "a": service("echo a", depends_on={"debug": optional}),
        "b": service(
            "echo b", depends_on={"debug": optional, "a": {"condition": "service_started"}}
        ),
        "c": service("echo c", depends_on={"a": optional}),
    }
    record = start(server, services).ended()
    assert (record["status"], record["system_errors"]) == ("completed", [])
    assert sorted(record["stdout"].splitlines()) == ["a | a", "b | b", "c | c"]


@pytest.mark.parametrize("more", [{"stdin_open": True}, {"stdin_open": True, "tty": True}, {}])
def test_what_reads_gets_the_end_of_file_at_once(
    server: ServedProcess, more: dict[str, bool]
) -> None:
    record = start(server, {"a": service("cat; echo end", **more)}).ended()
    assert (record["status"], record["stdout"]) == ("completed", "a | end\n")


def test_a_local_image_s_id_is_its_name(server: ServedProcess, image: str) -> None:
    whole = docker("inspect", "--format", "{{.Id}}", image)
    short = whole.removeprefix("sha256:")[:12]
    services = {
        "a": service("echo a", image=short),
        "b": service("echo b", image=whole),
    }
    record = start(server, services).ended()
    assert sorted(record["stdout"].splitlines()) == ["a | a", "b | b"], record["system_errors"]
