"""The rules of runs: when one starts, the name of its end, and what a restart finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lyceum_magic.exceptions import EmbeddedServerError, UnknownRun
from lyceum_magic.protocol.requests import StartImage, StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server import service as service_module
from lyceum_magic.server.context import Context, Secrets
from lyceum_magic.server.gpus import NO_GPU
from lyceum_magic.server.machines import MACHINES, RUNNERS, Machine, UnknownMachine
from lyceum_magic.server.run import ServerRun
from lyceum_magic.server.runners.base import InvalidField, RunEnd
from lyceum_magic.server.service import (
    Outbox,
    RunService,
    ServerBusy,
    final_record,
)
from lyceum_magic.server.sessions.sessions import Sessions
from lyceum_magic.server.stores.base import RunRecord, Store
from lyceum_magic.server.stores.memory import MemoryStore
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault
from tests.tools.stores import FaultyStore

from .fake_runner import FakeRunner

pytestmark = pytest.mark.anyio

CPU = StartPython(code="print(1)", execution_type="cpu")


@asynccontextmanager
async def opened(
    folder: Path,
    runner: FakeRunner,
    store: Store | None = None,
    *,
    max_running: int = 8,
    secrets: Secrets | None = None,
    **others: FakeRunner,
) -> AsyncIterator[RunService]:
    service = RunService(
        store or MemoryStore(),
        {**dict.fromkeys(RUNNERS, runner), **others},
        folder,
        Outbox(),
        Context(secrets or account_secrets),
        sessions=Sessions(folder / ".sessions"),
        max_running=max_running,
    )
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def account_secrets() -> dict[str, str]:
    return {"TOKEN": "from the account"}


async def state_becomes(run: ServerRun, *states: State) -> None:
    async with asyncio.timeout(60):
        while True:
            change = run.changed.listen()
            if run.record.state in states:
                return
            await change.wait()


ENDS = [
    (RunEnd("exited", 0, "", 1.0, 2.0), State.COMPLETED, 0, ""),
    (RunEnd("exited", 3, "", 1.0, 2.0), State.FAILED, 3, "code 3"),
    (RunEnd("exited", 137, "killed by signal 9", 1.0, 2.0), State.FAILED, 137, "signal 9"),
    (RunEnd("timeout", 143, "", 1.0, 2.0), State.FAILED, None, "60 s"),
    (RunEnd("aborted", None, "", 1.0, 2.0), State.ABORTED, None, "aborted"),
    (RunEnd("stopped", 143, "", 1.0, 2.0), State.CANCELLED, 143, "stopped"),
    (RunEnd("refused", None, "no package x", None, 2.0), State.FAILED, None, "no package x"),
    (RunEnd("lost", None, "", 1.0, 2.0), State.SYSTEM_FAILURE, None, "lost"),
]


@pytest.mark.parametrize(("end", "state", "return_code", "error"), ENDS)
def test_each_end_has_its_state_and_its_sentence(
    end: RunEnd, state: State, return_code: int | None, error: str
) -> None:
    record = final_record(RunRecord("a", CPU, 0.0), end)
    assert (record.state, record.return_code) == (state, return_code)
    assert error in record.error
    assert bool(record.error) == (state is not State.COMPLETED)
    assert record.timed_out == (end.reason == "timeout")


def test_a_stopped_notebook_is_completed() -> None:
    notebook = StartImage(docker_image_ref="jupyter", job_type="customer_notebook")
    record = RunRecord("a", notebook, 0.0)
    assert final_record(record, ENDS[5][0]).state is State.COMPLETED


async def test_a_run_goes_from_pending_to_completed(tmp_path: Path) -> None:
    runner, store = FakeRunner(), MemoryStore()
    async with opened(tmp_path, runner, store) as service:
        record = await service.start(CPU)
        assert record.state is State.PENDING
        run = await service.find(record.run_id)
        handle = await runner.next_run()
        handle.tell("installing requirements")
        assert run.progress.detail == "installing requirements"
        handle.begin()
        await state_becomes(run, State.RUNNING)
        assert service.active() == [run.record]
        handle.end(0)
        await state_becomes(run, State.COMPLETED)
        assert service.active() == []
        assert await store.get(record.run_id) == run.record


async def test_the_final_state_is_stored_before_anybody_is_told(tmp_path: Path) -> None:
    runner, store = FakeRunner(), MemoryStore()
    async with opened(tmp_path, runner, store) as service:
        run = await service.find((await service.start(CPU)).run_id)
        (await runner.next_run()).end(0)
        await state_becomes(run, State.COMPLETED)
        stored = await store.get(run.run_id)
        assert stored is not None
        assert stored.state is State.COMPLETED


async def test_an_unknown_machine_is_refused_with_the_list(tmp_path: Path) -> None:
    async with opened(tmp_path, FakeRunner()) as service:
        with pytest.raises(UnknownMachine, match=r"gpu\.h100"):
            await service.start(StartPython(code="", execution_type="tpu"))
        assert service.active() == []


async def test_an_end_that_a_full_disk_refuses_stays_as_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "REWRITE_S", 0.01)
    runner, store = FakeRunner(), FaultyStore()
    async with opened(tmp_path, runner, store) as service:
        record = await service.start(CPU)
        run = await service.find(record.run_id)
        handle = await runner.next_run()
        store.fail("update", "finish")
        handle.begin()
        await state_becomes(run, State.RUNNING)
        handle.end(0)
        await state_becomes(run, State.COMPLETED)
        assert service.active() == []
        assert (await service.find(record.run_id)).record.state is State.COMPLETED
        page = await service.history(limit=9, offset=0)
        assert [found.state for found in page.records] == [State.COMPLETED]
        store.mend()
        async with asyncio.timeout(60):
            await store.done["finish"].reaches(1)
        assert await store.get(record.run_id) == run.record


async def test_what_its_runner_refuses_is_not_accepted(tmp_path: Path) -> None:
    runner = FakeRunner()
    runner.refusal = InvalidField("not like this", field="docker_image_ref")
    async with opened(tmp_path, runner) as service:
        with pytest.raises(InvalidField):
            await service.start(StartImage(docker_image_ref="x"))
        assert service.active() == []


async def test_a_run_gets_the_secrets_of_the_account(tmp_path: Path) -> None:
    runner = FakeRunner()
    async with opened(tmp_path, runner) as service:
        await service.start(CPU)
        assert (await runner.next_run()).run_order.environment == {"TOKEN": "from the account"}


async def test_a_gpu_that_is_not_here_is_said_in_the_progress(tmp_path: Path) -> None:
    async with opened(tmp_path, FakeRunner()) as service:
        record = await service.start(StartPython(code="", execution_type="gpu.a100"))
        assert (await service.find(record.run_id)).progress.note == NO_GPU


async def test_the_machine_and_the_kind_choose_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Machine("gpu.cluster", True, 1.5, {"python": "cluster"}, note=lambda: "in the queue")
    monkeypatch.setitem(MACHINES, cluster.name, cluster)
    here, there = FakeRunner(), FakeRunner()
    async with opened(tmp_path, here, cluster=there) as service:
        record = await service.start(StartPython(code="", execution_type=cluster.name))
        assert (await there.next_run()).run_order.has_gpu
        assert (await service.find(record.run_id)).progress.note == "in the queue"
        await service.start(CPU)
        assert not (await here.next_run()).run_order.has_gpu


async def test_a_machine_that_does_not_run_a_kind_names_those_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MACHINES, "gpu.x", Machine("gpu.x", True, 1.5, {"python": "cluster"}))
    image = StartImage(docker_image_ref="x", execution_type="gpu.x")
    async with opened(tmp_path, FakeRunner()) as service:
        with pytest.raises(InvalidField, match=r"gpu\.x runs nothing of the kind `image`.*cpu"):
            await service.start(image)
        assert service.active() == []


async def test_runs_beyond_the_limit_wait_in_order_and_say_how_many_are_ahead(
    tmp_path: Path,
) -> None:
    runner = FakeRunner()
    async with opened(tmp_path, runner, max_running=1) as service:
        runs = [await service.find((await service.start(CPU)).run_id) for _ in range(4)]
        handle = await runner.next_run()
        assert [run.progress.detail for run in runs[1:]] == [
            "1 run ahead", "2 runs ahead", "3 runs ahead",
        ]  # fmt: skip
        for number in range(4):
            assert handle.run_id == runs[number].run_id
            handle.end(0)
            if number < 3:
                handle = await runner.next_run()
        assert runs[3].progress.detail != "1 run ahead"


async def test_a_queued_run_is_aborted_at_once_and_never_starts(tmp_path: Path) -> None:
    runner = FakeRunner()
    async with opened(tmp_path, runner, max_running=1) as service:
        await service.start(CPU)
        first = await runner.next_run()
        queued = await service.start(CPU)
        record = await service.abort(queued.run_id)
        assert (record.state, record.started_at) == (State.ABORTED, None)
        last = await service.start(CPU)
        first.end(0)
        assert (await runner.next_run()).run_id == last.run_id


@pytest.mark.parametrize(("order", "state"), [("abort", State.ABORTED), ("stop", State.CANCELLED)])
async def test_an_order_answers_when_the_run_is_over(
    tmp_path: Path, order: str, state: State
) -> None:
    runner = FakeRunner()
    async with opened(tmp_path, runner) as service:
        record = await service.start(CPU)
        (await runner.next_run()).begin()
        assert (await getattr(service, order)(record.run_id)).state is state
        again = await service.abort(record.run_id)
        assert again.state is state


async def test_an_order_before_the_handle_is_passed_on_with_it(tmp_path: Path) -> None:
    runner = FakeRunner()
    async with opened(tmp_path, runner) as service:
        record = await service.start(CPU)
        # The driver has not run yet: there is no handle to pass the order to.
        aborted = await service.abort(record.run_id)
        assert aborted.state is State.ABORTED
        assert (await runner.next_run()).orders == ["kill"]


async def test_an_order_for_an_unknown_run_is_an_error(tmp_path: Path) -> None:
    async with opened(tmp_path, FakeRunner()) as service:
        with pytest.raises(UnknownRun):
            await service.abort("nobody")


async def test_a_runner_that_fails_ends_the_run_and_not_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = FakeRunner()
    runner.failure = OSError("no pool")
    async with opened(tmp_path, runner) as service:
        run = await service.find((await service.start(CPU)).run_id)
        await state_becomes(run, State.SYSTEM_FAILURE)
        assert "no pool" in caplog.text
        runner.failure = None
        await service.start(CPU)
        await runner.next_run()


async def test_a_run_whose_secrets_cannot_be_decrypted_says_what_to_do(tmp_path: Path) -> None:
    async def sealed_secrets() -> dict[str, str]:
        raise EmbeddedServerError("put the key back")

    runner = FakeRunner()
    async with opened(tmp_path, runner, secrets=sealed_secrets) as service:
        run = await service.find((await service.start(CPU)).run_id)
        await state_becomes(run, State.SYSTEM_FAILURE)
    assert run.record.error == "put the key back"
    assert not runner.handles


async def test_a_restart_follows_what_runs_and_queues_what_had_not_started(
    tmp_path: Path,
) -> None:
    runner, store = FakeRunner(), MemoryStore()
    async with opened(tmp_path, runner, store, max_running=1) as service:
        running, queued = await service.start(CPU), await service.start(CPU)
        handle = await runner.next_run()
        handle.begin()
    async with opened(tmp_path, runner, store, max_running=1) as service:
        run = await service.find(running.run_id)
        await state_becomes(run, State.RUNNING)
        handle.end(7)
        await state_becomes(run, State.FAILED)
        assert run.record.return_code == 7
        assert (await runner.next_run()).run_id == queued.run_id


async def test_a_server_with_live_runs_does_not_end(tmp_path: Path) -> None:
    runner = FakeRunner()
    async with opened(tmp_path, runner) as service:
        service.check_idle()
        run = await service.find((await service.start(CPU)).run_id)
        with pytest.raises(ServerBusy, match="1 run is not over"):
            service.check_idle()
        (await runner.next_run()).end(0)
        await state_becomes(run, State.COMPLETED)
        service.check_idle()


async def test_runs_and_followers_keep_the_server_from_being_idle(tmp_path: Path) -> None:
    runner = FakeRunner()
    async with opened(tmp_path, runner) as service:
        record = await service.start(CPU)
        idle = asyncio.create_task(service.idle(0.0))
        handle = await runner.next_run()
        assert not idle.done()
        with service.following("a run of the past"):
            handle.end(0)
            await state_becomes(await service.find(record.run_id), State.COMPLETED)
            assert not idle.done()
        async with asyncio.timeout(60):
            await idle


# --- a server whose vault has lost its key ---------------------------------------------------


async def test_only_the_runs_that_need_the_lost_key_are_lost(tmp_path: Path) -> None:
    state, runner = tmp_path / "state", FakeRunner()
    state.mkdir()

    def store() -> SqliteStore:
        return SqliteStore(state / "runs.sqlite3", Vault(state / "vault.key"))

    first = store()
    await first.open()
    async with opened(tmp_path / "runs", runner, first, max_running=1) as service:
        image = StartImage(docker_image_ref="x", docker_run_env="A=secret")
        ids = [(await service.start(request)).run_id for request in (image, image, CPU)]
        begun = await runner.next_run()
        begun.begin()
        await state_becomes(await service.find(ids[0]), State.RUNNING)
    await first.close()
    (state / "vault.key").unlink()

    second = store()
    await second.open()
    async with opened(tmp_path / "runs", runner, second, max_running=1) as service:
        lost = await service.find(ids[1])
        await state_becomes(lost, State.SYSTEM_FAILURE)
        assert "vault.key" in lost.record.error
        begun.end()
        (await runner.next_run()).end()
        for run_id in (ids[0], ids[2]):
            await state_becomes(await service.find(run_id), State.COMPLETED)
        page = await service.history(limit=9, offset=0)
        assert [record.run_id for record in page.records] == ids[::-1]
    await second.close()
