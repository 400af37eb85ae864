"""Programs that want more memory than there is, for real: how they end, and what the end says."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from lyceum_magic.server.runners.folder import read_facts
from lyceum_magic.server.runners.process import memory
from lyceum_magic.server.runners.process.runner import ProcessRunner
from tests.tools.waiting import eventually

from .test_process_runner import output, run, start, until

pytestmark = pytest.mark.anyio

LIMIT_BYTES = 400 << 20
SENTENCE = "the program ran out of memory: its limit is 400 MiB"
#: Take memory bit by bit and touch all of it, far beyond the limit.
GREEDY = "taken = []\nfor _ in range(20_000):\n    taken.append(bytearray(b'x' * (1 << 20)))\n"


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[ProcessRunner]:
    runner = ProcessRunner(tmp_path / "state", memory_limit_bytes=LIMIT_BYTES)
    await runner.open()
    yield runner
    await runner.close()


def groups() -> list[Path]:
    """The cgroups of runs, wherever this process could make one."""
    return [
        path
        for parent in memory.usable_groups()
        for path in Path(parent).glob(memory.GROUP_PREFIX + "*")
    ]


async def test_a_program_that_outgrows_its_limit_is_told_so(
    limited: ProcessRunner, tmp_path: Path
) -> None:
    end, _, _ = await run(limited, tmp_path / "run", GREEDY)
    assert (end.reason, end.error) == ("exited", SENTENCE)
    assert end.return_code != 0
    assert groups() == []


async def test_a_program_within_its_limit_is_left_alone(
    limited: ProcessRunner, tmp_path: Path
) -> None:
    code = f"taken = bytearray(b'x' * {LIMIT_BYTES // 4})\nprint(len(taken))"
    end, stdout, _ = await run(limited, tmp_path / "run", code)
    assert (end.return_code, end.error, stdout) == (0, "", f"{LIMIT_BYTES // 4}\n")
    assert groups() == []


async def test_what_the_program_starts_is_limited_as_well(
    limited: ProcessRunner, tmp_path: Path
) -> None:
    code = (
        "import subprocess, sys\n"
        f"done = subprocess.run([sys.executable, '-c', {GREEDY!r}], capture_output=True)\n"
        "print(done.returncode != 0)\n"
    )
    end, stdout, _ = await run(limited, tmp_path / "run", code)
    # All of the run may be killed with the part that was too large.
    assert stdout == "True\n" or end.error == SENTENCE


async def test_a_memory_error_that_the_program_handles_is_its_own(
    limited: ProcessRunner, tmp_path: Path
) -> None:
    code = (
        "try:\n    bytearray(1 << 60)\nexcept MemoryError:\n    print('handled')\n"
        "raise SystemExit(3)\n"
    )
    end, stdout, _ = await run(limited, tmp_path / "run", code)
    assert (end.return_code, stdout) == (3, "handled\n")
    assert end.error == "the program ended with exit code 3"


async def test_the_limit_ends_with_a_supervisor_that_is_killed(
    limited: ProcessRunner, tmp_path: Path
) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
    handle = await start(limited, tmp_path / "run", code)
    await until(handle, lambda stdout: "begun" in stdout)
    os.kill(read_facts(tmp_path / "run")["pid"], signal.SIGKILL)
    end = await handle.ended()
    assert end.reason == "lost"
    assert groups() == []


# --- where the kernel itself does it -----------------------------------------------------------


def make_small_world(name: str) -> Path | None:
    """A cgroup of either version; None if this user can make none on this machine."""
    older = Path("/sys/fs/cgroup/memory")
    with contextlib.suppress(OSError):
        (older / name).mkdir()
        (older / name / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
        return older / name
    for parent in memory.usable_groups():
        with contextlib.suppress(OSError):
            (group := Path(parent) / name).mkdir()
            (group / "memory.max").write_text(str(LIMIT_BYTES))
            if (swap := group / "memory.swap.max").exists():  # not in a kernel without swap
                swap.write_text("0")
            return group
    return None


@pytest.fixture
def small_world() -> Iterator[Path]:
    """A cgroup that stands for a machine with little memory."""
    group = make_small_world(f"lyceum-test-{uuid.uuid4().hex}")
    if group is None:
        pytest.skip("this machine lacks a memory cgroup, of either version, that can be written")
    yield group
    eventually(lambda: not (group / "cgroup.procs").read_text(), "an empty cgroup")
    group.rmdir()


async def test_a_machine_that_runs_out_of_memory_is_named(
    small_world: Path, tmp_path: Path
) -> None:
    runner = ProcessRunner(tmp_path / "state")
    await runner.open()
    go = tmp_path / "go"
    code = (
        "import os, time\nprint(os.getpid(), flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n{GREEDY}"
    )
    handle = await start(runner, tmp_path / "run", code)
    pid = await until(handle, lambda stdout: stdout.endswith("\n"))
    (small_world / "cgroup.procs").write_text(pid)
    go.touch()
    end = await handle.ended()
    await runner.close()
    assert end.return_code == 128 + signal.SIGKILL, output(handle, "stderr")
    assert end.error == "the program was killed: the machine ran out of memory"


async def test_a_kill_from_elsewhere_is_not_called_a_want_of_memory(tmp_path: Path) -> None:
    runner = ProcessRunner(tmp_path / "state")
    await runner.open()
    end, _, _ = await run(runner, tmp_path / "run", "import os\nos.kill(os.getpid(), 9)")
    await runner.close()
    assert "SIGKILL" in end.error
    assert "machine" not in end.error


# --- cgroups of version 2 ----------------------------------------------------------------------


def hierarchy(folder: Path, controllers: dict[str, str]) -> str:
    """Folders that look like a cgroup hierarchy: path -> what it passes on to its children."""
    for path, control in controllers.items():
        (folder / path).mkdir(parents=True, exist_ok=True)
        (folder / path / "cgroup.subtree_control").write_text(control)
    return str(folder)


def test_the_nearest_group_that_can_limit_memory_is_taken(tmp_path: Path) -> None:
    root = hierarchy(
        tmp_path,
        {"": "cpu memory", "user.slice": "memory pids", "user.slice/app": "pids"},
    )
    found = list(memory.groups_with_memory(root, "/user.slice/app/term.scope"))
    assert found == [f"{root}/user.slice", root]
    assert list(memory.groups_with_memory(root, "/../elsewhere")) == [root]
    assert list(memory.groups_with_memory(root, "/")) == [root]


def test_a_group_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    # No cgroup: the kernel's files do not appear in a new folder here.
    with pytest.raises(FileNotFoundError):
        memory.make_group(str(tmp_path), os.getpid(), LIMIT_BYTES, "run")
    assert list(tmp_path.glob(memory.GROUP_PREFIX + "*")) == []


@pytest.mark.parametrize("has_swap", [True, False])
def test_a_group_holds_all_of_a_run_to_its_limit(tmp_path: Path, has_swap: bool) -> None:
    group = tmp_path / f"{memory.GROUP_PREFIX}run"
    files = ["memory.max", "memory.oom.group", "cgroup.procs", *["memory.swap.max"] * has_swap]
    group.mkdir()
    for name in files:
        (group / name).touch()
    (group / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert memory.make_group(str(tmp_path), 4711, LIMIT_BYTES, "run") == str(group)
    written = {name: (group / name).read_text() for name in files}
    expected = {"memory.max": str(LIMIT_BYTES), "memory.oom.group": "1", "cgroup.procs": "4711"}
    assert written == (expected | {"memory.swap.max": "0"} if has_swap else expected)
    assert memory.kills_in_group(str(group)) == 2
    assert memory.kills_in_group(str(tmp_path)) == 0


def test_a_real_group_limits_and_counts() -> None:
    """The test above with real cgroups in place of plain files, on a machine that has them."""
    parents = list(memory.usable_groups())
    if not parents:
        # A machine has its memory controller in version 1 or in version 2, never in both.
        pytest.skip("this machine lacks a memory cgroup of version 2 that can be written")
    with psutil.Popen(["sleep", "600"]) as process:
        group = memory.make_group(parents[-1], process.pid, LIMIT_BYTES, "test")
        assert (Path(group) / "memory.max").read_text().strip() == str(LIMIT_BYTES)
        assert memory.kills_in_group(group) == 0
        process.kill()
    eventually(lambda: not (Path(group) / "cgroup.procs").read_text(), "an empty cgroup")
    memory.remove_group(group)
    assert not Path(group).exists()
