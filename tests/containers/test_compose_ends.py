"""The end of a stack's run: the services that it waits for, and the codes that count."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.served_process import ServedProcess, served

from .runs import HOLD, error_of
from .stacks import FOREVER, lines, service
from .stacks import start_stack as start

pytestmark = pytest.mark.usefixtures("image", "nothing_left")

COMPLETED = {"condition": "service_completed_successfully"}


# --- services without a restart policy -------------------------------------------------------


def test_a_database_without_a_restart_policy_ends_with_the_job(server: ServedProcess) -> None:
    health = {"test": ["CMD-SHELL", "test -e /tmp/up"], "interval": "0.1s", "retries": 100}
    services = {
        "db": service(f"trap 'echo saved; exit 3' TERM; touch /tmp/up; {FOREVER}",
                      healthcheck=health),
        "job": service("echo 42", depends_on={"db": {"condition": "service_healthy"}}),
    }  # fmt: skip
    run = start(server, services)
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("completed", 0), record["system_errors"]
    assert (lines(record, "job"), lines(record, "db")) == (["42"], ["saved"])


def test_a_service_in_the_middle_of_a_chain_is_not_waited_for(server: ServedProcess) -> None:
    services = {
        "db": service(FOREVER),
        "api": service(FOREVER, depends_on=["db"]),
        "job": service("exit 4", depends_on=["api"]),
    }
    record = start(server, services).ended()
    assert (record["status"], record["return_code"]) == ("failed", 4)
    assert error_of(record) == "service `job` ended with exit code 4"


def test_a_service_whose_network_is_shared_is_not_waited_for(server: ServedProcess) -> None:
    services = {
        "web": service(FOREVER),
        "job": service("echo done", network_mode="service:web"),
    }
    record = start(server, services).ended()
    assert (record["status"], record["stdout"]) == ("completed", "job | done\n")


def test_what_is_depended_on_and_fails_by_itself_counts(server: ServedProcess) -> None:
    services = {
        "db": service("touch /mnt/s3/gone; exit 6"),
        "job": service("while [ ! -e /mnt/s3/gone ]; do sleep 0.05; done; sleep 0.3",
                       depends_on=["db"]),
    }  # fmt: skip
    record = start(server, services).ended()
    assert (record["status"], record["return_code"]) == ("failed", 6)


def test_two_services_that_nobody_depends_on_are_both_waited_for(server: ServedProcess) -> None:
    services = {"a": service("exit 0"), "b": service(f"{HOLD}; echo last")}
    run = start(server, services)
    run.is_at("waiting for `b` to end")
    run.let_go()
    assert lines(run.ended(), "b") == ["last"]


# --- restart policies ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["on-failure", "on-failure:5"])
def test_a_job_that_is_tried_again_ends_the_run_beside_a_server(
    server: ServedProcess, policy: str
) -> None:
    script = "[ -e /mnt/s3/tried ] && { echo second; exit 0; }; touch /mnt/s3/tried; exit 1"
    services = {
        "web": service(FOREVER, restart="always"),
        "job": service(script, restart=policy),
    }
    record = start(server, services).ended()
    assert (record["status"], record["return_code"]) == ("completed", 0)
    assert lines(record, "job") == ["second"]


def test_a_job_that_is_tried_again_is_not_killed_halfway(server: ServedProcess) -> None:
    services = {
        "short": service("exit 0"),
        "long": service(f"echo begun; {HOLD}; echo done", restart="on-failure"),
    }
    run = start(server, services)
    run.is_at("waiting for `long` to end")
    run.let_go()
    record = run.ended()
    assert (record["status"], lines(record, "long")) == ("completed", ["begun", "done"])


def test_a_job_whose_tries_are_used_up_fails_the_run(server: ServedProcess) -> None:
    services = {
        "web": service(FOREVER, restart="unless-stopped"),
        "job": service("exit 9", deploy={
            "restart_policy": {"condition": "on-failure", "max_attempts": 1},
        }),
    }  # fmt: skip
    record = start(server, services).ended()
    assert (record["status"], record["return_code"]) == ("failed", 9)


def test_a_server_after_a_step_goes_on(server: ServedProcess) -> None:
    services = {
        "migrate": service("echo migrated"),
        "web": service(f"echo up; {FOREVER}", restart="always",
                       depends_on={"migrate": COMPLETED}),
    }  # fmt: skip
    run = start(server, services)
    run.is_at("`web` serving until the run is stopped")
    run.stop()
    record = run.ended()
    assert (record["status"], lines(record, "web")) == ("cancelled", ["up"])


def test_a_monitor_that_is_always_restarted_ends_with_what_it_watches(
    server: ServedProcess,
) -> None:
    services = {
        "train": service("echo trained"),
        "monitor": service(FOREVER, restart="always", depends_on=["train"]),
    }
    record = start(server, services).ended()
    assert (record["status"], record["stdout"]) == ("completed", "train | trained\n")


# --- the row ---------------------------------------------------------------------------------


def test_the_row_names_what_the_run_waits_for(server: ServedProcess) -> None:
    services = {
        "db": service(f"trap 'sleep 1; exit 0' TERM; {FOREVER}"),
        "first": service("exit 0", depends_on=["db"]),
        "second": service(HOLD, depends_on=["db"]),
    }
    run = start(server, services)
    run.is_at("waiting for `second` to end")
    run.let_go()
    run.is_at("stopping `db`")
    assert run.ended()["status"] == "completed"


def test_the_next_server_says_it_as_well(folder: Path) -> None:
    services = {"job": service(f"echo begun; {HOLD}")}
    with served(folder) as server:
        run = start(server, services)
        run.is_at("waiting for `job` to end")
        server.end()
    with served(folder) as server:
        run = run.on(server)
        run.is_at("waiting for `job` to end")
        run.let_go()
        assert run.ended()["status"] == "completed"
