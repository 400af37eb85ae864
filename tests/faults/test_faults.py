"""What `make faults` measures at length, in small: nothing is lost, whatever fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.cli import EXIT_ALREADY_SERVED

from . import clocks, disks, kills, report
from .driving import Server, server_on
from .receiver import Receiver
from .server import POINTS, START_UP_POINTS

pytestmark = pytest.mark.timeout(180)

SEED = 20260722


def test_nothing_is_sent_twice_where_nothing_fails() -> None:
    result = asyncio.run(kills.campaign(kills.Plan(SEED, 40, 16, 0, {})))
    assert report.missed(report.of_kills(result)) == []
    assert result.twice == 0


def test_killed_servers_lose_nothing() -> None:
    plan = kills.Plan(SEED, 80, 16, len(kills.CAUSES))
    result = asyncio.run(kills.campaign(plan))
    assert report.missed(report.of_kills(result)) == []
    assert set(result.attempts) == {"accept", *kills.FAULTY}
    assert set(result.kills) == {kills.BY_TIME, *POINTS, *START_UP_POINTS}


@pytest.mark.parametrize("scenario", [disks.full_disk, disks.read_only_disk])
def test_a_disk_that_fails_loses_nothing(
    scenario: Callable[[Path], Coroutine[Any, Any, disks.Result]], tmp_path: Path
) -> None:
    try:
        result = asyncio.run(scenario(tmp_path))
    except disks.NoMounts as exc:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(exc))
    assert report.missed(report.of_disk(result)) == []


def test_a_clock_that_jumps_loses_nothing(tmp_path: Path) -> None:
    result = asyncio.run(clocks.jumping_clock(tmp_path))
    assert report.missed(report.of_clock(result)) == []


def test_a_second_server_on_the_folder_sends_nothing(tmp_path: Path) -> None:
    async def both() -> Receiver:
        receiver = Receiver(SEED, {"503": 0.5})
        async with server_on(tmp_path / "state") as server, receiver.listening(4):
            await server.start()
            receiver.secret = await server.signing_secret()
            urls = [f"{origin}/{number}" for origin in receiver.origins for number in range(4)]
            await server.run(urls)
            second = Server(tmp_path / "state")
            await second.spawn()
            assert not await second.listens()
            assert await second.ended() == EXIT_ALREADY_SERVED
            assert await receiver.wait_for_all(urls, 30)
        return receiver

    receiver = asyncio.run(both())
    assert {len(receiver.accepted(url)) for url in receiver.by_url} == {1}
