"""The interrupt of a session's cell: it is stopped, and aborted if that has no effect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from lyceum_magic.exceptions import ServerUnreachable
from lyceum_magic.runs import ending as ending_module
from lyceum_magic.runs.ending import Ending

pytestmark = pytest.mark.anyio


class Server:
    """A client that notes what it is asked for, and reacts."""

    def __init__(self) -> None:
        self.known: Future[None] = Future()
        self.known.set_result(None)
        self.ended: Future[None] = Future()
        self.asked: list[str] = []
        self.on_stop: Callable[[], None] = lambda: None
        client: Any = self
        self.ending = Ending(client, lambda: "run", self.known, self.ended, self.say)
        self.ending.is_session = True

    async def say(self, sentence: str) -> None:
        self.asked.append(sentence)

    async def stop(self, run_id: str) -> str:
        self.asked.append(f"stop {run_id}")
        self.on_stop()
        return "stopping"

    async def abort(self, run_id: str) -> str:
        self.asked.append(f"abort {run_id}")
        self.ended.set_result(None)
        return "aborted"


async def test_a_cell_that_takes_the_interrupt_goes_on_to_its_end() -> None:
    server = Server()
    server.on_stop = lambda: server.ending.interrupted.set_result(None)
    await server.ending.interrupt("interrupted")
    assert server.asked == ["stop run"]
    assert server.ending.why == "interrupted"


async def test_a_run_that_ends_is_not_aborted() -> None:
    server = Server()
    server.on_stop = lambda: server.ended.set_result(None)
    await server.ending.interrupt("interrupted")
    assert server.asked == ["stop run"]


async def test_a_run_without_a_reaction_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending_module, "INTERRUPT_S", 0.01)
    server = Server()
    await server.ending.interrupt("interrupted")
    assert server.asked == ["stop run", "abort run"]


async def test_a_stop_that_fails_is_followed_by_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending_module, "INTERRUPT_S", 0.01)
    server = Server()

    def fail() -> None:
        raise ServerUnreachable("gone")

    server.on_stop = fail
    await server.ending.interrupt("interrupted")
    assert server.asked == ["stop run", "abort run"]


async def test_a_second_interrupt_aborts_at_once() -> None:
    server = Server()
    first = asyncio.create_task(server.ending.interrupt("interrupted"))
    await asyncio.sleep(0)
    await server.ending.interrupt("interrupted")
    await first
    assert server.asked.count("abort run") == 1


async def test_any_other_run_is_aborted() -> None:
    server = Server()
    server.ending.is_session = False
    await server.ending.interrupt("interrupted")
    assert server.asked == ["abort run"]
