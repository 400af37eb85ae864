"""Due deliveries are sent, and their results stored, whatever fails."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.callbacks import verify
from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.protocol.callbacks import DeliveryState
from lyceum_magic.server.bell import Bell
from lyceum_magic.server.context import Context
from lyceum_magic.server.outbox import delivery as delivery_module
from lyceum_magic.server.outbox.delivery import LONGEST_WAIT_S, Deliverer
from lyceum_magic.server.outbox.planning import new_delivery
from lyceum_magic.server.outbox.results import Outcome
from lyceum_magic.server.outbox.schedule import Schedule
from lyceum_magic.server.outbox.sending import CallbackSender, HttpSender
from lyceum_magic.server.outbox.signing import Signing
from lyceum_magic.server.outbox.slots import ALL_SLOTS
from lyceum_magic.server.outbox.targets import Targets
from lyceum_magic.server.stores.base import (
    Attempt,
    Delivery,
    OutboxStore,
    StoredSigningSecret,
    StoreUnavailable,
)
from lyceum_magic.server.stores.memory import MemoryStore
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault
from tests.tools.clocks import Clock
from tests.tools.receiver import Receiver, Request
from tests.tools.stores import FaultyStore
from tests.tools.waiting import Tally

pytestmark = pytest.mark.anyio

CANARY = "canary-7a1c"
BODY = b'{"execution_id":"run","status":"completed"}'
AT_ONCE = Schedule((0.0,) * 4, jitter=0.0)
DAY_S = 86_400.0


class Pauses:
    """Each pause lasts until the test has ended it."""

    def __init__(self) -> None:
        self.begun = Tally()
        self._end = Bell()
        self._are_over = False

    async def __call__(self, seconds: float) -> None:
        end = self._end.listen()
        self.begun.add()
        if self._are_over:
            await asyncio.sleep(0)
        else:
            await end.wait()

    def end(self) -> None:
        """End the pauses that have begun."""
        self._end.ring()

    def end_for_good(self) -> None:
        """End all pauses: a failed test must not wait for the end of its deliverer."""
        self._are_over = True
        self.end()


class PlayedSender:
    """A sender that notes each attempt, and ends it as the test's `answer` says."""

    def __init__(self, answer: Callable[[str], Awaitable[Outcome]]) -> None:
        self.answer = answer
        self.sent: list[tuple[str, dict[str, str], bytes]] = []
        self._sent = asyncio.Condition()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        async with self._sent:
            self.sent.append((url, dict(headers), body))
            self._sent.notify_all()
        return await self.answer(url)

    async def has_sent(self, number: int) -> None:
        async with asyncio.timeout(30), self._sent:
            await self._sent.wait_for(lambda: len(self.sent) >= number)

    async def close(self) -> None:
        pass


def status(code: int, retry_after_s: float | None = None) -> Outcome:
    error = "" if 200 <= code < 300 else f"it answered {code}"
    return Outcome("127.0.0.1", code, error, retry_after_s)


def answering(*codes: int) -> Callable[[str], Awaitable[Outcome]]:
    """Return an `answer` that gives each attempt the next code, and all later ones the last."""
    left = list(codes)

    async def answer(url: str) -> Outcome:
        return status(left.pop(0) if len(left) > 1 else left[0])

    return answer


async def never(url: str) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


async def no_secrets() -> Mapping[str, str]:
    raise AssertionError("nothing refers to a secret")


def due(url: str = "https://a.example/hook", now: float = 1_000_000.0) -> Delivery:
    return new_delivery(url, BODY, now, run_id="run")


@asynccontextmanager
async def delivering(
    store: OutboxStore,
    sender: CallbackSender,
    *,
    schedule: Schedule = AT_ONCE,
    secrets: Callable[[], Awaitable[Mapping[str, str]]] = no_secrets,
    clock: Callable[[], float] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Deliverer]:
    context = Context(secrets, clock=clock or Clock(), monotonic=monotonic, pause=pause)
    deliverer = Deliverer(store, sender, Signing(store), schedule, context)
    await deliverer.open()
    try:
        yield deliverer
    finally:
        if isinstance(pause, Pauses):
            pause.end_for_good()
        await deliverer.close()


async def becomes(store: OutboxStore, delivery_id: str, state: DeliveryState) -> Delivery:
    return await tried(store, delivery_id, lambda found: found.state is state)


async def tried(
    store: OutboxStore, delivery_id: str, is_so: Callable[[Delivery], bool]
) -> Delivery:
    """Return the delivery once it meets a condition in the store."""
    async with asyncio.timeout(30):
        while True:
            found = await store.delivery(delivery_id)
            if found is not None and is_so(found):
                return found
            await asyncio.sleep(0.005)


# --- attempts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_it_arrives_signed_at_a_real_receiver_in_the_second_try(
    kind: str, tmp_path: Path
) -> None:
    store = (
        MemoryStore()
        if kind == "memory"
        else SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
    )
    await store.open()
    codes = [503, 204]

    async def answer(request: Request) -> int:
        return codes.pop(0)

    async with Receiver().listening() as receiver:
        receiver.answer = answer
        item = due(f"{receiver.origin}/hook")
        await store.add_delivery(item)
        async with delivering(store, HttpSender(Targets("local", list))):
            first, second = await receiver.got(2)
            done = await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
    (secret,) = await store.signing_secrets()
    for request in (first, second):
        event = verify(request.body, request.headers, secret.value, now=lambda: 1_000_000.0)
        assert (request.path, request.body, event.id) == ("/hook", BODY, item.delivery_id)
    assert (done.attempts, done.next_at, done.error) == (2, None, "")
    log = await store.attempts(item.delivery_id)
    assert [(each.number, each.status_code, each.address) for each in log] == [
        (1, 503, "127.0.0.1"), (2, 204, "127.0.0.1"),
    ]  # fmt: skip
    assert log[0].error
    assert (log[0].next_at, log[1].next_at) == (1_000_000.0, None)
    await store.close()


@pytest.mark.parametrize("code", [302, 400, 404, 429, 500, 199])
async def test_whatever_is_not_2xx_is_tried_again_until_it_is_given_up(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    store, sender = MemoryStore(), PlayedSender(answering(code))
    item = due(f"https://a.example/{CANARY}")
    await store.add_delivery(item)
    async with delivering(store, sender) as deliverer:
        dead = await becomes(store, item.delivery_id, DeliveryState.DEAD)
        assert (await deliverer.health())["dead"] == 1
    assert (dead.attempts, dead.next_at, dead.ended_at) == (4, None, 1_000_000.0)
    assert str(code) in dead.error
    assert len({(headers["webhook-id"], body) for _, headers, body in sender.sent}) == 1
    assert caplog.text.count("given up") == 1
    assert CANARY not in caplog.text


async def test_a_receiver_that_wants_no_more_is_left_alone() -> None:
    store, sender = MemoryStore(), PlayedSender(answering(410))
    item = due()
    await store.add_delivery(item)
    async with delivering(store, sender):
        dead = await becomes(store, item.delivery_id, DeliveryState.DEAD)
    assert dead.attempts == len(sender.sent) == 1


async def test_waits_are_written_down_and_a_receiver_may_ask_for_longer_ones() -> None:
    async def busy(url: str) -> Outcome:
        return status(503, retry_after_s=600.0)

    store, sender = MemoryStore(), PlayedSender(busy)
    item, clock = due(), Clock()
    await store.add_delivery(item)
    schedule = Schedule((0.0, 5.0, 700.0, 0.0), jitter=0.0)
    async with delivering(store, sender, schedule=schedule, clock=clock) as deliverer:
        first = await tried(store, item.delivery_id, lambda found: found.attempts == 1)
        assert (first.next_at, first.state) == (clock.now + 600.0, DeliveryState.PENDING)
        clock.now += 600.0
        deliverer.ring()
        second = await tried(store, item.delivery_id, lambda found: found.attempts == 2)
        assert second.next_at == clock.now + 700.0
        health = await deliverer.health()
        assert (health["pending"], health["failing"], health["errors"]) == (1, 1, [])
        assert deliverer.next_at == second.next_at


async def test_it_wakes_by_itself_when_something_is_due() -> None:
    store, sender = MemoryStore(), PlayedSender(answering(503, 204))
    loop = asyncio.get_running_loop()
    item = due(now=loop.time())
    await store.add_delivery(item)
    schedule = Schedule((0.0, 0.05), jitter=0.0)
    async with delivering(store, sender, schedule=schedule, clock=loop.time):
        await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
    first, second = await store.attempts(item.delivery_id)
    assert second.started_at - first.started_at >= 0.05


async def test_a_failure_of_the_sender_is_a_failed_attempt_whose_text_nobody_sees(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(url: str) -> Outcome:
        raise RuntimeError(url)

    store = MemoryStore()
    item = due(f"https://a.example/{CANARY}")
    await store.add_delivery(item)
    async with delivering(store, PlayedSender(broken)):
        dead = await becomes(store, item.delivery_id, DeliveryState.DEAD)
    assert "RuntimeError" in dead.error
    assert "RuntimeError" in caplog.text
    assert CANARY not in dead.error + caplog.text


# --- secrets in URLs ---------------------------------------------------------------------------


async def test_references_are_filled_in_with_what_the_account_has_by_then() -> None:
    values = iter([{"KEY": "a/b"}, {"KEY": "changed"}])

    async def secrets() -> Mapping[str, str]:
        return next(values)

    store, sender = MemoryStore(), PlayedSender(answering(500, 204))
    item = due("https://a.example/?k=${KEY}")
    await store.add_delivery(item)
    async with delivering(store, sender, secrets=secrets):
        await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
    assert [url for url, _, _ in sender.sent] == [
        "https://a.example/?k=a%2Fb", "https://a.example/?k=changed",
    ]  # fmt: skip


async def test_without_the_secret_or_the_url_nothing_is_sent_and_the_attempt_says_why() -> None:
    async def lost_key() -> Mapping[str, str]:
        raise EmbeddedServerError("put the key back")

    async def other() -> Mapping[str, str]:
        return {"OTHER": "x"}

    async def dots() -> Mapping[str, str]:
        return {"KEY": ".."}

    for secrets, url, said in (
        (
            other,
            "https://a.example/${KEY}",
            "the secret KEY, but this account has no",
        ),
        (dots, "https://a.example/${KEY}", "the secret KEY makes a part of its path"),
        (lost_key, "https://a.example/${KEY}", "put the key back"),
        (no_secrets, None, "cannot be decrypted"),
    ):
        store, sender = MemoryStore(), PlayedSender(never)
        item = replace(due(), url=url)
        await store.add_delivery(item)
        async with delivering(store, sender, secrets=secrets):
            dead = await becomes(store, item.delivery_id, DeliveryState.DEAD)
        assert said in dead.error
        assert sender.sent == []


async def test_health_says_that_the_key_is_lost_until_all_that_needs_it_is_gone(
    tmp_path: Path,
) -> None:
    path, key = tmp_path / "runs.sqlite3", tmp_path / "vault.key"
    store = SqliteStore(path, Vault(key))
    await store.open()
    lost, later = due(), replace(due("https://b.example/"), next_at=1_000_000.0 + DAY_S)
    for item in (lost, later):
        await store.add_delivery(item)
    await store.put_signing_secrets([StoredSigningSecret("whsec_a", 1.5)])
    await store.close()
    key.unlink()
    store = SqliteStore(path, Vault(key))
    await store.open()
    schedule = Schedule((0.0, DAY_S), jitter=0.0)

    async def no_values() -> Mapping[str, str]:
        return {}

    async with delivering(
        store, PlayedSender(answering(204)), schedule=schedule, secrets=no_values
    ) as deliverer:
        await tried(store, lost.delivery_id, lambda found: found.attempts == 1)
        (error,) = (await deliverer.health())["errors"]
        assert error.startswith("Callbacks fail: some URLs were encrypted with another vault.key")
        fresh = due("https://c.example/")
        await store.add_delivery(fresh)
        deliverer.ring([fresh.endpoint])
        await tried(store, fresh.delivery_id, lambda found: found.attempts == 1)
        (error,) = (await deliverer.health())["errors"]
        assert "%lyceum callbacks secret --rotate" in error
        await store.put_signing_secrets([StoredSigningSecret("whsec_b", 1.5)])
        (error,) = (await deliverer.health())["errors"]
        assert "some URLs" in error
        await store.remove_delivery(lost.delivery_id)
        assert (await deliverer.health())["errors"] == []
    await store.close()


# --- slots -------------------------------------------------------------------------------------


async def test_an_endpoint_has_one_slot_until_it_is_quick_then_four_until_it_fails_slowly() -> None:
    answers: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
    monotonic = Clock(50.0)

    async def answer(url: str) -> Outcome:
        code, took_s = await answers.get()
        monotonic.now += took_s
        return status(code)

    store, sender = CountingStore(), PlayedSender(answer)
    items = [due() for _ in range(20)]
    for item in items:
        await store.add_delivery(item)
    schedule = Schedule((0.0, DAY_S), jitter=0.0)

    async def under_way(ended: int, expected: int) -> None:
        """Check that once `ended` attempts have ended, just `expected` ones are under way."""
        await sender.has_sent(ended + expected)
        await looked(deliverer, store)
        assert store.given_out == len(sender.sent) == ended + expected

    async with delivering(store, sender, schedule=schedule, monotonic=monotonic) as deliverer:
        await under_way(0, 1)
        answers.put_nowait((503, 15.0))
        await under_way(1, 1)
        answers.put_nowait((503, 0.0))
        await under_way(2, 4)
        answers.put_nowait((503, 15.0))
        answers.put_nowait((204, 15.0))  # slow as it is
        await under_way(4, 4)
        for _ in range(4):
            answers.put_nowait((503, 15.0))
        await under_way(8, 1)
    assert len({headers["webhook-id"] for _, headers, _ in sender.sent}) == len(sender.sent)


async def test_receivers_that_hang_hold_up_nobody_else() -> None:
    async def answer(url: str) -> Outcome:
        return status(204) if "good" in url else await never(url)

    store, sender = MemoryStore(), PlayedSender(answer)
    for number in range(100):
        for _ in range(5):
            await store.add_delivery(due(f"https://hung-{number}.example/"))
    async with delivering(store, sender) as deliverer:
        await sender.has_sent(100)
        for number in range(20):
            item = due(f"https://good-{number}.example/")
            await store.add_delivery(item)
            deliverer.ring([item.endpoint])
            await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
    hosts = Counter(url for url, _, _ in sender.sent)
    assert set(hosts.values()) == {1}


async def test_no_more_than_all_slots_are_taken() -> None:
    store, sender = CountingStore(), PlayedSender(never)
    for number in range(ALL_SLOTS + 20):
        await store.add_delivery(due(f"https://hung-{number}.example/"))
    async with delivering(store, sender) as deliverer:
        await sender.has_sent(ALL_SLOTS)
        await looked(deliverer, store)
        assert store.given_out == len(sender.sent) == ALL_SLOTS


class CountingStore(MemoryStore):
    """A store that counts its calls, and the deliveries that it has given out to be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.given_out = 0
        self.asked: defaultdict[str, Tally] = defaultdict(Tally)

    async def endpoints(self, due_by: float = math.inf) -> Mapping[str, float]:
        self.asked["endpoints"].add()
        return await super().endpoints(due_by)

    async def due(
        self, endpoint: str, now: float, *, limit: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        self.asked[endpoint].add()
        found = await super().due(endpoint, now, limit=limit, without=without)
        self.given_out += len(found)
        return found

    async def replan(self, now: float) -> None:
        self.asked["replan"].add()
        await super().replan(now)


async def looked(deliverer: Deliverer, store: CountingStore) -> None:
    """Wait for a look at due deliveries that begins after this call."""
    for _ in range(2):  # the second one begins after the first has ended
        before = store.asked["endpoints"].count
        deliverer.ring()
        await store.asked["endpoints"].reaches(before + 1)


async def test_whoever_is_slow_is_not_asked_about_with_everybody_else() -> None:
    async def answer(url: str) -> Outcome:
        return status(204) if "good" in url or len(sender.sent) == 1 else await never(url)

    store, sender = CountingStore(), PlayedSender(answer)
    slow = [due("https://slow.example/") for _ in range(2)]
    for item in slow:
        await store.add_delivery(item)
    async with delivering(store, sender) as deliverer:
        await sender.has_sent(2)  # it has slots left, and nothing else is due there
        before = store.asked["https://slow.example:443"].count
        for _ in range(30):
            item = due("https://good.example/")
            await store.add_delivery(item)
            deliverer.ring([item.endpoint])
            await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
        assert store.asked["https://slow.example:443"].count <= before + 3
        item = due("https://slow.example/")
        await store.add_delivery(item)
        deliverer.ring([item.endpoint])
        await sender.has_sent(33)


async def test_at_rest_nothing_is_asked() -> None:
    store, sender = CountingStore(), PlayedSender(never)
    await store.add_delivery(due())  # under way for ever
    await store.add_delivery(replace(due("https://b.example/"), next_at=1_000_000.0 + DAY_S))
    async with delivering(store, sender) as deliverer:
        await sender.has_sent(1)
        await looked(deliverer, store)
        before = {what: tally.count for what, tally in store.asked.items()}
        await asyncio.sleep(0.2)  # nothing waits for this: it gives a busy loop time to be one
        assert {what: tally.count for what, tally in store.asked.items()} == before


# --- a store that cannot be used ---------------------------------------------------------------


async def test_results_that_cannot_be_written_are_kept_and_nothing_new_is_sent_until_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, sender, pauses = FaultyStore(), PlayedSender(answering(204)), Pauses()
    clock = Clock()
    store.fail("write_attempts")
    items = [due(f"https://{name}.example/") for name in "ab"]
    await store.add_delivery(items[0])
    async with delivering(store, sender, clock=clock, pause=pauses) as deliverer:
        for number in range(1, 5):  # again and again, with pauses
            await pauses.begun.reaches(number)
            assert store.asked["write_attempts"].count == number
            assert "the disk is full" in (await deliverer.health())["errors"][0]
            if number < 4:
                pauses.end()
        await store.add_delivery(items[1])
        for _ in range(2):  # the second look begins after the first has ended
            looks = clock.looks.count
            deliverer.ring([items[1].endpoint])
            await clock.looks.reaches(looks + 1)
        assert len(sender.sent) == 1
        store.mend()
        pauses.end()
        for item in items:
            await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
        assert (await deliverer.health())["errors"] == []
    assert len(sender.sent) == 2
    assert caplog.text.count("the disk is full") == 1


async def test_what_cannot_be_read_is_read_later(caplog: pytest.LogCaptureFixture) -> None:
    store, sender, pauses = FaultyStore(), PlayedSender(answering(204)), Pauses()
    store.fail("endpoints", "next_at", error=StoreUnavailable("the disk fails"))
    item = due()
    await store.add_delivery(item)
    async with delivering(store, sender, pause=pauses) as deliverer:
        for number in range(1, 5):
            await pauses.begun.reaches(number)
            assert store.asked["endpoints"].count == number
            if number < 4:
                pauses.end()
        assert "the disk fails" in (await deliverer.health())["errors"][0]
        store.mend()
        pauses.end()
        await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
        assert (await deliverer.health())["errors"] == []
        assert caplog.text.count("the disk fails") == 1
        # At rest it looks once a minute, but a caller of `health` is told at once.
        store.fail("endpoints", "next_at", error=StoreUnavailable("the disk fails"))
        assert "the disk fails" in (await deliverer.health())["errors"][0]


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [("127.0.0.1", 2**70, "OverflowError"), ([], 503, "RecordRefused")],
)
async def test_a_result_that_cannot_be_written_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, address: Any, code: int, said: str
) -> None:
    async def answer(url: str) -> Outcome:
        if "odd" in url:
            return Outcome(address, code, f"it answered {CANARY}")
        return status(204)

    store = SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
    await store.open()
    sender = PlayedSender(answer)
    odd = due("https://a.example/odd")
    await store.add_delivery(odd)
    async with delivering(store, sender) as deliverer:
        await sender.has_sent(1)
        for _ in range(3):
            item = due("https://a.example/")
            await store.add_delivery(item)
            deliverer.ring([item.endpoint])
            await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
        assert (await deliverer.health())["errors"] == []
    assert [url for url, _, _ in sender.sent].count("https://a.example/odd") == 1
    assert f"{odd.delivery_id} cannot be stored ({said})" in caplog.text
    assert CANARY not in caplog.text
    await store.close()


async def test_of_a_group_what_can_be_written_is(tmp_path: Path) -> None:
    goes_on = asyncio.Event()

    async def answer(url: str) -> Outcome:
        await goes_on.wait()
        return Outcome("127.0.0.1", 2**70 if "odd" in url else 204, "")

    store = SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
    await store.open()
    sender = PlayedSender(answer)
    items = [due(f"https://{name}.example/") for name in ("a", "odd", "b")]
    for item in items:
        await store.add_delivery(item)
    async with delivering(store, sender):
        await sender.has_sent(3)
        goes_on.set()
        for item in (items[0], items[2]):
            await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
    await store.close()


async def test_no_attempt_is_counted_where_the_signing_secret_cannot_be_kept() -> None:
    store, sender, pauses = FaultyStore(), PlayedSender(answering(204)), Pauses()
    store.fail("put_signing_secrets")
    item = due()
    await store.add_delivery(item)
    async with delivering(store, sender, pause=pauses) as deliverer:
        await pauses.begun.reaches(1)
        assert "the disk is full" in (await deliverer.health())["errors"][0]
        assert sender.sent == []
        store.mend()
        pauses.end()
        done = await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
        assert done.attempts == 1
        assert (await deliverer.health())["errors"] == []


async def test_a_trouble_with_one_that_is_removed_is_over() -> None:
    store, pauses = FaultyStore(), Pauses()
    store.fail("put_signing_secrets")
    items = [due(), replace(due("https://b.example/"), next_at=1_000_000.0 + DAY_S)]
    for item in items:
        await store.add_delivery(item)
    async with delivering(store, PlayedSender(never), pause=pauses) as deliverer:
        await pauses.begun.reaches(1)
        assert (await deliverer.health())["errors"]
        await store.remove_delivery(items[0].delivery_id)
        pauses.end()
        async with asyncio.timeout(30):
            while True:
                if not (await deliverer.health())["errors"]:
                    break
                await asyncio.sleep(0.005)


# --- clocks ------------------------------------------------------------------------------------


async def test_a_clock_that_goes_back_a_day_makes_no_wait_longer() -> None:
    store, sender = CountingStore(), PlayedSender(answering(503))
    item, wall, monotonic = due(), Clock(), Clock(50.0)
    await store.add_delivery(item)
    schedule = Schedule((0.0, 5.0, DAY_S), jitter=0.0)
    async with delivering(
        store, sender, schedule=schedule, clock=wall, monotonic=monotonic
    ) as deliverer:
        await tried(store, item.delivery_id, lambda found: found.attempts == 1)
        wall.now -= DAY_S
        deliverer.ring()
        moved = await tried(
            store, item.delivery_id, lambda found: (found.next_at or 0) < wall.now + 6
        )
        assert moved.next_at == wall.now + 5.0
        wall.now += LONGEST_WAIT_S
        monotonic.now += LONGEST_WAIT_S
        replanned = store.asked["replan"].count
        deliverer.ring()
        await tried(store, item.delivery_id, lambda found: found.attempts == 2)
        assert store.asked["replan"].count == replanned


@pytest.mark.parametrize("disk", ["slow", "full"])
async def test_what_is_written_behind_the_look_at_a_clock_that_went_back_waits_no_longer(
    disk: str,
) -> None:
    is_slow, goes_on = asyncio.Event(), asyncio.Event()

    class SlowStore(CountingStore):
        async def write_attempts(
            self, attempts: Sequence[tuple[Attempt, Delivery]]
        ) -> Collection[str]:
            if not goes_on.is_set():
                is_slow.set()
                if disk == "full":
                    raise StoreUnavailable("the disk is full")
                await goes_on.wait()
            return await super().write_attempts(attempts)

    store, sender, pauses = SlowStore(), PlayedSender(answering(503)), Pauses()
    item, wall, monotonic = due(), Clock(), Clock(50.0)
    await store.add_delivery(item)
    schedule = Schedule((0.0, 5.0), jitter=0.0)
    async with delivering(
        store, sender, schedule=schedule, clock=wall, monotonic=monotonic, pause=pauses
    ) as deliverer:
        async with asyncio.timeout(30):
            await is_slow.wait()
        wall.now -= DAY_S
        before = store.asked["replan"].count
        deliverer.ring()
        await store.asked["replan"].reaches(before + 1)
        if disk == "full":  # for hours
            wall.now += DAY_S / 2
            monotonic.now += DAY_S / 2
        goes_on.set()
        pauses.end()
        moved = await tried(
            store,
            item.delivery_id,
            lambda found: found.attempts == 1 and (found.next_at or 0) < wall.now + 6,
        )
        assert moved.next_at == wall.now + 5.0


async def test_an_attempt_during_which_the_clock_went_back_is_planned_from_the_new_time() -> None:
    wall = Clock()

    async def answer(url: str) -> Outcome:
        wall.now -= DAY_S
        return status(503)

    store, item = MemoryStore(), due()
    await store.add_delivery(item)
    schedule = Schedule((0.0, 5.0), jitter=0.0)
    async with delivering(store, PlayedSender(answer), schedule=schedule, clock=wall):
        after = await tried(store, item.delivery_id, lambda found: found.attempts == 1)
    assert after.next_at == wall.now + 5.0


async def test_what_was_planned_with_a_clock_of_tomorrow_does_not_wait_for_it() -> None:
    store, sender = MemoryStore(), PlayedSender(answering(204))
    item = due(now=1_000_000.0 + DAY_S)
    await store.add_delivery(item)
    async with delivering(store, sender):
        await becomes(store, item.delivery_id, DeliveryState.DELIVERED)


async def test_a_clock_that_goes_forward_makes_what_waits_due() -> None:
    store, sender, wall = MemoryStore(), PlayedSender(answering(503, 204)), Clock()
    item = due()
    await store.add_delivery(item)
    schedule = Schedule((0.0, DAY_S / 2), jitter=0.0)
    async with delivering(store, sender, schedule=schedule, clock=wall) as deliverer:
        await tried(store, item.delivery_id, lambda found: found.attempts == 1)
        wall.now += DAY_S
        deliverer.ring()
        await becomes(store, item.delivery_id, DeliveryState.DELIVERED)


# --- the end, and by hand ----------------------------------------------------------------------


async def test_what_is_cut_off_at_the_end_is_sent_again_by_the_next_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery_module, "CLOSE_S", 0.02)
    store, item = MemoryStore(), due()
    await store.add_delivery(item)
    first = PlayedSender(never)
    async with delivering(store, first):
        await first.has_sent(1)
    second = PlayedSender(answering(204))
    async with delivering(store, second):
        done = await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
    assert done.attempts == 1
    assert first.sent[0][1]["webhook-id"] == second.sent[0][1]["webhook-id"]


async def test_what_ends_while_the_server_does_is_written_down() -> None:
    goes_on = asyncio.Event()

    async def answer(url: str) -> Outcome:
        await goes_on.wait()
        return status(204)

    store, sender, item = MemoryStore(), PlayedSender(answer), due()
    await store.add_delivery(item)
    async with delivering(store, sender):
        await sender.has_sent(1)
        asyncio.get_running_loop().call_later(0.05, goes_on.set)
    found = await store.delivery(item.delivery_id)
    assert found is not None
    assert found.state is DeliveryState.DELIVERED


async def test_one_that_was_never_opened_can_be_closed() -> None:
    store = MemoryStore()
    deliverer = Deliverer(store, PlayedSender(never), Signing(store), AT_ONCE, Context())
    await deliverer.close()


@pytest.mark.parametrize(
    ("code", "state"), [(204, DeliveryState.DELIVERED), (503, DeliveryState.DEAD)]
)
async def test_a_test_is_tried_once_and_says_what_came_of_it(
    code: int, state: DeliveryState
) -> None:
    store, sender = MemoryStore(), PlayedSender(answering(code))
    async with delivering(store, sender) as deliverer:
        found = await deliverer.test("https://a.example/")
    assert (found.state, found.attempts, found.run_id, found.url) == (state, 1, None, None)
    assert len(sender.sent) == 1


async def test_a_test_of_a_receiver_that_hangs_returns_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery_module, "TEST_S", 0.05)
    monkeypatch.setattr(delivery_module, "CLOSE_S", 0.0)
    async with delivering(MemoryStore(), PlayedSender(never)) as deliverer:
        found = await deliverer.test("https://a.example/")
    assert (found.state, found.attempts) == (DeliveryState.PENDING, 0)


async def test_one_that_was_given_up_is_sent_again_by_hand_and_keeps_its_id() -> None:
    store, sender = MemoryStore(), PlayedSender(answering(410, 204))
    item = due()
    await store.add_delivery(item)
    async with delivering(store, sender) as deliverer:
        await becomes(store, item.delivery_id, DeliveryState.DEAD)
        assert await deliverer.redeliver("msg_nobody") is None
        again = await deliverer.redeliver(item.delivery_id)
        assert again is not None
        assert again.state is DeliveryState.PENDING
        done = await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
    assert done.attempts == 2
    assert {headers["webhook-id"] for _, headers, _ in sender.sent} == {item.delivery_id}


@pytest.mark.parametrize("what", ["redelivered", "removed"])
async def test_what_somebody_does_by_hand_meanwhile_is_not_said_to_be_given_up(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = asyncio.Event()
    codes = [410, 204]

    async def answer(url: str) -> Outcome:
        await goes_on.wait()
        return status(codes.pop(0))

    store, sender = MemoryStore(), PlayedSender(answer)
    item = due()
    await store.add_delivery(item)
    async with delivering(store, sender) as deliverer:
        await sender.has_sent(1)
        if what == "removed":
            await store.remove_delivery(item.delivery_id)
            goes_on.set()
            item = due()  # goes to the same endpoint, whose one slot is freed
            await store.add_delivery(item)
            deliverer.ring([item.endpoint])
        else:
            await deliverer.redeliver(item.delivery_id)
            goes_on.set()
        await becomes(store, item.delivery_id, DeliveryState.DELIVERED)
    assert "given up" not in caplog.text
