"""The grace of each service: its own `stop_grace_period`, and the run's where that is smaller."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tools.served_process import ServedProcess

from .stacks import FOREVER, lines, service, start_stack

pytestmark = pytest.mark.usefixtures("image", "nothing_left")


def draining(seconds: int) -> str:
    """A script that takes `seconds` to end after it is asked to."""
    return f"trap 'echo draining; sleep {seconds}; echo drained; exit 0' TERM; echo up; {FOREVER}"


def stopped(server: ServedProcess, script: str, period: str | None, **fields: Any) -> list[str]:
    """The lines of a service that is stopped once it is up."""
    more = {} if period is None else {"stop_grace_period": period}
    run = start_stack(server, {"a": service(script, **more)}, **fields)
    run.said("a | up")
    run.stop()
    return lines(run.ended(), "a")


def test_a_service_s_own_grace_may_be_longer_than_the_usual_one(server: ServedProcess) -> None:
    assert stopped(server, draining(12), "1m")[-1] == "drained"


def test_a_service_s_own_grace_may_be_shorter(server: ServedProcess) -> None:
    # Killed after a second, not after ten.
    assert stopped(server, draining(5), "1s")[-1] == "draining"


@pytest.mark.parametrize(
    ("period", "named_s", "last"),
    [("60s", 1, "draining"), ("1s", 60, "draining"), (None, 60, "drained"), ("60s", 60, "drained")],
)
def test_the_smaller_of_two_graces_counts(
    server: ServedProcess, period: str | None, named_s: int, last: str
) -> None:
    assert stopped(server, draining(4), period, graceful_timeout=named_s)[-1] == last


def test_what_is_no_longer_needed_has_its_grace_too(server: ServedProcess) -> None:
    services = {
        "db": service(draining(12).replace("echo up", "touch /mnt/s3/up"), stop_grace_period="60s"),
        "job": service("while [ ! -e /mnt/s3/up ]; do sleep 0.1; done",
                       depends_on=["db"]),
    }  # fmt: skip
    record = start_stack(server, services).ended()
    assert (record["status"], lines(record, "db")[-1]) == ("completed", "drained")


def test_the_time_limit_gives_it_as_well(server: ServedProcess) -> None:
    services = {"a": service(draining(12), stop_grace_period="60s")}
    record = start_stack(server, services, timeout=2).ended()
    assert record["status_details"] == "timeout"
    assert lines(record, "a")[-1] == "drained"
