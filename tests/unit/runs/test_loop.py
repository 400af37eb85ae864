"""The thread of the event loop, and interrupts of those who wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import anyio
import pytest

from lyceum_magic.runs.loop import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread("test")
    yield loop
    loop.close()


class Work:
    """Work that goes on until it is cancelled."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.has_ended = threading.Event()

    async def __call__(self) -> None:
        self.has_begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.has_ended.set()


def test_an_interrupt_cancels_the_work_and_waits_for_its_end(loop: LoopThread) -> None:
    work = Work()

    def interrupt() -> None:
        assert work.has_begun.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.wait_for(work, while_waiting=interrupt)
    assert work.has_ended.is_set()


def test_an_interrupt_before_the_tasks_handle_is_here_cancels_it_too(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work()
    start = loop.portal.start_task_soon

    def interrupted(function: Callable[..., Any], *args: object) -> Future[Any]:
        monkeypatch.undo()
        start(function, *args)
        assert work.has_begun.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.portal, "start_task_soon", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.wait_for(work, while_waiting=lambda: None)
    assert work.has_ended.is_set()


def test_an_interrupt_before_the_work_is_started_leaves_nothing_to_wait_for(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(function: Callable[..., Any], *args: object) -> Future[Any]:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.portal, "start_task_soon", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.wait_for(Work(), while_waiting=lambda: None)


def test_results_and_errors_come_back(loop: LoopThread) -> None:
    async def seven() -> int:
        return 7

    async def fails() -> int:
        raise ValueError("no")

    assert loop.wait_for(seven, while_waiting=lambda: None) == 7
    with pytest.raises(ValueError, match="no"):
        loop.wait_for(fails, while_waiting=lambda: None)
