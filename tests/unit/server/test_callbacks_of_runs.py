"""A run's end and its callbacks are stored together, so that every URL hears of the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.requests import (
    STARTS,
    Kind,
    Start,
    StartCompose,
    StartImage,
    StartPython,
)
from lyceum_magic.protocol.states import State
from lyceum_magic.server import service as service_module
from lyceum_magic.server.context import Context
from lyceum_magic.server.machines import RUNNERS
from lyceum_magic.server.outbox.schedule import Schedule
from lyceum_magic.server.runners.base import EndReason, InvalidField
from lyceum_magic.server.service import Outbox, RunService
from lyceum_magic.server.sessions.sessions import Sessions
from lyceum_magic.server.stores.base import Delivery, RunRecord, StoreUnavailable, WholeStore
from lyceum_magic.server.stores.memory import MemoryStore
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.troubles import Troubles
from lyceum_magic.server.vault import Vault
from tests.tools.receiver import Receiver, Request
from tests.tools.stores import FaultyStore

from .fake_runner import FakeRunner
from .serving import serving
from .test_service_rules import state_becomes

pytestmark = pytest.mark.anyio

CANARY = "canary-31fe"
URLS = [f"https://a.example/{CANARY}", "https://b.example/", f"https://a.example/{CANARY}"]

REQUESTS: dict[Kind, Start] = {
    "python": StartPython(code="print(1)", execution_type="cpu", user_callback_urls=URLS),
    "image": StartImage(docker_image_ref="x", execution_type="cpu", user_callback_urls=URLS),
    "compose": StartCompose(compose_file_code="x", execution_type="cpu", user_callback_urls=URLS),
}
PYTHON = REQUESTS["python"]


@asynccontextmanager
async def opened(
    folder: Path,
    runner: FakeRunner,
    store: WholeStore,
    *,
    outbox: Outbox = Outbox(),  # noqa: B008 - it is frozen
    context: Context | None = None,
    max_running: int = 8,
) -> AsyncIterator[RunService]:
    service = RunService(
        store,
        dict.fromkeys(RUNNERS, runner),
        folder,
        outbox,
        context or Context(),
        sessions=Sessions(folder / ".sessions"),
        max_running=max_running,
    )
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def told(store: WholeStore, run_id: str) -> Mapping[str, Any]:
    """Return the body that each of a run's URLs gets: one delivery for each distinct URL."""
    due = [
        delivery
        for endpoint in await store.endpoints()
        for delivery in await store.due(endpoint, 1e12, limit=99)
        if delivery.run_id == run_id
    ]
    assert sorted(str(delivery.url) for delivery in due) == sorted(set(URLS))
    assert len({delivery.body for delivery in due}) == 1
    body: Mapping[str, Any] = json.loads(due[0].body)
    assert body["execution_id"] == run_id
    return body


def sqlite(folder: Path) -> SqliteStore:
    folder.mkdir(exist_ok=True)
    return SqliteStore(folder / "runs.sqlite3", Vault(folder / "vault.key"))


# --- every end ---------------------------------------------------------------------------------

ENDS: list[tuple[EndReason, int | None, State]] = [
    ("exited", 0, State.COMPLETED),
    ("exited", 3, State.FAILED),
    ("timeout", 143, State.FAILED),
    ("refused", None, State.FAILED),
    ("aborted", None, State.ABORTED),
    ("stopped", 143, State.CANCELLED),
    ("lost", None, State.SYSTEM_FAILURE),
]


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize(("reason", "return_code", "state"), ENDS)
async def test_every_end_of_every_kind_is_told_to_each_url_once(
    tmp_path: Path, kind: Kind, reason: EndReason, return_code: int | None, state: State
) -> None:
    runner, store, rung = FakeRunner(), MemoryStore(), []
    async with opened(tmp_path, runner, store, outbox=Outbox(on_deliveries=rung.append)) as service:
        run = await service.find((await service.start(REQUESTS[kind])).run_id)
        (await runner.next_run()).end(return_code, reason=reason)
        await state_becomes(run, state)
    body = await told(store, run.run_id)
    assert (body["status"], body["error"]) == (state.value, run.record.error)
    assert rung == [{"https://a.example:443", "https://b.example:443"}]


@pytest.mark.parametrize(("order", "state"), [("abort", State.ABORTED), ("stop", State.CANCELLED)])
async def test_a_run_that_never_started_is_told_of(
    tmp_path: Path, order: str, state: State
) -> None:
    runner, store = FakeRunner(), MemoryStore()
    async with opened(tmp_path, runner, store, max_running=1) as service:
        await service.start(StartPython(code="", execution_type="cpu"))
        queued = await service.start(PYTHON)
        await getattr(service, order)(queued.run_id)
        assert (await told(store, queued.run_id))["status"] == state


async def test_a_run_that_its_runner_fails_is_told_of(tmp_path: Path) -> None:
    runner, store = FakeRunner(), MemoryStore()
    runner.failure = OSError("no pool")
    async with opened(tmp_path, runner, store) as service:
        run = await service.find((await service.start(PYTHON)).run_id)
        await state_becomes(run, State.SYSTEM_FAILURE)
    assert (await told(store, run.run_id))["status"] == "system_failure"


async def test_a_run_that_gets_no_secrets_is_told_of(tmp_path: Path) -> None:
    async def sealed() -> Mapping[str, str]:
        raise EmbeddedServerError("put the key back")

    runner, store = FakeRunner(), MemoryStore()
    async with opened(tmp_path, runner, store, context=Context(sealed)) as service:
        run = await service.find((await service.start(PYTHON)).run_id)
        await state_becomes(run, State.SYSTEM_FAILURE)
    assert (await told(store, run.run_id))["error"] == "put the key back"


async def test_nobody_else_is_told_and_no_bell_rings_for_nobody(tmp_path: Path) -> None:
    runner, store, rung = FakeRunner(), MemoryStore(), []
    async with opened(tmp_path, runner, store, outbox=Outbox(on_deliveries=rung.append)) as service:
        request = StartPython(code="", execution_type="cpu")
        run = await service.find((await service.start(request)).run_id)
        (await runner.next_run()).end(0)
        await state_becomes(run, State.COMPLETED)
    assert rung == []
    assert await store.deliveries() == []


async def test_an_error_that_quotes_a_secret_is_told_without_it(tmp_path: Path) -> None:
    async def secrets() -> Mapping[str, str]:
        return {"KEY": f"'{CANARY}'"}

    runner, store = FakeRunner(), MemoryStore()
    async with opened(tmp_path, runner, store, context=Context(secrets)) as service:
        run = await service.find((await service.start(PYTHON)).run_id)
        quoted = f"'{CANARY}'"
        handle = await runner.next_run()
        handle.end(127, error=f"the command {quoted!r} was not found, nor {quoted}")
        await state_becomes(run, State.FAILED)
    assert run.record.error == 'the command "***" was not found, nor ***'
    assert (await told(store, run.run_id))["error"] == run.record.error


@pytest.mark.parametrize("now", [{}, {"KEY": "another-value"}])
async def test_an_error_shows_no_secret_that_was_taken_away_during_the_run(
    tmp_path: Path, now: Mapping[str, str]
) -> None:
    kept: Mapping[str, str] = {"KEY": CANARY}

    async def secrets() -> Mapping[str, str]:
        return kept

    runner, store = FakeRunner(), MemoryStore()
    async with opened(tmp_path, runner, store, context=Context(secrets)) as service:
        run = await service.find((await service.start(PYTHON)).run_id)
        handle = await runner.next_run()
        kept = now
        handle.end(127, error=f"{CANARY} was not found, nor another-value")
        await state_becomes(run, State.FAILED)
    other = "***" if now else "another-value"
    assert run.record.error == f"*** was not found, nor {other}"
    assert (await told(store, run.run_id))["error"] == run.record.error


async def test_an_error_shows_no_secret_of_the_run_where_none_can_be_decrypted_any_more(
    tmp_path: Path,
) -> None:
    is_sealed = False

    async def secrets() -> Mapping[str, str]:
        if is_sealed:
            raise EmbeddedServerError("put the key back")
        return {"KEY": CANARY}

    runner, store = FakeRunner(), MemoryStore()
    async with opened(tmp_path, runner, store, context=Context(secrets)) as service:
        run = await service.find((await service.start(PYTHON)).run_id)
        handle = await runner.next_run()
        is_sealed = True
        handle.end(127, error=f"{CANARY} was not found")
        await state_becomes(run, State.FAILED)
    assert run.record.error == "*** was not found"


# --- restarts and disks ------------------------------------------------------------------------


async def test_a_run_that_ended_while_no_server_was_there_is_told_of_by_the_next(
    tmp_path: Path,
) -> None:
    runner, first = FakeRunner(), sqlite(tmp_path / "state")
    await first.open()
    async with opened(tmp_path / "runs", runner, first) as service:
        run_id = (await service.start(PYTHON)).run_id
        handle = await runner.next_run()
        handle.begin()
        await state_becomes(await service.find(run_id), State.RUNNING)
    await first.close()
    handle.end(5)

    second = sqlite(tmp_path / "state")
    await second.open()
    async with opened(tmp_path / "runs", runner, second) as service:
        await state_becomes(await service.find(run_id), State.FAILED)
        assert (await told(second, run_id))["return_code"] == 5
    await second.close()


async def test_where_the_urls_cannot_be_decrypted_the_run_ends_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner, first = FakeRunner(), sqlite(tmp_path / "state")
    await first.open()
    async with opened(tmp_path / "runs", runner, first) as service:
        run_id = (await service.start(PYTHON)).run_id
        handle = await runner.next_run()
        handle.begin()
        await state_becomes(await service.find(run_id), State.RUNNING)
    await first.close()
    (tmp_path / "state" / "vault.key").unlink()

    second = sqlite(tmp_path / "state")
    await second.open()
    async with opened(tmp_path / "runs", runner, second) as service:
        handle.end(0)
        await state_becomes(await service.find(run_id), State.COMPLETED)
        assert await second.deliveries() == []
    await second.close()
    assert caplog.text.count(f"run {run_id} will send no callbacks") == 1
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "error", [StoreUnavailable("the disk is full"), EmbeddedServerError("the key is none")]
)
@pytest.mark.parametrize("writes_all_the_same", [False, True])
async def test_an_end_that_is_written_late_has_the_same_deliveries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, *, writes_all_the_same: bool
) -> None:
    monkeypatch.setattr(service_module, "REWRITE_S", 0.01)
    runner, troubles, now = FakeRunner(), Troubles(), [1_000_000.0]
    store, asked = FaultyStore(), []

    async def note(record: RunRecord, deliveries: Sequence[Delivery] = ()) -> None:
        asked.append([delivery.delivery_id for delivery in deliveries])

    store.before["finish"] = note
    store.fail("finish", error=error, after_the_work=writes_all_the_same)
    rung: asyncio.Queue[Collection[str]] = asyncio.Queue()
    async with opened(
        tmp_path, runner, store,
        context=Context(troubles=troubles, clock=lambda: now[0]),
        outbox=Outbox(on_deliveries=rung.put_nowait),
    ) as service:  # fmt: skip
        run = await service.find((await service.start(PYTHON)).run_id)
        (await runner.next_run()).end(0)
        await state_becomes(run, State.COMPLETED)
        (sentence,) = troubles.sentences
        assert str(error) in sentence
        assert rung.empty()
        now[0] -= 86_400.0
        async with asyncio.timeout(30):
            await store.asked["finish"].reaches(3)
        assert [each.state for each in (await service.history(limit=1, offset=0)).records] == [
            State.COMPLETED
        ]
        store.mend()
        async with asyncio.timeout(30):
            await rung.get()
        assert troubles.sentences == []
    await told(store, run.run_id)
    if not writes_all_the_same:
        assert set((await store.endpoints()).values()) == {now[0]}  # due by the clock as it is
    assert len(asked) >= 2
    assert all(ids == asked[0] for ids in asked)


# --- starts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize(
    ("profile", "urls"),
    [
        ("local", ["https://fine.example/", f"ftp://a.example/{CANARY}"]),
        ("local", [f"http://a.example/{CANARY}"]),
        ("local", [f"https://me:{CANARY}@a.example/"]),
        ("local", [f"https://a.example/{CANARY}/{number}" for number in range(17)]),
        ("shared", [f"http://127.0.0.1:9/{CANARY}"]),
        ("shared", [f"https://localhost/{CANARY}"]),
    ],
)
async def test_a_start_that_could_call_nobody_back_is_refused_and_writes_nothing(
    tmp_path: Path, kind: Kind, profile: Any, urls: list[str]
) -> None:
    store = MemoryStore()
    body = REQUESTS[kind].to_wire() | {"user_callback_urls": urls}
    async with serving(tmp_path, store=store, profile=profile) as served:
        reply = await served.client.post(paths.STARTS[kind], json=body)
    assert reply.status_code == 422
    (problem,) = reply.json()["detail"]
    assert problem["loc"] == ["body", "user_callback_urls"]
    assert CANARY not in reply.text
    assert (await store.history(limit=1, offset=0)).total == 0


async def test_sixteen_urls_may_be_told(tmp_path: Path) -> None:
    urls = [f"https://a.example/{number}" for number in range(16)]
    async with opened(tmp_path, FakeRunner(), MemoryStore()) as service:
        await service.start(PYTHON.model_copy(update={"user_callback_urls": urls}))
        with pytest.raises(InvalidField, match="16"):
            await service.start(PYTHON.model_copy(update={"user_callback_urls": [*urls, "x"]}))


# --- the whole server, a real receiver ---------------------------------------------------------

AT_ONCE = Schedule((0.0, 0.0, 0.0), jitter=0.0)


async def test_a_receiver_finds_the_run_over_and_may_fail_twice(tmp_path: Path) -> None:
    found: list[tuple[str, Any]] = []
    codes = [503, 500, 204]
    async with Receiver().listening() as receiver, serving(tmp_path, schedule=AT_ONCE) as served:

        async def answer(request: Request) -> int:
            body = json.loads(request.body)
            record = (await served.client.get(paths.record(body["execution_id"]))).json()
            found.append((record["status"], record["return_code"]))
            return codes.pop(0)

        receiver.answer = answer
        started = await served.start(user_callback_urls=[f"{receiver.origin}/{CANARY}"])
        run_id = started["execution_id"]
        (await served.runner.next_run()).end(7)
        first, *others = await receiver.got(3)
        assert all(
            (other.callback_id, other.body) == (first.callback_id, first.body) for other in others
        )
        async with asyncio.timeout(30):
            while True:
                reply = await served.client.get(paths.run_deliveries(run_id))
                (delivery,) = reply.json()["deliveries"]
                if delivery["state"] == "delivered":
                    break
        assert delivery["attempts"] == 3
    assert found == [("failed", 7)] * 3


async def test_a_server_does_not_call_itself(tmp_path: Path) -> None:
    async with serving(tmp_path, schedule=Schedule((0.0,))) as served:
        reply = await served.client.post(
            paths.TEST_CALLBACK, json={"url": f"{served.base_url}{paths.SHUTDOWN}"}
        )
        assert reply.json()["state"] == "dead"
        assert served.end_calls == []


async def test_an_ended_server_leaves_word_of_what_is_still_to_be_sent(tmp_path: Path) -> None:
    async def refuse(request: Request) -> int:
        return 503

    left = tmp_path / "deliveries.json"
    schedule = Schedule((0.0, 3600.0))
    async with Receiver().listening() as receiver:
        receiver.answer = refuse
        async with serving(tmp_path, schedule=schedule, store=sqlite(tmp_path)) as served:
            assert not left.exists()
            await served.start(user_callback_urls=[receiver.origin])
            (await served.runner.next_run()).end(0)
            await receiver.got(1)
            path = paths.DELIVERY_HEALTH
            async with asyncio.timeout(30):
                while not (health := (await served.client.get(path)).json())["failing"]:
                    pass
        assert json.loads(left.read_text()) == {
            "pending": 1, "failing": 1, "dead": 0, "next_attempt_at": health["next_attempt_at"],
        }  # fmt: skip
        assert left.stat().st_mode & 0o777 == 0o600
        async with serving(tmp_path, schedule=schedule, store=sqlite(tmp_path)):
            assert not left.exists()


# --- idleness ----------------------------------------------------------------------------------


async def test_a_callback_that_is_due_soon_keeps_the_server_and_a_later_one_does_not(
    tmp_path: Path,
) -> None:
    now = 1_000_000.0
    next_at: list[float | None] = [now + 0.01]
    asked = asyncio.Semaphore(0)

    def next_delivery_at() -> float | None:
        asked.release()
        return next_at[0]

    async with opened(
        tmp_path,
        FakeRunner(),
        MemoryStore(),
        context=Context(clock=lambda: now),
        outbox=Outbox(next_at=next_delivery_at),
    ) as service:
        idle = asyncio.create_task(service.idle(0.02))
        async with asyncio.timeout(30):
            for _ in range(3):  # it is asked again, so it has waited on
                await asked.acquire()
        assert not idle.done()
        next_at[0] = now + 3600.0
        async with asyncio.timeout(30):
            await idle
        next_at[0] = None
        async with asyncio.timeout(30):
            await service.idle(0.0)
