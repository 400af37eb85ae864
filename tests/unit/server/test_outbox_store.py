"""The promises of every store about callbacks, checked on all of them."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.protocol.callbacks import DeliveryState
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server.stores.base import (
    Attempt,
    Delivery,
    OutboxCounts,
    RunRecord,
    StoredSigningSecret,
    StoreUnavailable,
    WholeStore,
)
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault

from .test_store_contract import VERSION_1

pytestmark = pytest.mark.anyio

ENDPOINT = "https://example.org:443"
URL = "https://example.org/canary-url?a=${NAME}"
NOW = 1000.25


def delivery(
    delivery_id: str, *, next_at: float = NOW, run_id: str | None = None, endpoint: str = ENDPOINT
) -> Delivery:
    return Delivery(
        delivery_id,
        run_id,
        URL,
        "https://example.org/...",
        endpoint,
        b'{"\xc3\xa9": 1}\n\0',
        created_at=1.5,
        planned_at=NOW,
        next_at=next_at,
    )


def failed(before: Delivery, *, next_at: float = NOW + 60) -> tuple[Attempt, Delivery]:
    """Return a failed attempt, and the delivery after it."""
    number = before.attempts + 1
    attempt = Attempt(before.delivery_id, number, NOW, 0.125, "::1", 503, "It was busy.", next_at)
    after = replace(
        before,
        attempts=number,
        tries=before.tries + 1,
        planned_at=NOW + 1,
        next_at=next_at,
        error=attempt.error,
    )
    return attempt, after


def given_up(before: Delivery) -> tuple[Attempt, Delivery]:
    attempt, after = failed(before)
    after = replace(after, state=DeliveryState.DEAD, next_at=None, ended_at=NOW + 1)
    return replace(attempt, address=None, status_code=None, next_at=None), after


def delivered(before: Delivery, *, ended_at: float = NOW + 1) -> tuple[Attempt, Delivery]:
    attempt, after = failed(before)
    after = replace(after, state=DeliveryState.DELIVERED, next_at=None, ended_at=ended_at, error="")
    return replace(attempt, status_code=204, error="", next_at=None), after


END: dict[str, Callable[[Delivery], tuple[Attempt, Delivery]]] = {
    "failed": failed,
    "given up": given_up,
    "delivered": delivered,
}


def shown(delivery: Delivery) -> Delivery:
    return replace(delivery, url=None, body=b"")


def record(run_id: str, state: State = State.COMPLETED) -> RunRecord:
    return RunRecord(run_id, StartPython(code="1"), created_at=1.5, state=state)


async def due(store: WholeStore, now: float = NOW) -> list[str]:
    return [item.delivery_id for item in await store.due(ENDPOINT, now, limit=99)]


# --- what is written down --------------------------------------------------------------------


async def test_url_and_body_come_back_for_who_sends_it_alone(store: WholeStore) -> None:
    written = delivery("a", run_id="run")
    await store.add_delivery(written)
    assert list(await store.due(ENDPOINT, NOW, limit=1)) == [written]
    assert await store.delivery("a") == shown(written)
    assert list(await store.deliveries()) == [shown(written)]
    assert await store.delivery("nobody") is None
    assert "canary" not in repr(written)


async def test_the_end_of_a_run_brings_its_deliveries_and_again_changes_nothing(
    store: WholeStore,
) -> None:
    await store.add(record("run", State.RUNNING))
    both = [delivery("a", run_id="run"), delivery("b", run_id="run")]
    await store.finish(record("run"), both)
    finished = await store.get("run")
    assert finished is not None
    assert finished.state is record("run").state
    assert await due(store) == ["a", "b"]
    attempt, after = delivered(both[0])
    await store.write_attempts([(attempt, after)])
    await store.finish(record("run"), both)
    assert await store.delivery("a") == shown(after)
    assert list(await store.attempts("a")) == [attempt]
    assert await due(store) == ["b"]


# --- what is due -----------------------------------------------------------------------------


async def test_endpoints_tell_when_their_earliest_delivery_is_due(store: WholeStore) -> None:
    assert dict(await store.endpoints()) == {}
    await store.add_delivery(delivery("a", next_at=7.5, endpoint="http://b:80"))
    await store.add_delivery(delivery("b", next_at=5.5, endpoint="http://b:80"))
    await store.add_delivery(delivery("c", next_at=9.5, endpoint="http://a:80"))
    for number, end in enumerate((given_up, delivered)):
        over = delivery(str(number), next_at=1.0, endpoint=f"http://{number}:80")
        await store.add_delivery(over)
        await store.write_attempts([end(over)])
    assert dict(await store.endpoints()) == {"http://a:80": 9.5, "http://b:80": 5.5}
    assert dict(await store.endpoints(5.5)) == {"http://b:80": 5.5}
    assert [await store.next_at(after) for after in (0.0, 5.5, 7.5, 9.5)] == [5.5, 7.5, 9.5, None]
    assert await store.next_at() == 5.5


async def test_the_longest_due_comes_first_and_what_is_under_way_does_not(
    store: WholeStore,
) -> None:
    for delivery_id, next_at in (("c", 9.5), ("a", 5.0), ("b", 5.0), ("later", 9.75)):
        await store.add_delivery(delivery(delivery_id, next_at=next_at))
    await store.add_delivery(delivery("elsewhere", next_at=1.0, endpoint="https://example.org:8"))
    assert await due(store, 9.5) == ["a", "b", "c"]
    some = await store.due(ENDPOINT, 9.5, limit=1, without={"a", "unknown"})
    assert [item.delivery_id for item in some] == ["b"]
    assert await due(store, 4.9) == []


async def test_what_was_never_tried_comes_before_what_failed(store: WholeStore) -> None:
    for delivery_id, next_at in (("failed", 5.0), ("first", 7.0), ("second", 8.0)):
        await store.add_delivery(delivery(delivery_id, next_at=next_at))
    await store.write_attempts([failed(delivery("failed"), next_at=6.0)])
    assert await due(store, 9.0) == ["first", "second", "failed"]
    some = await store.due(ENDPOINT, 9.0, limit=2, without={"first"})
    assert [item.delivery_id for item in some] == ["second", "failed"]


@pytest.mark.parametrize("end", END.values(), ids=END)
async def test_an_attempt_is_logged_and_the_delivery_is_as_after_it(
    store: WholeStore, end: Callable[[Delivery], tuple[Attempt, Delivery]]
) -> None:
    await store.add_delivery(delivery("a"))
    attempt, after = end(delivery("a"))
    # What the list shows has no url: it must not be forgotten for that.
    for _ in range(2):  # again changes nothing
        await store.write_attempts([(attempt, replace(after, url=None, body=b""))])
        assert list(await store.attempts("a")) == [attempt]
        assert await store.delivery("a") == shown(after)
    sent_again = await store.redeliver("a", NOW)
    assert sent_again is not None
    (read,) = await store.due(ENDPOINT, NOW, limit=1)
    assert (read.url, read.body) == (URL, delivery("a").body)


async def test_many_attempts_are_written_at_once(store: WholeStore) -> None:
    first, second = delivery("a"), delivery("b")
    for item in (first, second):
        await store.add_delivery(item)
    one, two = failed(first), delivered(second)
    three = delivered(one[1])
    await store.write_attempts([one, two, three])
    assert list(await store.attempts("a")) == [one[0], three[0]]
    assert list(await store.attempts("b")) == [two[0]]
    assert [item.state for item in await store.deliveries()] == [DeliveryState.DELIVERED] * 2


async def test_waits_are_as_long_as_they_were_meant_when_the_clock_goes_back(
    store: WholeStore,
) -> None:
    for delivery_id, planned_at, next_at in (("a", 900.0, 930.0), ("b", 400.0, 1000.0)):
        planned = delivery(delivery_id, next_at=next_at)
        await store.add_delivery(replace(planned, planned_at=planned_at))
    await store.replan(500.0)
    assert dict(await store.endpoints()) == {ENDPOINT: 530.0}
    moved, stays = await store.delivery("a"), await store.delivery("b")
    assert moved is not None
    assert stays is not None
    assert (moved.planned_at, moved.next_at) == (500.0, 530.0)
    assert (stays.planned_at, stays.next_at) == (400.0, 1000.0)


# --- what is done by hand --------------------------------------------------------------------


@pytest.mark.parametrize("end", END.values(), ids=END)
async def test_whatever_came_of_it_a_delivery_can_be_sent_again(
    store: WholeStore, end: Callable[[Delivery], tuple[Attempt, Delivery]]
) -> None:
    await store.add_delivery(delivery("a"))
    attempt, after = end(delivery("a"))
    await store.write_attempts([(attempt, after)])
    sent_again = await store.redeliver("a", 2000.5)
    assert sent_again == replace(
        shown(after),
        state=DeliveryState.PENDING,
        tries=0,
        planned_at=2000.5,
        next_at=2000.5,
        ended_at=None,
        redeliveries=1,
    )
    assert await store.delivery("a") == sent_again
    assert await due(store, 2000.5) == ["a"]
    assert list(await store.attempts("a")) == [attempt]
    assert await store.redeliver("nobody", 2000.5) is None


@pytest.mark.parametrize("end", END.values(), ids=END)
async def test_what_was_sent_again_during_an_attempt_is_sent_again_after_it(
    store: WholeStore, end: Callable[[Delivery], tuple[Attempt, Delivery]]
) -> None:
    await store.add_delivery(delivery("a"))
    (read,) = await store.due(ENDPOINT, NOW, limit=1)
    by_hand = await store.redeliver("a", NOW + 0.5)
    assert by_hand is not None
    attempt, after = end(read)
    assert not await store.write_attempts([(attempt, after)])
    assert await store.delivery("a") == replace(by_hand, attempts=1, error=attempt.error)
    (read,) = await store.due(ENDPOINT, NOW + 0.5, limit=1)
    second = delivered(read)
    assert set(await store.write_attempts([second])) == {"a"}
    assert [item.number for item in await store.attempts("a")] == [1, 2]
    assert await store.delivery("a") == shown(second[1])


async def test_what_was_removed_during_an_attempt_stays_removed(store: WholeStore) -> None:
    for delivery_id in "ab":
        await store.add_delivery(delivery(delivery_id))
    await store.write_attempts([failed(delivery("a"))])
    assert await store.remove_delivery("a")
    assert not await store.remove_delivery("a")
    both = [failed(failed(delivery("a"))[1]), failed(delivery("b"))]
    assert set(await store.write_attempts(both)) == {"b"}
    assert await store.delivery("a") is None
    assert list(await store.attempts("a")) == []
    assert len(await store.attempts("b")) == 1


# --- what is shown ---------------------------------------------------------------------------


async def test_deliveries_are_paged_newest_first_of_a_run_and_in_a_state(store: WholeStore) -> None:
    for number in range(6):
        item = delivery(str(number), run_id="even" if number % 2 == 0 else None)
        await store.add_delivery(item)
        if number < 3:
            await store.write_attempts([given_up(item)])

    async def ids(**wanted: object) -> str:
        return "".join(item.delivery_id for item in await store.deliveries(**wanted))  # type: ignore[arg-type]

    assert await ids() == "543210"
    assert await ids(limit=2, offset=1) == "43"
    assert await ids(run_id="even") == "420"
    assert await ids(state=DeliveryState.DEAD) == "210"
    assert await ids(state=DeliveryState.DEAD, run_id="even") == "20"
    assert await ids(state=DeliveryState.DELIVERED) == ""
    assert await ids(run_id="nobody") == ""


async def test_counts_tell_what_waits_fails_and_was_given_up(store: WholeStore) -> None:
    assert await store.outbox_counts() == OutboxCounts(0, 0, 0)
    items = [delivery(str(number), run_id="run") for number in range(6)]
    test = delivery("test")
    for item in [*items, test]:
        await store.add_delivery(item)
    await store.write_attempts(
        [failed(items[0]), given_up(items[1]), delivered(items[2]), given_up(test)]
    )
    assert await store.outbox_counts() == OutboxCounts(pending=4, failing=1, dead=1)
    await store.redeliver("1", NOW)
    assert await store.outbox_counts() == OutboxCounts(pending=5, failing=2, dead=0)


async def test_signing_secrets_are_replaced_together_and_come_in_their_order(
    store: WholeStore,
) -> None:
    assert list(await store.signing_secrets()) == []
    # Made while the clock was back.
    old, new = StoredSigningSecret("whsec_old", 2.5, 9.5), StoredSigningSecret("whsec_new", 1.5)
    await store.put_signing_secrets([new, old])
    assert list(await store.signing_secrets()) == [new, old]
    await store.put_signing_secrets([new])
    assert list(await store.signing_secrets()) == [new]
    assert "whsec" not in repr(new)


# --- forgetting ------------------------------------------------------------------------------


async def test_with_a_run_goes_what_was_delivered_and_nothing_else(store: WholeStore) -> None:
    await store.add(record("run"))
    await store.add(record("on its way", State.RUNNING))
    items = {name: delivery(name, run_id="run") for name in ("delivered", "dead", "pending")}
    items["another"] = delivery("another", run_id="on its way")
    items["test"] = delivery("test")
    for item in items.values():
        await store.add_delivery(item)
    ended = [delivered(items[name]) for name in ("delivered", "another", "test")]
    await store.write_attempts([*ended, given_up(items["dead"])])
    for run_id in ("run", "on its way"):
        await store.forget(run_id)
    left = {item.delivery_id for item in await store.deliveries()}
    assert left == {"dead", "pending", "another", "test"}
    assert list(await store.attempts("delivered")) == []
    assert len(await store.attempts("dead")) == 1


async def test_what_was_delivered_long_ago_is_forgotten(store: WholeStore) -> None:
    items = {name: delivery(name) for name in ("old", "new", "failed test", "pending", "again")}
    items["dead"] = delivery("dead", run_id="run")
    for item in items.values():
        await store.add_delivery(item)
    await store.write_attempts(
        [
            delivered(items["old"], ended_at=49.9),
            delivered(items["new"], ended_at=50.0),
            delivered(items["again"], ended_at=49.9),
            given_up(items["dead"]),
            given_up(items["failed test"]),
        ]
    )
    await store.redeliver("again", NOW)
    assert await store.forget_deliveries(50.0, limit=9) == 1
    left = {item.delivery_id for item in await store.deliveries()}
    assert left == {"new", "failed test", "dead", "pending", "again"}
    gone = [await store.forget_deliveries(NOW + 3600, limit=1) for _ in range(3)]
    assert gone == [1, 1, 0]
    left = {item.delivery_id for item in await store.deliveries()}
    assert left == {"dead", "pending", "again"}
    assert list(await store.attempts("old")) == []


# --- the file --------------------------------------------------------------------------------


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
    await store.open()
    yield store
    await store.close()


async def test_the_run_ends_with_all_its_deliveries_or_goes_on(sqlite: SqliteStore) -> None:
    await sqlite.add(record("run", State.RUNNING))
    impossible = replace(delivery("b"), next_at=None)  # would wait for ever
    with pytest.raises(StoreUnavailable):
        await sqlite.finish(record("run"), [delivery("a"), impossible])
    assert [item.run_id for item in await sqlite.unfinished()] == ["run"]
    assert list(await sqlite.deliveries()) == []


async def test_the_search_for_work_depends_on_endpoints_not_on_deliveries(
    sqlite: SqliteStore,
) -> None:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    async def steps_of(method: Callable[[], Awaitable[object]]) -> int:
        nonlocal steps
        steps = 0
        await sqlite._file.run(lambda connection: connection.set_progress_handler(count, 1))
        await method()
        await sqlite._file.run(lambda connection: connection.set_progress_handler(None, 1))
        return steps

    async def some_due() -> object:
        return await sqlite.due("http://3:80", NOW, limit=4, without=["3 0", "3 1"])

    async def add(numbers: range) -> None:
        await sqlite.finish(
            record("run"),
            [
                delivery(f"{host} {number}", endpoint=f"http://{host}:80")
                for host in range(5)
                for number in numbers
            ],
        )

    await sqlite.add(record("run"))
    await add(range(10))
    await add(range(10, 110))  # more than a little
    few = await steps_of(sqlite.endpoints), await steps_of(some_due)
    assert min(few) > 20
    await add(range(110, 200))
    assert (await steps_of(sqlite.endpoints), await steps_of(some_due)) == few


async def test_the_search_for_work_does_not_depend_on_what_is_due_later(
    sqlite: SqliteStore,
) -> None:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    async def look() -> tuple[object, object]:
        return await sqlite.endpoints(NOW), await sqlite.next_at(NOW)

    await sqlite.add_delivery(delivery("due"))
    counts = []
    for numbers in (range(5), range(5, 50)):
        for n in numbers:
            later = delivery(str(n), next_at=NOW + 60 + n, endpoint=f"http://{n}:80")
            await sqlite.add_delivery(later)
        steps = 0
        await sqlite._file.run(lambda connection: connection.set_progress_handler(count, 1))
        assert await look() == ({ENDPOINT: NOW}, NOW + 60)
        await sqlite._file.run(lambda connection: connection.set_progress_handler(None, 1))
        counts.append(steps)
    assert counts[0] == counts[1] > 5


async def test_what_is_promised_to_others_waits_for_the_disk(sqlite: SqliteStore) -> None:
    await sqlite.add(record("run"))
    statements: list[str] = []
    await sqlite._file.run(lambda connection: connection.set_trace_callback(statements.append))

    async def is_durable(done: Awaitable[object]) -> bool:
        statements.clear()
        await done
        relevant = [text for text in statements if text.startswith(("PRAGMA", "COMMIT"))]
        return relevant == ["PRAGMA synchronous = FULL", "COMMIT", "PRAGMA synchronous = NORMAL"]

    assert await is_durable(sqlite.finish(record("run"), [delivery("a")]))
    assert await is_durable(sqlite.add_delivery(delivery("b")))
    assert await is_durable(sqlite.write_attempts([failed(delivery("a"))]))
    assert await is_durable(sqlite.redeliver("a", NOW))
    assert await is_durable(sqlite.replan(NOW))
    assert await is_durable(sqlite.remove_delivery("a"))
    assert await is_durable(sqlite.put_signing_secrets([StoredSigningSecret("whsec_a", 1.5)]))
    assert not await is_durable(sqlite.finish(record("run")))
    assert not await is_durable(sqlite.update(record("run")))


async def test_the_disk_is_waited_for_inside_durable_transactions_alone(
    sqlite: SqliteStore,
) -> None:
    def level(connection: sqlite3.Connection) -> int:
        (level,) = connection.execute("PRAGMA synchronous").fetchone()
        return int(level)

    def fails(connection: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    normal, full = 1, 2
    assert await sqlite._file.transact(level, durable=True) == full
    with pytest.raises(ZeroDivisionError):
        await sqlite._file.transact(fails, durable=True)
    assert await sqlite._file.transact(level) == normal


async def check_that_it_fails_and_recovers(
    sqlite: SqliteStore, match: str, mend: Callable[[], Awaitable[None]]
) -> None:
    big = replace(delivery("a"), body=bytes(1 << 16))
    with pytest.raises(StoreUnavailable, match=match):
        await sqlite.finish(record("run"), [big])
    await mend()
    assert [item.run_id for item in await sqlite.unfinished()] == ["run"]
    assert list(await sqlite.deliveries()) == []
    await sqlite.finish(record("run"), [big])
    assert list(await sqlite.due(ENDPOINT, NOW, limit=1)) == [big]


@pytest.mark.parametrize(
    ("pragma", "mended", "match"),
    [
        ("query_only = 1", "query_only = 0", "readonly database"),
        ("max_page_count = 1", "max_page_count = 1000000", "is full: make room"),
    ],
)
async def test_a_full_or_closed_disk_is_told_and_nothing_is_half_written(
    sqlite: SqliteStore, pragma: str, mended: str, match: str
) -> None:
    await sqlite.add(record("run", State.RUNNING))
    await sqlite._file.execute(f"PRAGMA {pragma}")

    async def mend() -> None:
        await sqlite._file.execute(f"PRAGMA {mended}")

    await check_that_it_fails_and_recovers(sqlite, match, mend)


async def test_a_disk_that_refuses_to_write_is_told_and_nothing_is_half_written(
    sqlite: SqliteStore, tmp_path: Path
) -> None:
    await sqlite.add(record("run", State.RUNNING))
    await sqlite.put_signing_secrets([StoredSigningSecret("whsec_a", 1.5)])  # makes the vault's key
    size = (tmp_path / "runs.sqlite3-wal").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def mend() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        await check_that_it_fails_and_recovers(sqlite, "disk I/O error", mend)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_urls_and_signing_secrets_lie_in_no_file(sqlite: SqliteStore, tmp_path: Path) -> None:
    await sqlite.add(record("run"))
    await sqlite.finish(record("run"), [delivery("a", run_id="run")])
    await sqlite.write_attempts([failed(delivery("a"))])
    await sqlite.put_signing_secrets([StoredSigningSecret("whsec_canary", 1.5)])
    held = b"".join((tmp_path / f"runs.sqlite3{end}").read_bytes() for end in ("", "-wal"))
    assert b"It was busy." in held
    assert b"canary" not in held


async def test_without_the_key_a_url_is_none_and_all_the_rest_is_there(tmp_path: Path) -> None:
    path, key = tmp_path / "runs.sqlite3", tmp_path / "vault.key"
    store = SqliteStore(path, Vault(key))
    await store.open()
    await store.add_delivery(delivery("a"))
    await store.put_signing_secrets([StoredSigningSecret("whsec_a", 1.5)])
    await store.close()
    key.unlink()
    store = SqliteStore(path, Vault(key))
    await store.open()
    assert list(await store.due(ENDPOINT, NOW, limit=1)) == [replace(delivery("a"), url=None)]
    assert list(await store.deliveries()) == [shown(delivery("a"))]
    with pytest.raises(EmbeddedServerError, match=r"vault\.key"):
        await store.signing_secrets()
    await store.put_signing_secrets([StoredSigningSecret("whsec_b", 2.5)])
    assert [item.value for item in await store.signing_secrets()] == ["whsec_b"]
    await store.close()


async def test_a_key_that_cannot_be_read_now_is_a_failure_of_the_disk(tmp_path: Path) -> None:
    path, key = tmp_path / "runs.sqlite3", tmp_path / "vault.key"
    store = SqliteStore(path, Vault(key))
    await store.open()
    await store.add_delivery(delivery("a"))
    await store.close()
    kept = key.rename(tmp_path / "kept")
    key.mkdir()
    store = SqliteStore(path, Vault(key))
    await store.open()
    with pytest.raises(StoreUnavailable, match=r"vault\.key"):
        await store.due(ENDPOINT, NOW, limit=1)
    with pytest.raises(StoreUnavailable, match=r"vault\.key"):
        await store.add_delivery(delivery("b"))
    key.rmdir()
    kept.rename(key)
    assert list(await store.due(ENDPOINT, NOW, limit=9)) == [delivery("a")]
    await store.close()


async def test_callbacks_outlive_the_store(tmp_path: Path) -> None:
    path, vault = tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key")
    attempt, after = failed(delivery("a"))
    store = SqliteStore(path, vault)
    await store.open()
    await store.add_delivery(delivery("a"))
    await store.write_attempts([(attempt, after)])
    await store.close()
    store = SqliteStore(path, vault)
    await store.open()
    assert list(await store.due(ENDPOINT, NOW + 60, limit=1)) == [after]
    assert list(await store.attempts("a")) == [attempt]
    await store.close()


VERSION_3 = f"""
    {VERSION_1}
    ALTER TABLE runs ADD COLUMN kind TEXT NOT NULL DEFAULT 'python';
    ALTER TABLE runs ADD COLUMN sealed BLOB;
    CREATE TABLE secrets (
        secret_id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        is_secret INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        updated_at REAL NOT NULL,
        sealed BLOB NOT NULL
    );
    CREATE TABLE api_keys (
        sequence INTEGER PRIMARY KEY,
        key_id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        prefix TEXT NOT NULL,
        digest BLOB NOT NULL UNIQUE,
        created_at REAL NOT NULL,
        expires_at REAL,
        is_active INTEGER NOT NULL,
        last_used_at REAL
    );
    PRAGMA user_version = 3;
"""


@pytest.mark.parametrize("script", [VERSION_1, VERSION_3], ids=["version 1", "version 3"])
async def test_a_run_of_an_earlier_version_ends_with_callbacks(tmp_path: Path, script: str) -> None:
    path = tmp_path / "runs.sqlite3"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(script)
        old.execute(
            "INSERT INTO runs (run_id, request, job_type, created_at, state, timed_out, error) "
            """VALUES ('run', '{"code": "1"}', 'python', 1.5, 'running', 0, '')"""
        )
        old.commit()
    store = SqliteStore(path, Vault(tmp_path / "vault.key"))
    await store.open()
    (run,) = await store.unfinished()
    await store.finish(replace(run, state=State.COMPLETED), [delivery("a", run_id="run")])
    assert list(await store.unfinished()) == []
    assert list(await store.due(ENDPOINT, NOW, limit=1)) == [delivery("a", run_id="run")]
    await store.close()
