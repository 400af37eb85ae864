"""The sweep: leftovers of runs in the engine are removed, also by a server that goes on."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from lyceum_magic.protocol.requests import Start
from lyceum_magic.server.runners.base import EngineUnavailable, ProgressListener, RunOrder, Usage
from lyceum_magic.server.runners.engine import runner as engine_runner
from lyceum_magic.server.runners.engine.runner import EngineRunner
from lyceum_magic.server.runners.handle import SupervisedHandle

pytestmark = pytest.mark.anyio

LIMIT_S = 10


class FakeEngine:
    """An engine that answers when it is told to. It holds ids of runs."""

    def __init__(self) -> None:
        self.is_there = False
        self.asked: queue.Queue[None] = queue.Queue()

    def close(self) -> None:
        pass

    def connect(self) -> FakeEngine:
        self.asked.put(None)
        if not self.is_there:
            raise EngineUnavailable("no engine")
        return self


class FakeEngineRunner(EngineRunner):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, bucket=folder, kind="image", supervisor="engine.container_work")
        self.removed: queue.Queue[str] = queue.Queue()
        self._mark.touch()

    async def check(self, request: Start) -> None:
        pass

    async def prepare(
        self, run_order: RunOrder, on_progress: ProgressListener
    ) -> Mapping[str, Any]:
        return {}

    def usage(self, client: Any, run_id: str) -> Usage | None:
        return None

    def remove(self, client: Any, run_id: str) -> None:
        self.removed.put(run_id)

    def found(self, client: Any) -> Iterable[str]:
        return ["left-behind"]


class LostRun:
    is_abandoned = True


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine()
    monkeypatch.setattr(engine_runner, "connect", engine.connect)
    monkeypatch.setattr(engine_runner, "_SWEEP_AGAIN_S", 0.01)
    return engine


@pytest.fixture
async def runner(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[FakeEngineRunner]:
    runner = FakeEngineRunner(tmp_path)
    yield runner
    await runner.close()


async def got(items: queue.Queue[Any]) -> Any:
    return await anyio.to_thread.run_sync(lambda: items.get(timeout=LIMIT_S))


async def test_an_engine_that_comes_back_is_swept(
    engine: FakeEngine, runner: FakeEngineRunner
) -> None:
    await runner.open()
    for _ in range(3):
        await got(engine.asked)
    assert runner.removed.empty()
    engine.is_there = True
    assert await got(runner.removed) == "left-behind"


async def test_a_run_that_was_lost_is_swept_up_by_the_server_that_lost_it(
    engine: FakeEngine, runner: FakeEngineRunner
) -> None:
    engine.is_there = True
    runner.ended(cast(SupervisedHandle, LostRun()))
    assert await got(runner.removed) == "left-behind"
    runner.ended(cast(SupervisedHandle, LostRun()))
    assert await got(runner.removed) == "left-behind"
