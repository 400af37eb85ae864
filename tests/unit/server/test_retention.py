"""The ended runs that are removed, and that nothing else is."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lyceum_magic.protocol.callbacks import DeliveryState
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server import retention
from lyceum_magic.server.retention import Keep, Retention, remove_tree, size_on_disk
from lyceum_magic.server.runners.control import is_supervised
from lyceum_magic.server.runners.process.requirements import Installer
from lyceum_magic.server.stores.base import Delivery, RunRecord
from lyceum_magic.server.stores.memory import MemoryStore
from tests.tools.stores import FaultyStore

from .serving import read_stream, serving

pytestmark = pytest.mark.anyio

NOW = 1_000_000.0
SIZE = 1 << 20
DAY_S = 86_400.0


@dataclass
class World:
    """Runs with folders, and a retention that looks at them."""

    folder: Path
    now: float = NOW
    store: MemoryStore = field(default_factory=MemoryStore)
    in_use: set[str] = field(default_factory=set)
    sweeps: list[float] = field(default_factory=list)

    async def add(self, run_id: str, *, age_s: float, state: State = State.COMPLETED) -> None:
        finished_at = NOW - age_s if state.is_final else None
        record = RunRecord(run_id, StartPython(code="1"), NOW - age_s, state)
        await self.store.add(replace(record, finished_at=finished_at))
        (self.folder / run_id / "work").mkdir(parents=True)
        (self.folder / run_id / "work" / "data").write_bytes(os.urandom(SIZE))

    async def sweep(self, *, keep_s: float = 1e9, keep_bytes: int = 1 << 40) -> set[str]:
        """Sweep; return the runs that are left, after a check that folders and records agree."""

        async def sweep_cache(unused_since: float) -> None:
            self.sweeps.append(unused_since)

        await Retention(
            self.store,
            self.folder,
            Keep(keep_s, keep_bytes),
            is_in_use=self.in_use.__contains__,
            is_supervised=is_supervised,
            sweep_caches=[sweep_cache],
        ).sweep(self.now)
        records = (await self.store.history(limit=999, offset=0)).records
        left = {path.name for path in self.folder.iterdir()}
        assert left == {record.run_id for record in records}
        return left


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(retention, "REST", 0)
    folder = tmp_path / "runs"
    folder.mkdir()
    yield World(folder)
    subprocess.run(["chmod", "-R", "u+rwx", folder], check=False)


async def test_runs_go_with_their_records_when_they_are_old(world: World) -> None:
    await world.add("old", age_s=101)
    await world.add("new", age_s=99)
    assert await world.sweep(keep_s=100) == {"new"}
    assert world.sweeps == [NOW - 100]


@pytest.mark.parametrize("wrong_days", [40, 10_000, -40, -10_000])
async def test_a_clock_that_was_wrong_at_some_starts_costs_no_history(
    world: World, wrong_days: int
) -> None:
    keep_s = 30 * DAY_S
    for run_id, days in (("new", 1), ("older", 20)):
        await world.add(run_id, age_s=days * DAY_S)
    assert await world.sweep(keep_s=keep_s) == {"new", "older"}
    for start in range(5):
        world.now = NOW + wrong_days * DAY_S + start
        assert await world.sweep(keep_s=keep_s) == {"new", "older"}
    # What ends meanwhile is no older for that.
    await world.store.add(RunRecord("wrong", StartPython(code="1"), world.now))
    await world.store.finish(
        RunRecord("wrong", StartPython(code="1"), world.now, State.FAILED, finished_at=world.now)
    )
    (world.folder / "wrong").mkdir()
    world.now = NOW + 3600
    assert await world.sweep(keep_s=keep_s) == {"new", "older", "wrong"}
    # And the clock is believed again when it goes on: what is old goes, an hour's sweep each.
    for _hour in range(24 * 12):
        world.now += 3600
        left = await world.sweep(keep_s=keep_s)
    assert left == {"new", "wrong"}


async def test_a_wrong_clock_at_the_first_sweep_of_all_costs_no_history(world: World) -> None:
    await world.add("new", age_s=DAY_S)
    world.now = NOW + 40 * DAY_S
    assert await world.sweep(keep_s=30 * DAY_S) == {"new"}


async def test_what_lay_unused_for_long_goes_after_some_hours(world: World) -> None:
    await world.add("old", age_s=0)
    await world.sweep(keep_s=30 * DAY_S)
    world.now += 60 * DAY_S
    hours = 0
    while await world.sweep(keep_s=30 * DAY_S):
        world.now += 3600
        hours += 1
    assert 28 <= hours <= 32  # a day each


@pytest.mark.parametrize("first_s", [3600, 0])
async def test_the_first_sweep_leaves_the_first_cell_time(
    world: World, monkeypatch: pytest.MonkeyPatch, first_s: float
) -> None:
    monkeypatch.setattr(retention, "FIRST_S", first_s)
    swept = asyncio.Event()

    async def sweep_cache(unused_since: float) -> None:
        swept.set()

    sweeping = asyncio.create_task(
        Retention(
            world.store, world.folder, Keep(1e9, 1 << 40), is_in_use=world.in_use.__contains__,
            is_supervised=is_supervised, sweep_caches=[sweep_cache],
        ).sweep_for_ever()
    )  # fmt: skip
    for _ in range(100 if first_s else 0):
        await asyncio.sleep(0)
    assert not swept.is_set()
    if not first_s:
        await swept.wait()
    sweeping.cancel()


async def test_sizes_are_found_once_whatever_their_number(world: World) -> None:
    for number in range(3 * retention.STEP_RUNS + 1):
        record = RunRecord(str(number), StartPython(code="1"), NOW, State.FAILED)
        await world.store.add(record)
        (world.folder / str(number)).mkdir()
    assert len(await world.sweep()) == 3 * retention.STEP_RUNS + 1
    assert await world.store.unmeasured(limit=1) == []
    one = size_on_disk(world.folder / "0")
    assert await world.store.ended_bytes() == one * (3 * retention.STEP_RUNS + 1)


async def test_beyond_the_size_the_oldest_go_first(world: World) -> None:
    for run_id, age_s in (("b", 3), ("a", 4), ("d", 1), ("c", 2)):
        await world.add(run_id, age_s=age_s)
    one = size_on_disk(world.folder / "a")
    assert one >= SIZE
    assert await world.sweep(keep_bytes=4 * one) == {"a", "b", "c", "d"}
    assert await world.sweep(keep_bytes=4 * one - 1) == {"b", "c", "d"}
    assert await world.sweep(keep_bytes=2 * one) == {"c", "d"}
    assert await world.sweep(keep_bytes=0) == set()


async def test_callbacks_go_a_while_after_they_were_delivered(world: World) -> None:
    # A test that belongs to no run, one of a run that is gone, and one that could not be delivered.
    for delivery_id, run_id, state, age_s in (
        ("test", None, DeliveryState.DELIVERED, 101),
        ("late", "gone", DeliveryState.DELIVERED, 101),
        ("new", None, DeliveryState.DELIVERED, 99),
        ("dead", "gone", DeliveryState.DEAD, 500),
    ):
        delivery = Delivery(delivery_id, run_id, None, "", "", b"", NOW - 999, state)
        await world.store.add_delivery(replace(delivery, ended_at=NOW - age_s))
    await world.sweep(keep_s=100)
    assert [item.delivery_id for item in await world.store.deliveries()] == ["dead", "new"]


async def test_what_is_not_over_or_is_followed_stays(world: World) -> None:
    await world.add("running", age_s=500, state=State.RUNNING)
    await world.add("queued", age_s=500, state=State.PENDING)
    await world.add("followed", age_s=500)
    world.in_use.add("followed")
    assert await world.sweep(keep_s=0, keep_bytes=0) == {"running", "queued", "followed"}
    world.in_use.clear()
    assert await world.sweep(keep_s=0, keep_bytes=0) == {"running", "queued"}


async def test_a_folder_without_a_record_goes_unless_a_supervisor_lives_there(
    world: World,
) -> None:
    (world.folder / "left behind").mkdir()
    assert await world.sweep() == set()
    alive = world.folder / "alive"
    alive.mkdir()
    with (alive / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AssertionError):
            await world.sweep()
        assert alive.exists()
    assert await world.sweep() == set()


async def test_a_run_that_ends_while_records_are_read_stays(world: World) -> None:
    world.store = store = FaultyStore()

    async def end(*_: object, **__: object) -> None:
        for record in await store.unfinished():
            await store.finish(replace(record, state=State.COMPLETED, finished_at=NOW))

    # As soon as the sweep has asked which runs are over, or are not.
    store.after["oldest_ended"] = store.after["unknown"] = end
    await world.add("just ending", age_s=5, state=State.RUNNING)
    assert await world.sweep(keep_s=100) == {"just ending"}
    assert (world.folder / "just ending" / "work" / "data").exists()


async def test_a_folder_that_is_in_use_stays_whatever_the_records_say(world: World) -> None:
    (world.folder / "new").mkdir()
    world.in_use.add("new")
    with pytest.raises(AssertionError):  # folders and records do not agree
        await world.sweep()
    assert (world.folder / "new").exists()


async def test_a_run_whose_folder_is_gone_already_is_forgotten(world: World) -> None:
    await world.add("gone", age_s=500)
    remove_tree(world.folder / "gone")
    assert await world.sweep(keep_s=100) == set()


async def test_folders_that_a_program_has_closed_or_nested_deep_go_too(world: World) -> None:
    await world.add("odd", age_s=500)
    here = os.open(world.folder / "odd" / "work", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    await world.add("closed", age_s=500)
    (world.folder / "closed" / "work").chmod(0)
    assert await world.sweep(keep_s=100) == set()


#: Code that becomes a user to whom the modes of folders apply.
DROP_PRIVILEGES = """
import os
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""
MAKE = f"""
import sys
{DROP_PRIVILEGES}
here = os.open(sys.argv[1], os.O_RDONLY)
os.mkdir("run", dir_fd=here)
here = os.open("run", os.O_RDONLY, dir_fd=here)
os.mkdir("closed", dir_fd=here)
os.mkdir("closed/below", dir_fd=here)
os.chmod("closed", 0, dir_fd=here)
for _ in range(1500):
    os.mkdir("deep", dir_fd=here)
    below = os.open("deep", os.O_RDONLY, dir_fd=here)
    os.close(here)
    here = below
"""
REMOVE = f"""
import sys
from pathlib import Path
from lyceum_magic.server.retention import remove_tree
{DROP_PRIVILEGES}
try:
    remove_tree(Path(sys.argv[1]) / "run")
except OSError as exc:
    print(exc.strerror)
"""


def test_what_is_closed_and_nested_deep_at_once_goes_too() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        for program in (MAKE, REMOVE):
            assert said(program, folder) == ""
        assert os.listdir(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what its tests cannot remove")
def test_what_cannot_be_removed_is_told() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        (Path(folder) / "run" / "work").mkdir(parents=True)
        assert "Permission denied" in said(REMOVE, folder)


def said(program: str, *arguments: str) -> str:
    """Return the output of a program, which must not fail."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def test_links_are_not_followed(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(bytes(4 * SIZE))
    await world.add("linking", age_s=500)
    (world.folder / "linking" / "way").symlink_to(outside)
    assert size_on_disk(world.folder / "linking") < 2 * SIZE
    assert await world.sweep(keep_s=100) == set()
    assert (outside / "file").exists()


async def test_installed_requirements_go_when_nobody_has_asked_for_them(tmp_path: Path) -> None:
    cache = tmp_path / "requirements"
    installer = Installer(cache)
    await installer.sweep(NOW)  # nothing there yet
    for name, mtime in (("used", NOW + 1), ("unused", NOW - 1), ("draft-broken", NOW - 1)):
        (cache / name).mkdir(parents=True)
        (cache / name / "module.py").write_text("")
        os.utime(cache / name, (mtime, mtime))
    await installer.sweep(NOW)
    assert [path.name for path in cache.iterdir()] == ["used"]


async def test_a_follower_keeps_a_run_from_going(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        started = await served.start()
        run_id = started["execution_id"]
        handle = await served.runner.next_run()
        service = served.app.state.service
        assert service.is_in_use(run_id)
        handle.begin()
        handle.end()
        await read_stream(served.client, started["streaming_url"])
        with service.following(run_id):
            assert service.is_in_use(run_id)
        assert not service.is_in_use(run_id)
