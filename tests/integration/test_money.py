"""The price in a notebook: before, during and after a run on a cloud that has prices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output, Progress
from lyceum_magic.protocol.states import State
from tests.tools.kernel import Kernel, running_kernel
from tests.tools.wire_server import (
    STREAM_SECRET,
    Request,
    WireServer,
    frame,
    json_answer,
    record,
    started,
    wire_thread,
)

pytestmark = pytest.mark.kernel

LIMIT_S = 60


@pytest.fixture
def wire() -> Iterator[WireServer]:
    """A cloud with prices, whose runs wait for `gate`."""
    machine = {"hardware_profile": "gpu.a100", "price_per_hour": 3.6}
    with wire_thread() as wire:
        wire.on("GET", paths.AVAILABLE_HARDWARE, json_answer({"available_hardware_profiles": []}))
        wire.on("GET", paths.MACHINE_TYPES, json_answer({"machine_types": [machine]}))
        wire.on("POST", paths.START_PYTHON, started(wire))
        wire.on("GET", paths.record("run"), json_answer(record(billed=0.0421)))
        yield wire


@pytest.fixture
def kernel(wire: WireServer, own_machine: Path) -> Iterator[Kernel]:
    env = {"LYCEUM_API_KEY": "lk_key", "LYCEUM_BASE_URL": wire.base_url}
    with running_kernel(env=env) as kernel:
        yield kernel


def gated(wire: WireServer) -> list[threading.Event]:
    """Gates that hold the run: before it runs, before it ends."""
    gates = [threading.Event(), threading.Event()]
    pieces = [
        [frame(Progress(State.PENDING))],
        [frame(Progress(State.RUNNING)), frame(Output("hi\n"))],
        [frame(Finished(State.COMPLETED, 0))],
    ]

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )
        for gate, piece in zip([None, *gates], pieces, strict=True):
            if gate is not None:
                assert await asyncio.to_thread(gate.wait, LIMIT_S)
            writer.write(b"".join(piece))
            await writer.drain()
        writer.close()

    wire.on("POST", f"{paths.stream('run')}/{STREAM_SECRET}", reply)
    return gates


def test_a_price_is_shown_before_during_and_after(kernel: Kernel, wire: WireServer) -> None:
    gates = gated(wire)
    cell = kernel.start("%%lyceum -m gpu.a100 -t 100\nprint('hi')")
    cell.until(lambda cell: "queued" in cell.summary and "at most $0.10" in cell.summary)
    assert "so far, at most" not in cell.summary
    assert "from here on this notebook spends money: $3.60 an hour" in cell.summary
    gates[0].set()
    cell.until(lambda cell: "running" in cell.summary and " so far, at most $0.10" in cell.summary)
    gates[1].set()
    cell.done()
    assert cell.error is None, cell
    assert "completed" in cell.summary
    assert "billed $0.04" in cell.summary
    assert "at most" not in cell.summary
    assert kernel.value("_run.cost") == "0.0421"
    assert "This notebook has spent $0.04 on 1 run." in kernel.run("%lyceum status").result
    assert "$0.04" in kernel.run("%lyceum list --all").result

    for gate in gated(wire):
        gate.set()
    again = kernel.run("%%lyceum -m gpu.a100 --budget 0.05\nprint('hi')")
    assert "spends money" not in again.summary
    assert "a budget of $0.05 limits it to 50 s" in again.summary
    assert wire.asked("POST", paths.START_PYTHON)[-1].json["timeout"] == 50


def test_a_budget_that_pays_for_nothing_starts_nothing(kernel: Kernel, wire: WireServer) -> None:
    cell = kernel.run("%%lyceum -m gpu.a100 --budget 0.0001\nprint('hi')")
    assert cell.error is not None
    (said,) = cell.error["traceback"]
    assert said.startswith("OptionError: A budget of $0.0001 does not pay for 1 s of gpu.a100")
    assert not wire.asked("POST", paths.START_PYTHON)


def test_a_detached_run_shows_its_price_too(kernel: Kernel, wire: WireServer) -> None:
    gates = gated(wire)
    cell = kernel.start("%%lyceum -m gpu.a100 -t 100 --detach\nprint('hi')").done()
    assert "at most $0.10" in cell.summary
    for gate in gates:
        gate.set()
    kernel.pump(lambda: "billed $0.04" in cell.summary)
    assert "detached" in cell.summary


def test_the_embedded_server_is_free(own_machine: Path) -> None:
    with running_kernel() as kernel:
        cell = kernel.run("%%lyceum --budget 0.0000001\nprint('hi')")
        assert (cell.error, cell.stdout) == (None, "hi\n")
        assert "$" not in cell.summary
        assert kernel.value("(_run.cost, _run.billed, _run.timeout_s)") == "(None, None, 600)"
        assert "spent" not in kernel.run("%lyceum status").result
        assert "cost" not in kernel.run("%lyceum list --all").result
