"""Every run ends, whatever its program does to its supervisor, or the machine lacks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from lyceum_magic.server.output.spool import DamagedSpool
from lyceum_magic.server.runners.folder import read_end
from lyceum_magic.server.runners.handle import Patience, SupervisedHandle
from lyceum_magic.server.runners.process.runner import ProcessRunner
from tests.tools.waiting import eventually

from .test_process_runner import is_alive, output, run, run_order, start, until

pytestmark = pytest.mark.anyio

#: Print the pids of the program and of its supervisor, and wait for ever.
HOLD = "import os, time\nprint(os.getpid(), os.getppid(), flush=True)\ntime.sleep(600)"
#: HOLD, with the supervisor stopped before.
STOP_PARENT = f"import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\n{HOLD}"
KILL_PARENT = "os.kill(os.getppid(), 9)\nimport time\ntime.sleep(600)"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[ProcessRunner]:
    runner = ProcessRunner(tmp_path / "state")
    runner.patience = Patience(start_s=20.0, end_s=1.0)
    await runner.open()
    yield runner
    await runner.close()


@pytest.mark.parametrize(
    "code",
    [
        "os.mkdir('../exit.json')",
        "os.makedirs('../exit.json/deep/er')",
        "os.mkfifo('../exit.json')",
        "os.symlink('/nowhere', '../exit.json')",
        "os.remove('../exit.draft')",
        "os.remove('../exit.draft'); os.mkdir('../exit.draft'); os.mkdir('../exit.json')",
        "os.remove('../exit.draft'); os.mkfifo('../exit.draft')",
        "open('../exit.json', 'w').write('{}')",
        "os.remove('../supervisor.json'); os.mkfifo('../supervisor.json')",
        "os.remove('../control.sock'); os.remove('../lock'); os.mkdir('../lock')",
        "os.chmod('..', 0)",
    ],
)
async def test_a_program_that_takes_the_places_of_our_files_ends_as_it_ends(
    runner: ProcessRunner, tmp_path: Path, code: str
) -> None:
    end, stdout, _ = await run(runner, tmp_path / "run", f"import os\n{code}\nprint('done')")
    assert (end.reason, end.return_code, end.error, stdout) == ("exited", 0, "", "done\n")


@pytest.mark.parametrize(
    "code",
    [
        "os.mkdir('../exit.json')",
        "os.mkfifo('../exit.json')",
        "open('../exit.json', 'w').write('not JSON')",
        "open('../exit.json', 'w').write('[1]')",
        "open('../exit.json', 'w').write('{\"reason\": \"exited\"}')",
        "open('../exit.json', 'w').write('{\"reason\": 1, \"finished_at\": true}')",
        "open('../exit.json', 'w').write('[' * 500_000)",
        "open('../supervisor.json', 'w').write('null')",
        "os.remove('../supervisor.json'); os.mkdir('../supervisor.json')",
    ],
)
async def test_a_program_that_kills_its_supervisor_too_is_lost(
    runner: ProcessRunner, tmp_path: Path, code: str
) -> None:
    end, _, _ = await run(runner, tmp_path / "run", f"import os\n{code}\n{KILL_PARENT}")
    assert (end.reason, end.error) == ("lost", "the run's supervisor died")


async def test_a_stopped_supervisor_keeps_no_run_beyond_its_limit(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    handle = await start(runner, tmp_path / "run", STOP_PARENT, timeout=1, grace_s=1.0)
    end = await handle.ended()
    assert (end.reason, end.return_code) == ("timeout", None)
    assert handle.is_abandoned
    assert await _nothing_left(handle)


async def test_a_stopped_supervisor_does_not_keep_a_run_that_is_aborted(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    handle = await start(runner, tmp_path / "run", STOP_PARENT)
    await _is_stopped(handle)
    for _ in range(500):  # more than its socket takes
        await handle.kill()
    end = await handle.ended()
    assert (end.reason, end.error) == ("aborted", "the run was aborted, and its supervisor hung")
    assert await _nothing_left(handle)


async def test_a_stopped_supervisor_does_not_keep_a_run_that_a_later_server_finds(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    handle = await start(runner, tmp_path / "run", STOP_PARENT)
    await _is_stopped(handle)
    await handle.leave()
    found = await runner.find(run_order(tmp_path / "run", STOP_PARENT))
    assert found is not None
    await found.stop()
    assert (await found.ended()).reason == "stopped"
    assert await _nothing_left(handle)


async def test_a_supervisor_that_is_stopped_before_its_run_begins_is_replaced(
    tmp_path: Path,
) -> None:
    runner = ProcessRunner(tmp_path / "state", pool_size=1)
    await runner.open()
    await _stop_waiting(runner)
    runner.patience = Patience(start_s=1.0, end_s=1.0)
    end, stdout, _ = await run(runner, tmp_path / "run", "print('done')")
    assert (end.reason, stdout) == ("exited", "done\n")
    await runner.close()


async def test_a_waiting_interpreter_that_is_stopped_does_not_keep_the_server(
    tmp_path: Path,
) -> None:
    runner = ProcessRunner(tmp_path / "state")
    await runner.open()
    await _stop_waiting(runner)
    async with asyncio.timeout(60):
        await runner.close()


async def test_an_end_waits_for_a_free_descriptor(runner: ProcessRunner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = (
        "import os, time\nprint('on', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)"
    )
    handles = [await start(runner, tmp_path / f"run{n}", code) for n in range(3)]
    for handle in handles:
        await until(handle, bool)
    go.touch()
    with _no_descriptors():
        await _eventually(lambda: all(handle._connection is None for handle in handles))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await handles[0].ended()
    ends = [await handle.ended() for handle in handles]
    assert [(end.reason, end.return_code) for end in ends] == [("exited", 0)] * 3


async def test_an_end_waits_for_a_free_descriptor_when_a_later_server_finds_the_run(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    handle = await start(runner, tmp_path / "run", "print('done')")
    await handle.ended()
    with _no_descriptors():
        finding = asyncio.create_task(runner.find(run_order(tmp_path / "run", "print('done')")))
        done, _ = await asyncio.wait([finding], timeout=1)
        assert not done
    found = await finding
    assert found is not None
    assert (await found.ended()).return_code == 0


async def test_a_program_that_connects_to_its_supervisor_uses_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lyceum_magic.server.runners.interpreters.inherited_limit", lambda: 64)
    runner = ProcessRunner(tmp_path / "state")
    code = """
        import resource, socket
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        held = []
        for _ in range(500):
            one = socket.socket(socket.AF_UNIX)
            try:
                one.connect("../control.sock")
            except OSError:
                break
            held.append(one)
        print("done")
        """
    end, stdout, _ = await run(runner, tmp_path / "run", dedent(code))
    assert (end.reason, end.return_code, stdout) == ("exited", 0, "done\n")
    await runner.close()


async def test_a_run_whose_lock_is_gone_is_not_begun_a_second_time(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    code = f"import os\nos.remove('../lock')\n{HOLD}"
    handle = await start(runner, tmp_path / "run", code)
    pids = (await until(handle, lambda text: text.endswith("\n"))).split()
    await handle.leave()
    found = await runner.find(run_order(tmp_path / "run", code))
    assert found is not None
    assert (await found.ended()).reason == "lost"
    assert not any(is_alive(int(pid)) for pid in pids)


async def test_a_run_whose_socket_is_replaced_is_lost_and_leaves_nothing(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    code = f"import os\nos.remove('../control.sock')\nos.mkdir('../control.sock')\n{HOLD}"
    handle = await start(runner, tmp_path / "run", code)
    pids = (await until(handle, lambda text: text.endswith("\n"))).split()
    await handle.leave()
    found = await runner.find(run_order(tmp_path / "run", code))
    assert found is not None
    assert "can no longer be reached" in (await found.ended()).error
    assert not any(is_alive(int(pid)) for pid in pids)


async def test_a_pipe_in_the_place_of_the_output_keeps_nobody_waiting(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    code = "import os\nprint('lost')\nos.remove('../spool')\nos.mkfifo('../spool')\nprint('too')"
    handle = await start(runner, tmp_path / "run", code)
    assert (await handle.ended()).return_code == 0
    with pytest.raises(DamagedSpool, match="regular"):
        output(handle, "stdout")


async def test_an_end_is_read_only_if_it_is_one(tmp_path: Path) -> None:
    end = {"reason": "exited", "return_code": 0, "error": "", "started_at": 1.5, "finished_at": 2}
    for wrong in (
        {"reason": "abc"}, {"return_code": True}, {"error": 1}, {"started_at": "1"},
        {"finished_at": None}, {"finished_at": -1}, {"finished_at": 1e300}, {"more": 1},
    ):  # fmt: skip
        (tmp_path / "exit.json").write_text(json.dumps(end | wrong))
        assert read_end(tmp_path) is None, wrong
    (tmp_path / "exit.json").write_text(json.dumps(end))
    assert read_end(tmp_path) is not None


@contextlib.contextmanager
def _no_descriptors() -> Iterator[None]:
    """This process can open nothing in the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _supervisor(handle: SupervisedHandle) -> psutil.Process:
    facts = json.loads((handle.spool.parent / "supervisor.json").read_bytes())
    return psutil.Process(facts["pid"])


async def _stop_waiting(runner: ProcessRunner) -> None:
    """Stop the interpreters that wait for a run."""

    def supervisors() -> list[psutil.Process] | None:
        marks = {waiting.mark for waiting in runner._supervisors._waiting}
        found = [one for one in psutil.process_iter() if any(_has_mark(one, m) for m in marks)]
        # Of each pair, the process that is the other's parent.
        parents = [one for one in found if one.pid in {other.ppid() for other in found}]
        return parents if len(parents) == len(marks) else None

    for supervisor in await asyncio.to_thread(eventually, supervisors, "the waiting pairs"):
        supervisor.suspend()


async def _is_stopped(handle: SupervisedHandle) -> None:
    await handle.started()
    supervisor = _supervisor(handle)
    await _eventually(lambda: supervisor.status() == psutil.STATUS_STOPPED)


async def _nothing_left(handle: SupervisedHandle) -> bool:
    """Return whether no process of the run is left; killed ones may take a moment."""
    facts = json.loads((handle.spool.parent / "supervisor.json").read_bytes())
    await _eventually(
        lambda: not any(_has_mark(process, facts["id"]) for process in psutil.process_iter())
    )
    return True


async def _eventually(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(eventually, condition, "what the test waits for")


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("LYCEUM_SUPERVISOR_ID") == mark
    except psutil.Error:
        return False
