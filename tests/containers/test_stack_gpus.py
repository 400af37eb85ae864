"""Stacks that ask for a GPU where there is none: they run on the CPU, and the row says so."""

from __future__ import annotations

from typing import Any

import pytest

from lyceum_magic.protocol.events import Progress
from lyceum_magic.server.gpus import NO_GPU, has_gpu
from tests.tools.served_process import ServedProcess, served

from .runs import HOLD
from .stacks import lines, service, start_stack

pytestmark = [
    pytest.mark.usefixtures("image", "nothing_left"),
    pytest.mark.skipif(has_gpu(), reason="this machine has a GPU"),
]


def reserved(**device: Any) -> dict[str, Any]:
    return {"deploy": {"resources": {
        "limits": {"memory": "64m"},
        "reservations": {"memory": "16m", "devices": [{"capabilities": ["gpu"], **device}]},
    }}}  # fmt: skip


@pytest.mark.parametrize(
    "wish",
    [
        {"gpus": "all"},
        {"gpus": [{"driver": "nvidia", "count": 2}]},
        reserved(driver="nvidia", count="all"),
        reserved(device_ids=["0"]),
        {**reserved(count=1), "gpus": "all"},
    ],
    ids=str,
)
def test_a_stack_that_asks_for_gpus_runs_on_the_cpu(
    server: ServedProcess, wish: dict[str, Any]
) -> None:
    run = start_stack(server, {"a": service("echo ran", **wish), "b": service("echo too")})
    record = run.ended()
    assert (record["status"], lines(record, "a")) == ("completed", ["ran"]), record
    assert record["status_details"] == NO_GPU
    # The row of a run that is over says it too.
    assert NO_GPU in [event.note for event in run.events() if isinstance(event, Progress)]


def test_the_rest_of_a_reservation_is_kept(server: ServedProcess) -> None:
    greedy = service("", **reserved(count=1))
    greedy["command"] = ["python3", "-c", "b'x' * (1 << 30)"]
    assert start_stack(server, {"a": greedy}).ended()["return_code"] == 137


def test_a_stack_that_asks_for_none_says_nothing(server: ServedProcess) -> None:
    record = start_stack(server, {"a": service("echo ran")}).ended()
    assert record["status_details"] is None


def test_the_next_server_says_it_as_well(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("next") / "state"
    with served(folder) as server:
        run = start_stack(server, {"a": service(f"echo begun; {HOLD}", gpus="all")})
        run.said("a | begun")
        server.end()
    with served(folder) as server:
        run = run.on(server)
        assert run.record()["status_details"] == NO_GPU
        run.let_go()
        assert run.ended()["status_details"] == NO_GPU
