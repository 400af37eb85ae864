"""A reader of a run may stop at any moment: the run is followed on, and others read on."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable

import pytest

from lyceum_magic.display.panel import Panel
from lyceum_magic.display.strip import Strip
from lyceum_magic.magic import cell, detached
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line
from lyceum_magic.magic.view import View
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.runs import backlog as backlog_module
from lyceum_magic.runs import run as run_module
from lyceum_magic.runs import workspace as workspace_module
from lyceum_magic.runs.backlog import Backlog, News
from lyceum_magic.runs.run import Run
from lyceum_magic.runs.workspace import Workspace
from tests.tools.waiting import eventually
from tests.tools.wire_server import STREAM_SECRET, Request, WireServer, frame, stream
from tests.tools.workspaces import only

#: Far above what the events below take.
LIMIT_S = 20
DEFAULTS = Defaults(machine="cpu", timeout_s=60, max_lines=1000, max_bytes=10**6)
FLOOD = [Output("x" * 60 + "\n") for _ in range(40)]


class HeldRun:
    """A run that has said one line; `release` lets it print a flood and end."""

    def __init__(self, wire: WireServer, workspace: Workspace) -> None:
        self._go_on = asyncio.Event()
        self._loops: list[asyncio.AbstractEventLoop] = []
        first, *rest = (
            frame(event, str(number))
            for number, event in enumerate(
                [Output("first\n"), *FLOOD, Finished(State.COMPLETED, 0)], 1
            )
        )

        async def held(request: Request, writer: asyncio.StreamWriter) -> None:
            self._loops.append(asyncio.get_running_loop())
            await stream(first, hold=self._go_on)(request, writer)

        address = f"{paths.stream('run')}/{STREAM_SECRET}"
        wire.on("POST", address, held, stream(*rest))
        request = StartPython(code="print(1)", execution_type="cpu")
        self.run = workspace.submit(workspace.client(), request)
        eventually(lambda: self.run.text == "first\n", "the first line")

    def release(self) -> None:
        self._loops[0].call_soon_threadsafe(self._go_on.set)


@pytest.fixture
def held(
    wire: WireServer, cloud: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> HeldRun:
    monkeypatch.setattr(backlog_module, "MAX_PENDING_CHARACTERS", 100)
    monkeypatch.setattr(workspace_module, "_workspaces", only(workspace))
    return HeldRun(wire, workspace)


class Stopped(BaseException):
    """An end of a reader: an interrupt, or an error of the function that shows the outputs."""


class BrokenView(View):
    """A view that fails at its first output."""

    def take(self, item: News) -> None:
        raise Stopped


class BrokenText(io.StringIO):
    def write(self, text: str) -> int:
        raise Stopped


def read_logs(run: Run) -> None:
    with contextlib.redirect_stdout(BrokenText()):
        run_line("logs last", DEFAULTS, lambda name, value: None)


def read_in_cell(run: Run) -> None:
    cell.run_in_cell(run, DEFAULTS)


def read_in_panel(run: Run) -> None:
    view = BrokenView(run, Strip(lambda: None), Panel(lambda: run.id))
    before, backlog = run.watch()
    detached._go_on(view, before, backlog)


@pytest.mark.parametrize("read", [read_logs, read_in_cell, read_in_panel])
def test_a_reader_that_fails_stops_neither_the_follower_nor_other_readers(
    held: HeldRun, read: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell, "View", BrokenView)
    _, other = held.run.watch()
    with pytest.raises(Stopped):
        read(held.run)
    held.release()
    seen: list[News] = []
    while not other.is_drained:
        items = other.get(LIMIT_S)
        assert items or other.is_drained, "the other reader waits for ever"
        seen += items
    assert [item for item in seen if isinstance(item, Output)] == FLOOD
    assert held.run.wait(LIMIT_S) is State.COMPLETED


def test_an_interrupt_while_a_reader_begins_leaves_no_inbox_open(
    held: HeldRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt may come when the run has the backlog, and the reader does not have it yet."""
    made: list[Backlog] = []
    call = held.run.following._portal.call

    class Noted(Backlog):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    def interrupted(function: Callable[..., object], *args: object) -> None:
        call(function, *args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "Backlog", Noted)
        patch.setattr(held.run.following._portal, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            held.run.watch()
    assert len(made) == 1
    held.release()
    assert held.run.wait(LIMIT_S) is State.COMPLETED


def test_a_reader_that_has_left_is_forgotten(held: HeldRun) -> None:
    _, backlog = held.run.watch()
    backlog.close()
    _, other = held.run.watch()
    held.release()
    while not other.is_drained:
        other.get(LIMIT_S)
    assert backlog.get() == []
    held.run.wait(LIMIT_S)
    assert held.run.following._backlogs == []
