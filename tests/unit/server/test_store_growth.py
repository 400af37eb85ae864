"""The cost of many past runs to a store: steps of the database and bytes, never seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lyceum_magic.protocol.callbacks import DeliveryState
from lyceum_magic.protocol.requests import NOT_KEPT, StartCompose, StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server import retention
from lyceum_magic.server.retention import Keep, Retention
from lyceum_magic.server.run_folders import RunFolders
from lyceum_magic.server.stores import sqlite
from lyceum_magic.server.stores.base import Delivery, RunRecord
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault

pytestmark = pytest.mark.anyio

#: Code that is as long as the request of a cell to the cloud.
LONG = "x = 1\n" * 12_500
VERSION_5 = Path(__file__).with_name("version_5.sql")


def ended(number: int, code: str = "1") -> RunRecord:
    request = StartPython(
        code=code, execution_type="cpu", metadata={"tag": "0" * 32}, run_name=f"run {number}"
    )
    spool = Path(f"/state/lyceum-magic/servers/environment/runs/{number:036}/spool")
    return RunRecord(
        f"{number:036}", request, float(number), State.COMPLETED, spool=spool, return_code=0,
        started_at=number + 0.5, finished_at=number + 1.0,
    )  # fmt: skip


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(folder / "runs.sqlite3", Vault(folder / "vault.key"))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def fill(store: SqliteStore, runs: int, code: str = "1") -> None:
    for number in range(runs):
        record = ended(number, code)
        await store.add(replace(record, state=State.PENDING))
        await store.finish(record)


async def steps(store: SqliteStore, question: Callable[[], Awaitable[object]]) -> int:
    """Return the instructions of SQLite's virtual machine that a question takes."""
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    await store._file.run(lambda connection: connection.set_progress_handler(count, 1))
    await question()
    await store._file.run(lambda connection: connection.set_progress_handler(None, 1))
    return taken


@dataclass
class Jobs:
    """A count of the instructions that the jobs on a store's only thread take."""

    longest: int = 0
    total: int = 0

    async def watch(self, store: SqliteStore, patch: pytest.MonkeyPatch) -> None:
        taken = 0

        def count() -> None:
            nonlocal taken
            taken += 1

        await store._file.run(lambda connection: connection.set_progress_handler(count, 1))
        on_thread = store._file._on_thread

        async def counted(function: Callable[[], object]) -> object:
            nonlocal taken
            taken = 0
            result = await on_thread(function)
            self.longest = max(self.longest, taken)
            self.total += taken
            return result

        patch.setattr(store._file, "_on_thread", counted)


async def test_a_sweep_takes_the_thread_for_a_batch_at_a_time_whatever_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, number in (("STEP_RUNS", 20), ("STEP_FOLDERS", 20), ("REST", 0)):
        monkeypatch.setattr(retention, name, number)
    monkeypatch.setattr(sqlite, "_STEP_ROWS", 20)
    seen = []
    for runs in (40, 400):
        (folder := tmp_path / str(runs)).mkdir()
        folders = RunFolders(folder / "runs")
        folders.make()
        jobs = Jobs()
        async with opened(folder) as store:
            await fill(store, runs)
            for number in range(runs):
                folders.of(ended(number).run_id).mkdir()
                delivery = Delivery(
                    str(number), ended(number).run_id, None, "", "http://a.test/", b"",
                    number, DeliveryState.DELIVERED,
                )  # fmt: skip
                await store.add_delivery(replace(delivery, ended_at=number))
            await jobs.watch(store, monkeypatch)
            for keep_s in (1e9, runs / 2):
                await Retention(
                    store, folder / "runs", Keep(keep_s, 1 << 40),
                    is_in_use=lambda _: False, is_supervised=lambda _: False,
                ).sweep(runs)  # fmt: skip
            seen.append(replace(jobs))
            left = await store.history(limit=1, offset=0)
            assert 0 < left.total < runs
            assert 0 < len(await store.deliveries(limit=runs)) < runs
    few, many = seen
    assert many.total > 5 * few.total
    assert many.longest < 1.2 * few.longest


QUESTIONS: dict[str, Callable[[SqliteStore], Awaitable[object]]] = {
    "unfinished": lambda store: store.unfinished(),
    "get": lambda store: store.get(ended(5).run_id),
    "request": lambda store: store.request(ended(5).run_id),
    "ended since": lambda store: store.ended_since(3.0, limit=5),
    "oldest": lambda store: store.oldest_ended(limit=5),
    "unmeasured": lambda store: store.unmeasured(limit=5),
    "unknown": lambda store: store.unknown([ended(5).run_id, "x"]),
    "sizes": lambda store: store.note_sizes({ended(5).run_id: 7}),
    "mark": lambda store: store.move_mark(1e6),
    "update": lambda store: store.update(ended(5)),
    "finish": lambda store: store.finish(ended(5)),
    "forget": lambda store: store.forget(ended(5).run_id),
    "add": lambda store: store.add(ended(99_999)),
}


async def test_no_question_of_a_run_reads_more_rows_the_more_runs_there_are(
    tmp_path: Path,
) -> None:
    taken: list[dict[str, int]] = []
    for runs in (10, 1000):
        (folder := tmp_path / str(runs)).mkdir()
        async with opened(folder) as store:
            await fill(store, runs)
            taken.append(
                {what: await steps(store, lambda: ask(store)) for what, ask in QUESTIONS.items()}  # noqa: B023
            )
    few, many = taken
    grown = {what: (few[what], many[what]) for what in few if many[what] > few[what] + 20}
    assert grown == {}


async def test_a_long_request_takes_little_once_its_run_is_over(tmp_path: Path) -> None:
    runs = 300
    async with opened(tmp_path) as store:
        await fill(store, runs, LONG)
        size = await store.ended_bytes()
        await store.note_sizes({ended(number).run_id: 0 for number in range(runs)})
        counted = await store.ended_bytes() - size
    assert (tmp_path / "runs.sqlite3").stat().st_size < 2000 * runs
    assert 500 * runs < counted < 2000 * runs


async def test_a_page_of_old_requests_is_given_back_when_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    made_by_version_5(path, long_runs=400)
    before = path.stat().st_size
    assert before > 400 * len(LONG)
    async with opened(tmp_path) as store:
        while await store.catch_up():
            pass
    assert path.stat().st_size < before / 20


def made_by_version_5(path: Path, *, long_runs: int = 0) -> None:
    with closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_5.read_text())
        request = StartPython(code=LONG, execution_type="cpu").model_dump_json()
        old.executemany(
            "INSERT INTO runs (run_id, request, job_type, created_at, state, timed_out, error, "
            "finished_at) VALUES (?, ?, 'python', ?, 'failed', 0, 'why', ?)",
            [(f"long-{n}", request, 2000.0 + n, 2001.0 + n) for n in range(long_runs)],
        )
        old.commit()


async def test_a_file_of_version_5_is_used_at_once_and_brought_up_to_date_in_steps(
    tmp_path: Path,
) -> None:
    made_by_version_5(tmp_path / "runs.sqlite3", long_runs=200)
    async with opened(tmp_path) as store:
        # At once: all records, and those that go on with all that was asked for.
        page = await store.history(limit=999, offset=0)
        assert (page.total, page.records[-1].run_id) == (206, "run-0")
        (live,) = await store.unfinished()
        assert (live.run_id, live.request) == ("run-4", await store.request("run-4"))
        while await store.catch_up():
            pass
        assert len(await store.oldest_ended(limit=999)) == 205
        found = await store.ended_since(0.0, limit=999)
        assert [run.run_id for run in found] == ["run-5", "run-3", "run-2", "run-1", "run-0"]
        assert not await store.catch_up()
        # The records say the same as before, but for the programs.
        for before in page.records:
            after = await store.get(before.run_id)
            over = before.state.is_final
            kept = before.request.when_over() if over else before.request
            assert after == replace(before, request=kept)
        compose = await store.get("run-2")
        assert compose is not None
        assert isinstance(compose.request, StartCompose)
        assert compose.request.compose_file_code == NOT_KEPT


async def test_catching_up_goes_on_where_it_was_left(tmp_path: Path) -> None:
    made_by_version_5(tmp_path / "runs.sqlite3", long_runs=200)
    async with opened(tmp_path) as store:
        await store.catch_up()
        begun = len(await store.oldest_ended(limit=999))
        await store.forget("long-3")  # before it was its turn
        (live,) = await store.unfinished()
        await store.finish(replace(live, state=State.FAILED, finished_at=3000.0))
    assert begun > 0
    async with opened(tmp_path) as store:
        assert len(await store.oldest_ended(limit=999)) == begun + 1 or begun == 205
        while await store.catch_up():
            pass
        assert len(await store.oldest_ended(limit=999)) == 205


async def test_a_mark_of_a_wrong_clock_does_not_outlive_a_restart(tmp_path: Path) -> None:
    made_by_version_5(tmp_path / "runs.sqlite3")
    day_s = 86_400.0
    async with opened(tmp_path) as store:
        while await store.catch_up():
            pass
        assert await store.move_mark(40 * day_s) == 1007.5 + day_s
    async with opened(tmp_path) as store:
        assert await store.move_mark(40 * day_s) == 1007.5 + day_s
