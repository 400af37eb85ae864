"""AccountKeys and tokens: which of them open the server, and until when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jwt
import pytest

from lyceum_magic.config import Secret
from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.server.account.keys import AccountKeys, KeyInUse, SignInRefused, UnknownApiKey
from lyceum_magic.server.account.secrets import (
    MAX_ALL_BYTES,
    MAX_VALUE_BYTES,
    AccountSecrets,
    NewSecret,
    SecretsTooLarge,
    UnknownSecret,
    problem_of_value,
)
from lyceum_magic.server.account.tokens import ACCESS_S, REFRESH_S, Tokens
from lyceum_magic.server.state_folder import new_key
from lyceum_magic.server.stores.base import KeyRecord
from lyceum_magic.server.stores.memory import MemoryStore
from lyceum_magic.server.vault import Vault
from tests.tools.clocks import Clock
from tests.tools.stores import FaultyStore

pytestmark = pytest.mark.anyio

OWN = Secret("lk_own-key-of-this-machine")


#: The methods of a store that write a key.
KEY_WRITES = ("put_key", "note_key_use", "remove_key")


def written(store: FaultyStore) -> int:
    """Return how many times a key was written."""
    return sum(store.done[name].count for name in KEY_WRITES)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000.0)


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def tokens(tmp_path: Path, clock: Clock) -> Tokens:
    return Tokens(Vault(tmp_path / "vault.key"), clock=clock)


@pytest.fixture
def keys(store: FaultyStore, tokens: Tokens, clock: Clock) -> AccountKeys:
    return AccountKeys(store, tokens, OWN, new_key, clock=clock)


async def test_a_key_opens_until_it_is_switched_off_expires_or_is_revoked(
    keys: AccountKeys, clock: Clock
) -> None:
    key, secret = await keys.create("ci", clock.now + 100)
    assert secret.reveal().startswith("lk_")
    assert key.prefix == secret.reveal()[:8]
    assert await keys.lets_in(secret.reveal())
    assert not await keys.lets_in(secret.reveal() + "x")
    assert not (await keys.toggle(key.key_id)).is_active
    assert not await keys.lets_in(secret.reveal())
    assert (await keys.toggle(key.key_id)).is_active
    assert await keys.lets_in(secret.reveal())
    clock.now += 100
    assert not await keys.lets_in(secret.reveal())
    clock.now -= 1
    await keys.revoke(key.key_id)
    assert not await keys.lets_in(secret.reveal())
    with pytest.raises(UnknownApiKey):
        await keys.revoke(key.key_id)


async def test_no_key_is_kept_as_it_is(keys: AccountKeys, store: FaultyStore) -> None:
    _, secret = await keys.create("ci", None)
    (kept,) = await store.keys()
    assert len(kept.digest) == 32
    assert secret.reveal()[8:] not in repr(kept) + kept.name + kept.key_id
    assert repr(kept.digest) not in repr(kept)


async def test_keys_outlive_the_server(
    keys: AccountKeys, store: FaultyStore, tokens: Tokens, clock: Clock
) -> None:
    key, secret = await keys.create("ci", None)
    await keys.toggle((await keys.create("off", None))[0].key_id)
    later = AccountKeys(store, tokens, OWN, new_key, clock=clock)
    assert not await later.lets_in(secret.reveal())
    await later.open()
    assert await later.lets_in(secret.reveal())
    names = [(item.name, item.is_active) for item in later.list()]
    assert names == [("this machine", True), ("ci", True), ("off", False)]
    assert later.list()[1].key_id == key.key_id


async def test_the_key_of_this_machine_is_listed_and_always_good(keys: AccountKeys) -> None:
    (own,) = keys.list()
    assert await keys.lets_in(OWN.reveal())
    for attempt in (keys.revoke, keys.toggle):
        with pytest.raises(KeyInUse, match=r"server\.json"):
            await attempt(own.key_id)
    assert await keys.lets_in(OWN.reveal())


async def test_use_is_noted_without_a_write_for_each_request(
    keys: AccountKeys, store: FaultyStore, clock: Clock
) -> None:
    _, secret = await keys.create("ci", None)
    writes = written(store)
    for _ in range(100):
        clock.now += 1
        await keys.lets_in(secret.reveal())
    assert written(store) - writes == 2
    assert keys.list()[1].last_used_at == clock.now
    (kept,) = await store.keys()
    assert kept.last_used_at is not None
    assert 0 <= clock.now - kept.last_used_at < 60


async def test_a_full_disk_locks_nobody_out(
    keys: AccountKeys, store: FaultyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    _, secret = await keys.create("ci", None)
    store.fail(*KEY_WRITES, error=EmbeddedServerError("the disk is full"))
    assert await keys.lets_in(secret.reveal())
    assert keys.list()[1].last_used_at == clock.now
    assert "the disk is full" in caplog.text
    assert secret.reveal() not in caplog.text
    with pytest.raises(EmbeddedServerError):  # a change is not lost in silence
        await keys.create("more", None)


@pytest.mark.parametrize("change", ["revoke", "switch off", "switch on", "create"])
async def test_a_change_that_cannot_be_written_has_not_happened(
    keys: AccountKeys, store: FaultyStore, tokens: Tokens, clock: Clock, change: str
) -> None:
    """This holds now and after a restart."""
    key, secret = await keys.create("ci", None)
    if change == "switch on":
        await keys.toggle(key.key_id)
    before = list(keys.list())
    opened = await keys.lets_in(secret.reveal())
    store.fail(*KEY_WRITES, error=EmbeddedServerError("the disk is full"))
    changes = {
        "revoke": partial(keys.revoke, key.key_id),
        "create": partial(keys.create, "more", None),
    }
    with pytest.raises(EmbeddedServerError):
        await changes.get(change, partial(keys.toggle, key.key_id))()
    later = AccountKeys(store, tokens, OWN, new_key, clock=clock)
    await later.open()
    for those in (keys, later):
        assert await those.lets_in(secret.reveal()) == opened
        assert [(k.key_id, k.is_active) for k in those.list()] == [
            (k.key_id, k.is_active) for k in before
        ]
    store.mend()
    if change == "revoke":  # asked for again, it is done for good
        await keys.revoke(key.key_id)
        assert not await keys.lets_in(secret.reveal())
        assert list(await store.keys()) == []


def halt(store: FaultyStore, *, until: asyncio.Event) -> asyncio.Event:
    """Begin each change at once, and end it when it may; return what is set when one has begun."""
    begun = asyncio.Event()

    async def wait(*_: object) -> None:
        begun.set()
        await until.wait()

    store.before["put_key"] = store.after["remove_key"] = wait
    return begun


async def test_a_key_that_is_used_while_it_is_revoked_does_not_come_back(
    tokens: Tokens, clock: Clock
) -> None:
    store, may_end = FaultyStore(), asyncio.Event()
    keys = AccountKeys(store, tokens, OWN, new_key, clock=clock)
    key, secret = await keys.create("ci", None)
    begun = halt(store, until=may_end)
    revoking = asyncio.create_task(keys.revoke(key.key_id))
    await begun.wait()
    await keys.lets_in(secret.reveal())
    may_end.set()
    await revoking
    assert not await keys.lets_in(secret.reveal())
    assert list(await store.keys()) == []


async def test_changes_at_the_same_time_follow_each_other(tokens: Tokens, clock: Clock) -> None:
    store, may_end = FaultyStore(), asyncio.Event()
    keys = AccountKeys(store, tokens, OWN, new_key, clock=clock)
    key, secret = await keys.create("ci", None)
    begun = halt(store, until=may_end)
    changes = [asyncio.create_task(keys.toggle(key.key_id)) for _ in range(2)]
    changes.append(asyncio.create_task(keys.revoke(key.key_id)))
    changes.append(asyncio.create_task(keys.revoke(key.key_id)))
    await begun.wait()
    assert await keys.lets_in(secret.reveal())  # nothing is written yet
    clock.now += 5
    may_end.set()
    off, on, gone, again = await asyncio.gather(*changes, return_exceptions=True)
    assert isinstance(off, KeyRecord)
    assert isinstance(on, KeyRecord)
    assert (off.is_active, on.is_active) == (False, True)
    assert gone is None
    assert isinstance(again, UnknownApiKey)
    assert list(await store.keys()) == []


async def test_a_sign_in_gives_tokens_for_an_hour_and_for_a_month(
    keys: AccountKeys, clock: Clock
) -> None:
    pair = await keys.sign_in(OWN.reveal())
    assert jwt.decode(pair.access_token, options={"verify_signature": False})["exp"] == (
        clock.now + ACCESS_S
    )
    assert await keys.lets_in(pair.access_token)
    clock.now += ACCESS_S
    assert not await keys.lets_in(pair.access_token)
    renewed = await keys.renew(pair.refresh_token)
    assert await keys.lets_in(renewed.access_token)
    assert renewed.refresh_token != pair.refresh_token
    clock.now += REFRESH_S
    for token in (pair.refresh_token, "x", "a.b.c", ""):
        with pytest.raises(SignInRefused):
            await keys.renew(token)


async def test_each_token_is_good_for_its_own_purpose_alone(keys: AccountKeys) -> None:
    pair = await keys.sign_in(OWN.reveal())
    assert not await keys.lets_in(pair.refresh_token)
    with pytest.raises(SignInRefused):
        await keys.renew(pair.access_token)
    with pytest.raises(SignInRefused):
        await keys.sign_in(pair.access_token)


@pytest.mark.parametrize("end", ["revoke", "toggle", "expire"])
async def test_the_tokens_of_a_key_die_with_it(keys: AccountKeys, clock: Clock, end: str) -> None:
    key, secret = await keys.create("ci", clock.now + 60)
    pair = await keys.sign_in(secret.reveal())
    assert await keys.lets_in(pair.access_token)
    if end == "expire":
        clock.now += 60
    else:
        await (keys.revoke if end == "revoke" else keys.toggle)(key.key_id)
    assert not await keys.lets_in(pair.access_token)
    with pytest.raises(SignInRefused):
        await keys.renew(pair.refresh_token)
    with pytest.raises(SignInRefused, match="API key"):
        await keys.sign_in(secret.reveal())


async def test_the_tokens_of_an_older_own_key_are_worth_nothing(
    keys: AccountKeys, store: FaultyStore, tokens: Tokens, clock: Clock
) -> None:
    pair = await keys.sign_in(OWN.reveal())
    later = AccountKeys(store, tokens, Secret("lk_another"), new_key, clock=clock)
    assert not await later.lets_in(pair.access_token)


def forged(tokens: Tokens, clock: Clock, key_id: str) -> Iterator[str]:
    claims = {
        "iss": "lyceum-magic", "type": "access", "key": key_id, "jti": "1",
        "iat": int(clock.now), "exp": int(clock.now) + 60,
    }  # fmt: skip
    yield jwt.encode(claims, "another key of at least 256 bits, made up", "HS256")
    yield jwt.encode(claims, None, "none")
    good = tokens.pair(key_id).access_token
    head, body, signature = good.split(".")
    yield f"{head}.{body}."
    yield f"{head}.{body[:-2]}AA.{signature}"


async def test_a_forged_token_opens_nothing(
    keys: AccountKeys, tokens: Tokens, clock: Clock, tmp_path: Path
) -> None:
    own_id = keys.list()[0].key_id
    for token in forged(tokens, clock, own_id):
        assert not await keys.lets_in(token), token
    elsewhere = Tokens(Vault(tmp_path / "other.key"), clock=clock)
    assert not await keys.lets_in(elsewhere.pair(own_id).access_token)
    assert await keys.lets_in(tokens.pair(own_id).access_token)


# Secrets.


async def test_secrets_have_a_size_together() -> None:
    secrets = AccountSecrets(MemoryStore())
    large = "x" * MAX_VALUE_BYTES
    count = MAX_ALL_BYTES // MAX_VALUE_BYTES
    await secrets.put([NewSecret(f"N{number}", large) for number in range(count)])
    with pytest.raises(SecretsTooLarge, match=str(MAX_ALL_BYTES)):
        await secrets.put([NewSecret("SMALL", "y"), NewSecret("OTHER", "z")])
    assert len(await secrets.list()) == count
    # In place of a large one there is room.
    await secrets.put([NewSecret("N0", "y"), NewSecret("OTHER", "z")])
    assert (await secrets.values())["N0"] == "y"


async def test_an_unknown_secret_cannot_be_removed() -> None:
    with pytest.raises(UnknownSecret, match="nobody"):
        await AccountSecrets(MemoryStore()).remove("nobody")


def test_what_no_environment_can_hold_is_no_value() -> None:
    assert problem_of_value("") is None
    assert problem_of_value("é" * (MAX_VALUE_BYTES // 2)) is None
    for value in ("a\0b", "\ud800", "é" * MAX_VALUE_BYTES):
        problem = problem_of_value(value)
        assert problem
        assert value not in problem


def test_derived_keys_differ_by_vault_and_purpose(tmp_path: Path) -> None:
    one, other = Vault(tmp_path / "one"), Vault(tmp_path / "other")
    keys = {one.derived_key("a"), one.derived_key("b"), other.derived_key("a")}
    assert len(keys) == 3
    assert Vault(tmp_path / "one").derived_key("a") in keys
    assert all(len(key) == 32 for key in keys)


def test_threads_and_servers_that_come_first_together_have_one_key(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    for _ in range(50):
        vaults = [Vault(path), Vault(path)]
        all_there = threading.Barrier(8)

        def first_use(vault: Vault, barrier: threading.Barrier = all_there) -> bytes:
            barrier.wait(60)
            return vault.derived_key("a")

        with ThreadPoolExecutor(8) as threads:
            keys = set(threads.map(first_use, vaults * 4))
        assert keys == {Vault(path).derived_key("a")}
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(tmp_path.glob(".vault*")) == []
        path.unlink()
