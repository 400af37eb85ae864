"""Interpreters that a zygote forks: alike to those that are started, and no less robust."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from lyceum_magic import trail
from lyceum_magic.server.runners.folder import read_facts
from lyceum_magic.server.runners.forks import Zygote
from lyceum_magic.server.runners.process.runner import ProcessRunner
from tests.tools.waiting import eventually

from .test_process_runner import (
    is_alive,
    output,
    run,
    run_order,
    start,
    start_server_and_kill_it,
    until,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has zygotes"),
]

#: Print a run's surroundings as JSON.
LOOK = """
import json, os, random, sys
def marks(environ):
    return [line for line in environ.split("\\0") if "SUPERVISOR" in line]
print(json.dumps({
    "shown": marks(open("/proc/self/environ").read()),
    "known": os.environ["LYCEUM_SUPERVISOR_ID"], "random": random.random(),
    "session": os.getsid(0) == os.getpid(), "group": os.getpgid(0) == os.getpid(),
    "supervisor": os.getsid(os.getppid()) == os.getppid(),
    "descriptors": sorted(os.listdir("/proc/self/fd")), "threads": os.listdir("/proc/self/task"),
    "child": marks(os.popen("cat /proc/self/environ").read()),
}))
"""
HOLD = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[ProcessRunner]:
    runner = ProcessRunner(tmp_path / "state")
    await runner.open()
    yield runner
    await runner.close()


def zygote_of(runner: ProcessRunner) -> Zygote:
    zygote = runner._supervisors._zygote
    assert zygote is not None
    return zygote


def parent_of_supervisor(folder: Path) -> int:
    return psutil.Process(read_facts(folder)["pid"]).ppid()


async def soon(condition: object, what: str) -> None:
    await asyncio.to_thread(eventually, condition, what)


async def new_zygote(runner: ProcessRunner, old: Zygote) -> Zygote:
    await soon(lambda: runner._supervisors._zygote not in (old, None), "another zygote")
    return zygote_of(runner)


async def test_runs_share_nothing_by_the_fork(runner: ProcessRunner, tmp_path: Path) -> None:
    looks = []
    for number in range(4):  # more than were ordered ahead
        folder = tmp_path / f"run{number}"
        _, stdout, stderr = await run(runner, folder, LOOK)
        assert stderr == ""
        looks.append(look := json.loads(stdout))
        mark = read_facts(folder)["id"]
        assert look["known"] == mark
        assert look["shown"] == look["child"] == [f"LYCEUM_SUPERVISOR_ID={mark}"]
        assert (look["session"], look["group"], look["supervisor"]) == (True, True, True)
        # Those of the pipes, and of the folder that is listed.
        assert look["descriptors"] == ["0", "1", "2", "3"]
        assert len(look["threads"]) == 1
    assert len({look["random"] for look in looks}) == 4
    assert len({look["known"] for look in looks}) == 4


async def test_a_zygote_is_the_parent_of_all_supervisors(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    handles = [await start(runner, tmp_path / f"run{n}", HOLD) for n in range(5)]
    for number, handle in enumerate(handles):
        await until(handle, lambda text: text.endswith("\n"))
        assert parent_of_supervisor(tmp_path / f"run{number}") == zygote_of(runner).process.pid
        await handle.kill()
        assert (await handle.ended()).reason == "aborted"


async def test_ended_runs_leave_no_zombie(runner: ProcessRunner, tmp_path: Path) -> None:
    zygote = psutil.Process(zygote_of(runner).process.pid)
    for number in range(4):
        await run(runner, tmp_path / f"run{number}", "")
    await soon(lambda: len(zygote.children()) == 2, "the two that wait, and no more")
    # Every order to bury one has been answered.
    await soon(lambda: len(zygote_of(runner)._graves) == 2, "the burials")


async def test_a_killed_zygote_costs_no_run_and_is_replaced(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    handle = await start(runner, tmp_path / "before", HOLD)
    pid = int(await until(handle, lambda text: text.endswith("\n")))
    killed = zygote_of(runner)
    os.kill(killed.process.pid, signal.SIGKILL)
    ends = [await run(runner, tmp_path / f"run{n}", "print('on')") for n in range(4)]
    assert [(end.return_code, stdout) for end, stdout, _ in ends] == [(0, "on\n")] * 4
    await new_zygote(runner, killed)
    await handle.kill()
    assert (await handle.ended()).reason == "aborted"
    assert not is_alive(pid)
    handle = await start(runner, tmp_path / "after", HOLD)
    await until(handle, lambda text: text.endswith("\n"))
    assert parent_of_supervisor(tmp_path / "after") == zygote_of(runner).process.pid
    await handle.kill()
    await handle.ended()


async def test_a_stopped_zygote_is_replaced(runner: ProcessRunner, tmp_path: Path) -> None:
    await run(runner, tmp_path / "first", "")  # it is ready
    stopped = zygote_of(runner)
    stopped._patience_s = 0.5
    if stopped._watch is not None:  # of its first orders
        stopped._watch.cancel()
        stopped._watch = None
    os.kill(stopped.process.pid, signal.SIGSTOP)
    ends = await asyncio.gather(
        *(run(runner, tmp_path / f"run{n}", "print('on')") for n in range(5))
    )
    assert [(end.return_code, stdout) for end, stdout, _ in ends] == [(0, "on\n")] * 5
    assert not is_alive(stopped.process.pid)
    await new_zygote(runner, stopped)


async def test_a_stopped_zygote_does_not_keep_the_server(tmp_path: Path) -> None:
    runner = ProcessRunner(tmp_path / "state")
    await runner.open()
    await run(runner, tmp_path / "first", "")
    pid = zygote_of(runner).process.pid
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(60):
        await runner.close()
    assert not is_alive(pid)


async def test_orders_wait_for_room_on_the_way_to_the_zygote(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    await run(runner, tmp_path / "first", "")
    zygote = zygote_of(runner)
    zygote.process.control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    os.kill(zygote.process.pid, signal.SIGSTOP)
    runs = [
        asyncio.create_task(run(runner, tmp_path / f"run{n}", f"print({n})")) for n in range(20)
    ]
    await soon(lambda: zygote._outgoing, "an order that waits")
    os.kill(zygote.process.pid, signal.SIGCONT)
    for number, ended in enumerate(runs):
        assert (await ended)[:2][1] == f"{number}\n"
    assert zygote_of(runner) is zygote


async def test_a_zygote_that_cannot_fork_costs_no_run(
    runner: ProcessRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(runner, tmp_path / "first", "")
    pid = zygote_of(runner).process.pid
    log = tmp_path / "trail"
    monkeypatch.setattr(trail, "is_on", True)
    monkeypatch.setattr(trail, "_descriptor", os.open(log, os.O_WRONLY | os.O_CREAT))
    await soon(lambda: len(psutil.Process(pid).children()) == 2, "the two that wait")
    in_use = psutil.Process(pid).num_fds()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use, in_use))
    ends = await asyncio.gather(
        *(run(runner, tmp_path / f"run{n}", "print('on')") for n in range(5))
    )
    assert [(end.return_code, stdout) for end, stdout, _ in ends] == [(0, "on\n")] * 5
    assert any(" spawned why=failed" in line for line in log.read_text().splitlines())


async def test_zygotes_that_end_at_once_are_given_up(tmp_path: Path) -> None:
    runner = ProcessRunner(tmp_path / "state")
    pool = runner._supervisors
    # The role is not the only argument after the bootstrap: it is no zygote.
    pool._arguments = [*pool._arguments, "no"]
    await runner.open()
    for number in range(20):
        end, stdout, _ = await run(runner, tmp_path / f"run{number}", "print('on')")
        assert (end.return_code, stdout) == (0, "on\n")
        if not pool._forks:
            break
        await soon(lambda: pool._refill_due is None, "the refill")
    assert not pool._forks
    await runner.close()


async def test_what_a_killed_supervisor_leaves_is_killed_without_its_mark_too(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " env={}, start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(600)"
    )
    handle = await start(runner, tmp_path / "run", code)
    child = int(await until(handle, lambda text: text.endswith("\n")))
    os.kill(read_facts(tmp_path / "run")["pid"], signal.SIGKILL)
    assert (await handle.ended()).reason == "lost"
    await soon(lambda: not is_alive(child), "the end of the run's child")
    assert is_alive(zygote_of(runner).process.pid)


async def test_a_zygote_ends_with_its_server_and_its_runs_go_on(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    code = (
        "import os, time\n"
        "fields = open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()\n"
        "print(fields[1], flush=True)\ntime.sleep(600)"
    )
    folder = tmp_path / "run"
    await asyncio.to_thread(start_server_and_kill_it, tmp_path / "other", folder, code)
    found = await runner.find(run_order(folder, code))
    assert found is not None
    zygote = int(await until(found, lambda text: text.endswith("\n")))
    await soon(lambda: not is_alive(zygote), "the end of the zygote")
    assert is_alive(read_facts(folder)["pid"])
    await found.kill()
    assert (await found.ended()).reason == "aborted"


async def test_a_new_package_is_found_by_the_next_zygote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    monkeypatch.setattr("site.getsitepackages", lambda: [str(packages)])
    runner = ProcessRunner(tmp_path / "state")
    await runner.open()
    handle = await start(runner, tmp_path / "held", HOLD)
    await until(handle, lambda text: text.endswith("\n"))
    old = zygote_of(runner)
    (packages / "new.pth").write_text("")
    await run(runner, tmp_path / "next", "")
    new = await new_zygote(runner, old)
    assert parent_of_supervisor(tmp_path / "held") == old.process.pid  # it waits for its run
    await handle.kill()
    await handle.ended()
    await soon(lambda: not is_alive(old.process.pid), "the end of the zygote")
    await run(runner, tmp_path / "last", "")
    assert zygote_of(runner) is new
    await runner.close()


async def test_interpreters_can_each_be_started(tmp_path: Path) -> None:
    runner = ProcessRunner(tmp_path / "state", forks=False)
    await runner.open()
    handle = await start(runner, tmp_path / "run", HOLD)
    await until(handle, lambda text: text.endswith("\n"))
    assert parent_of_supervisor(tmp_path / "run") == os.getpid()
    await handle.kill()
    await handle.ended()
    await runner.close()


@pytest.mark.parametrize("seed", range(3))
async def test_every_run_ends_whoever_is_killed(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    runner = ProcessRunner(tmp_path / "state")
    await runner.open()
    handles = []
    for number in range(15):
        code = f"import time\nprint({number}, flush=True)\ntime.sleep({chance.random() / 5})"
        handles.append(await start(runner, tmp_path / f"run{number}", code))
        await asyncio.sleep(chance.random() / 20)  # any moment of a run's life
        family = psutil.Process().children(recursive=True)
        if family:
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(family).kill()
    for number, handle in enumerate(handles):
        end = await handle.ended()
        assert (end.reason, end.return_code) in [("exited", 0), ("exited", 137), ("lost", None)]
        if end.return_code == 0:
            assert output(handle, "stdout") == f"{number}\n"
    # The server's own health has not suffered.
    end, stdout, _ = await run(runner, tmp_path / "last", "print('on')")
    assert (end.return_code, stdout) == (0, "on\n")
    marks = {read_facts(tmp_path / f"run{number}").get("id") for number in range(15)} - {None}
    await runner.close()
    await soon(lambda: not any(mark_of(one) in marks for one in psutil.process_iter()), "their end")
    await soon(lambda: psutil.Process().children() == [], "the end of all that waited")


def mark_of(process: psutil.Process) -> str | None:
    try:
        mark = process.environ().get("LYCEUM_SUPERVISOR_ID")
    except psutil.Error:
        return None
    return None if mark is None else str(mark)
