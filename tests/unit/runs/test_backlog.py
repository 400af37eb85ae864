"""The backlog between the loop thread and the cell: bounded, in order, open to interrupts."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from lyceum_magic.protocol.events import Output, Progress
from lyceum_magic.protocol.states import State
from lyceum_magic.runs import backlog as backlog_module
from lyceum_magic.runs.backlog import Backlog, News
from tests.tools.waiting import eventually

LIMIT_S = 30


class Loop:
    """An event loop on a thread of its own, and a backlog that is filled there."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.backlog = Backlog()

    def put(self, *items: Output | Progress) -> Future[None]:
        async def put_all() -> None:
            for item in items:
                characters = len(item.text) if isinstance(item, Output) else 0
                await self.backlog.put([item], characters)

        return asyncio.run_coroutine_threadsafe(put_all(), self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def there() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.backlog.close()
    loop.close()


def test_items_come_in_their_order(there: Loop) -> None:
    items = [Output("a"), Progress(State.RUNNING), Output("b", "stderr")]
    there.put(*items).result(LIMIT_S)
    assert there.backlog.get() == items


def test_what_comes_later_ends_the_wait(there: Loop) -> None:
    threading.Timer(0.01, lambda: there.put(Output("a"))).start()
    assert there.backlog.get(LIMIT_S) == [Output("a")]


def test_a_wait_with_a_limit_ends_empty(there: Loop) -> None:
    assert there.backlog.get(0.01) == []
    assert not there.backlog.is_drained


def test_a_flood_waits_until_it_is_read(there: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "MAX_PENDING_CHARACTERS", 100)
    flood = there.put(*[Output("x" * 60) for _ in range(6)])
    sizes = []
    while sum(sizes) < 360:
        got = there.backlog.get(LIMIT_S)
        sizes.append(sum(len(item.text) for item in got if isinstance(item, Output)))
    flood.result(LIMIT_S)
    assert sum(sizes) == 360
    assert max(sizes) <= 160


def test_closing_ends_both_waits(there: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "MAX_PENDING_CHARACTERS", 1)
    flood = there.put(Output("left behind"), Output("never taken"))
    there.backlog.close()
    flood.result(LIMIT_S)
    got = there.backlog.get()
    assert [item for item in got if item == Output("never taken")] == []
    assert there.backlog.get() == []
    assert there.backlog.is_drained


def test_an_interrupt_gets_through_a_wait_without_limit(there: Loop) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    # Tests that a shell runs in the background inherit a SIGINT that is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.05, interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            there.backlog.get()
    finally:
        signal.signal(signal.SIGINT, before)
    there.put(Output("still well")).result(LIMIT_S)
    assert there.backlog.get() == [Output("still well")]


def test_an_interrupt_at_the_worst_moment_leaves_no_follower_waiting(
    there: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt comes between taking a full backlog and saying that it has room again."""
    monkeypatch.setattr(backlog_module, "MAX_PENDING_CHARACTERS", 1)
    flood = there.put(Output("first"), Output("second"))
    eventually(lambda: there.backlog._is_full, "the full backlog")

    class Interrupted:
        def call_soon_threadsafe(self, *_: object) -> None:
            raise KeyboardInterrupt

    well, there.backlog._loop = there.backlog._loop, Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        there.backlog.get(LIMIT_S)
    there.backlog._loop = well
    got: list[News] = []
    while len(got) < 2:
        got += there.backlog.get(LIMIT_S)
    assert got == [Output("first"), Output("second")]
    there.backlog.get(0.01)
    flood.result(LIMIT_S)


def test_closing_is_possible_when_the_loop_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader may leave after the process has closed all that runs share."""
    monkeypatch.setattr(backlog_module, "MAX_PENDING_CHARACTERS", 1)
    loop = Loop()
    loop.put(Output("much"))
    eventually(lambda: loop.backlog._is_full, "the full backlog")
    loop.backlog.close()
    loop.close()
    assert loop.backlog.get() == [Output("much")]
    loop.backlog.close()
