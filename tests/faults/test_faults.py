"""A short form of `make faults`: nothing is lost, whatever fails."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from lyceum_magic.cli import EXIT_ALREADY_SERVED

from . import clocks, disks, kills, report
from .driving import Server, server_on
from .receiver import Receiver

_T = TypeVar("_T")

pytestmark = pytest.mark.timeout(600)

SEED = 20260722
#: One of each kind; `make faults` has them all.
CAUSES = (
    None, "opening", "reading endpoints", "inside the finish", "after the finish",
    "after sending", "inside the group write", "before reading due rows",
)  # fmt: skip


def test_nothing_is_sent_twice_where_nothing_fails() -> None:
    result = asyncio.run(kills.campaign(kills.Plan(SEED, 40, 16, 0, {})))
    assert report.missed(report.of_kills(result)) == []
    assert result.twice == 0


def test_killed_servers_lose_nothing() -> None:
    plan = kills.Plan(SEED, 36, 16, len(CAUSES), causes=CAUSES, patience_s=60)
    result = asyncio.run(kills.campaign(plan))
    assert report.missed(report.of_kills(result)) == []
    assert set(result.attempts) >= {"accept", *kills.FAULTY}
    assert set(result.kills) == {cause or kills.BY_TIME for cause in CAUSES}


@dataclass
class Scenarios:
    """The outcome of each: a result, or the exception that came instead."""

    full_disk: disks.Result | BaseException
    read_only_disk: disks.Result | BaseException
    clock: clocks.Result | BaseException
    two_servers: Receiver | BaseException


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Scenarios:
    """All at once: each of them waits most of the time."""

    def folder() -> Path:
        return tmp_path_factory.mktemp("scenario")

    async def play() -> Scenarios:
        return Scenarios(
            *await asyncio.gather(
                disks.full_disk(folder()),
                disks.read_only_disk(folder()),
                clocks.jumping_clock(folder()),
                two_servers(folder()),
                return_exceptions=True,
            )
        )

    return asyncio.run(play())


@pytest.mark.parametrize("disk", ["full_disk", "read_only_disk"])
def test_a_disk_that_fails_loses_nothing(disk: str, scenarios: Scenarios) -> None:
    result = getattr(scenarios, disk)
    if isinstance(result, disks.NoMounts) and os.environ.get("CI") != "true":
        pytest.skip(str(result))
    assert report.missed(report.of_disk(_of(result))) == []


def test_a_clock_that_jumps_loses_nothing(scenarios: Scenarios) -> None:
    assert report.missed(report.of_clock(_of(scenarios.clock))) == []


def test_a_second_server_on_the_folder_sends_nothing(scenarios: Scenarios) -> None:
    receiver = _of(scenarios.two_servers)
    assert {len(receiver.accepted(url)) for url in receiver.by_url} == {1}


def _of(result: _T | BaseException) -> _T:
    if isinstance(result, BaseException):
        raise result
    return result


async def two_servers(folder: Path) -> Receiver:
    """Another server is started on the folder of one that has something to send."""
    receiver = Receiver(SEED, {"503": 0.5})
    async with server_on(folder / "state") as server, receiver.listening(4):
        await server.start()
        receiver.secret = await server.signing_secret()
        urls = [f"{origin}/{number}" for origin in receiver.origins for number in range(4)]
        await server.run(urls)
        second = Server(folder / "state")
        await second.spawn()
        assert not await second.listens()
        assert await second.ended() == EXIT_ALREADY_SERVED
        assert await receiver.wait_for_all(urls, 30)
    return receiver
