"""The cost of runs on a cloud with prices, which never keeps a run from going on."""

from __future__ import annotations

import asyncio
import time

import pytest

import lyceum_magic
from lyceum_magic.client import api as client_api
from lyceum_magic.exceptions import OptionError, RequestRefused
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line
from lyceum_magic.magic.view import facts_of
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output, Progress
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.runs import workspace as workspace_module
from lyceum_magic.runs.run import Run
from lyceum_magic.runs.workspace import Workspace
from tests.tools.wire_server import (
    STREAM_SECRET,
    Reply,
    Request,
    WireServer,
    frame,
    html,
    json_answer,
    record,
    refusal,
    started,
    stream,
)
from tests.tools.workspaces import only

pytestmark = pytest.mark.usefixtures("cloud")

PRICE = 3.6
LIMIT_S = 60
SECRET_PATH = f"{paths.stream('run')}/{STREAM_SECRET}"
DEFAULTS = Defaults(machine="cpu", timeout_s=600, max_lines=10, max_bytes=1000)


def prices(price: object = PRICE) -> Reply:
    return json_answer(
        {"machine_types": [{"hardware_profile": "gpu.a100", "price_per_hour": price}]}
    )


@pytest.fixture(autouse=True)
def priced(wire: WireServer, cloud: None) -> None:
    """A machine has a price, and a run of it ends at once with a bill."""
    wire.on("GET", paths.MACHINE_TYPES, prices())
    end = [Progress(State.RUNNING), Output("a\n"), Finished(State.COMPLETED, 0)]
    wire.on("POST", SECRET_PATH, stream(*(frame(event) for event in end)))
    wire.on("GET", paths.record("run"), json_answer(record(billed=0.0123)))


def submit(
    workspace: Workspace, machine: str = "gpu.a100", budget: float | None = None, **members: object
) -> Run:
    request = StartPython(code="1", execution_type=machine, **{"timeout": 600, **members})  # type: ignore[arg-type]
    run = workspace.submit(workspace.client(), request, budget=budget)
    run.wait(LIMIT_S)
    return run


def test_a_run_costs_what_its_record_says(workspace: Workspace) -> None:
    run = submit(workspace)
    assert (run.price_per_hour, run.billed, run.cost) == (PRICE, 0.0123, 0.0123)
    assert facts_of(run).cost == "billed $0.01"
    (entry,) = workspace.history.entries()
    assert (entry.price_per_hour, entry.billed, entry.process) == (
        PRICE,
        0.0123,
        workspace.process_id,
    )


@pytest.mark.parametrize("billed", [0, 0.0, None, "0.5", True, -1, float("nan")])
def test_without_a_bill_the_time_makes_an_estimate(
    wire: WireServer, workspace: Workspace, billed: object
) -> None:
    wire.on("GET", paths.record("run"), json_answer(record(billed=billed)))
    run = submit(workspace)
    assert run.billed is None
    assert run.waited_s is not None
    assert run.cost == pytest.approx(PRICE * (run.elapsed_s - run.waited_s) / 3600)
    assert facts_of(run).cost.startswith(("about $", "under $"))


@pytest.mark.parametrize("answer", [refusal(500), refusal(404), html])
def test_a_server_that_gives_no_record_fails_no_run(
    wire: WireServer, workspace: Workspace, answer: Reply
) -> None:
    wire.on("GET", paths.record("run"), answer)
    assert submit(workspace).state is State.COMPLETED


@pytest.mark.parametrize(
    "answer", [refusal(500), refusal(404), html, json_answer({}), prices(None), prices("much")]
)
def test_without_prices_a_run_says_nothing_of_money(
    wire: WireServer, workspace: Workspace, answer: Reply
) -> None:
    wire.on("GET", paths.MACHINE_TYPES, answer)
    run = submit(workspace)
    assert (run.price_per_hour, run.cost, run.note, facts_of(run).cost) == (None, None, "", "")
    assert not wire.asked("GET", paths.record("run"))


def test_a_server_that_never_gives_its_prices_delays_a_run_once_and_not_for_long(
    wire: WireServer, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(client_api, "PRICES_LIMIT_S", 0.05)
    wire.on("GET", paths.MACHINE_TYPES, never)
    assert submit(workspace).state is State.COMPLETED
    assert submit(workspace).state is State.COMPLETED
    assert len(wire.asked("GET", paths.MACHINE_TYPES)) == 1


@pytest.mark.parametrize(
    ("events", "costs"),
    [
        ([Progress(State.PENDING), Finished(State.ABORTED, None)], False),
        ([Progress(State.PENDING), Finished(State.COMPLETED, 0)], True),
        ([Progress(State.STARTING), Finished(State.ABORTED, None)], True),
        ([Output("a"), Finished(State.ABORTED, None)], True),
    ],
)
def test_the_queue_is_free(
    wire: WireServer, workspace: Workspace, events: list[Progress | Output | Finished], costs: bool
) -> None:
    wire.on("GET", paths.record("run"), json_answer(record()))
    wire.on("POST", SECRET_PATH, stream(*map(frame, events)))
    run = submit(workspace)
    assert (run.cost is not None) == costs
    assert bool(facts_of(run).cost) == costs


def test_a_free_machine_has_no_cost(wire: WireServer, workspace: Workspace) -> None:
    wire.on("GET", paths.MACHINE_TYPES, prices(0))
    run = submit(workspace, budget=0.0001)
    assert (run.price_per_hour, run.cost, run.note, run.timeout_s) == (None, None, "", 600)


def test_prices_are_asked_for_once_in_some_minutes(
    wire: WireServer, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(workspace)
    submit(workspace)
    assert len(wire.asked("GET", paths.MACHINE_TYPES)) == 1
    later = time.monotonic() + client_api.PRICES_LAST_S
    monkeypatch.setattr(client_api.time, "monotonic", lambda: later)
    wire.on("GET", paths.MACHINE_TYPES, prices(7.2))
    assert submit(workspace).price_per_hour == 7.2


def test_the_first_run_that_is_paid_for_says_so_and_no_other(workspace: Workspace) -> None:
    assert submit(workspace, "cpu").note == ""
    assert submit(workspace).note == "from here on this notebook spends money: $3.60 an hour"
    assert submit(workspace).note == ""


def test_a_run_that_could_not_be_started_was_not_the_first_that_is_paid_for(
    wire: WireServer, workspace: Workspace
) -> None:
    wire.on("POST", paths.START_PYTHON, refusal(400), started(wire))
    with pytest.raises(RequestRefused):
        submit(workspace)
    assert "spends money" in submit(workspace).note


# Budgets.


def test_a_budget_shortens_the_time_limit_and_says_so(
    wire: WireServer, workspace: Workspace
) -> None:
    submit(workspace)
    run = submit(workspace, budget=0.1)
    assert run.timeout_s == 100
    assert run.note == "a budget of $0.10 limits it to 100 s"
    assert wire.asked("POST", paths.START_PYTHON)[-1].json["timeout"] == 100


def test_a_budget_that_is_large_enough_changes_nothing(workspace: Workspace) -> None:
    submit(workspace)
    run = submit(workspace, budget=5.0, timeout=60)
    assert (run.timeout_s, run.note) == (60, "")


def test_a_budget_for_no_run_at_all_is_one_sentence_and_starts_nothing(
    wire: WireServer, workspace: Workspace
) -> None:
    with pytest.raises(OptionError, match=r"\$0\.0009 does not pay for 1 s of gpu\.a100") as caught:
        submit(workspace, budget=0.0009)
    assert "\n" not in str(caught.value)
    assert not wire.asked("POST", paths.START_PYTHON)
    assert workspace.history.entries() == []


def test_a_budget_without_a_price_is_one_sentence_and_starts_nothing(
    wire: WireServer, workspace: Workspace
) -> None:
    wire.on("GET", paths.MACHINE_TYPES, refusal(404), refusal(404), prices())
    with pytest.raises(OptionError, match=r"names no price for gpu\.a100") as caught:
        submit(workspace, budget=1.0)
    assert "\n" not in str(caught.value)
    assert not wire.asked("POST", paths.START_PYTHON)
    # It matters, so it is asked for again.
    assert submit(workspace, budget=0.1).timeout_s == 100


@pytest.mark.parametrize("budget", [0, -1, "1", float("nan"), float("inf")])
def test_a_budget_from_python_is_a_sum(wire: WireServer, budget: object) -> None:
    with pytest.raises(OptionError, match="budget takes dollars"):
        lyceum_magic.submit("1", budget=budget)  # type: ignore[arg-type]
    assert not wire.requests


# Sums.


def test_status_and_list_tell_what_was_spent(
    wire: WireServer, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_module, "_workspaces", only(workspace))

    def shown(command: str) -> str:
        return repr(run_line(command, DEFAULTS, lambda name, value: None))

    submit(workspace, "cpu")
    assert "spent" not in shown("status")
    assert "cost" not in shown("list --all")
    submit(workspace)
    submit(workspace)
    assert "This notebook has spent $0.02 on 2 runs." in shown("status")
    assert shown("list --all").count("$0.01") == 2
    wire.on("GET", paths.record("run"), json_answer(record()))
    submit(workspace)
    assert "has spent about $0.02 on 3 runs." in shown("status")
    assert shown("list --all").count("$") == 3
    workspace.history.process_id = "another notebook's"
    assert "spent" not in shown("status")


# Sizes.


def test_a_request_that_is_too_large_starts_nothing(wire: WireServer, workspace: Workspace) -> None:
    large = StartPython(code="#" * (16 * 1024 * 1024), execution_type="cpu")
    with pytest.raises(OptionError, match="may have 16,777,216 bytes, and has 16,777,"):
        workspace.submit(workspace.client(), large)
    assert not wire.asked("POST", paths.START_PYTHON)
