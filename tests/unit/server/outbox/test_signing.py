"""The secrets that sign callbacks: made once, kept, and replaced without a gap."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lyceum_magic.callbacks import verify
from lyceum_magic.exceptions import EmbeddedServerError, InvalidCallback
from lyceum_magic.protocol.callbacks import SIGNATURE_HEADER
from lyceum_magic.server.outbox.signing import OVERLAP_S, Signing
from lyceum_magic.server.stores.base import StoredSigningSecret, StoreUnavailable
from lyceum_magic.server.stores.memory import MemoryStore
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault
from tests.tools.stores import FaultyStore

pytestmark = pytest.mark.anyio

BODY = b'{"execution_id":"run"}'


def is_signed_by(secret: StoredSigningSecret, headers: dict[str, str], now: float) -> bool:
    try:
        event = verify(BODY, headers, secret.value, now=lambda: now)
    except InvalidCallback:
        return False
    return event.id == "msg_1"


async def test_the_first_secret_is_made_once_and_kept() -> None:
    store = FaultyStore()
    signing = Signing(store)
    found = await asyncio.gather(*(signing.secrets(1.0) for _ in range(5)))
    assert store.asked["put_signing_secrets"].count == 1
    assert all(each == found[0] for each in found)
    (secret,) = found[0]
    assert len(base64.b64decode(secret.value.removeprefix("whsec_"))) == 32
    assert await Signing(store).secrets(2.0) == found[0]


async def test_headers_are_signed_without_a_read_for_each() -> None:
    store = FaultyStore()
    signing = Signing(store)
    headers = [await signing.headers("msg_1", BODY, 1000.9 + n) for n in range(5)]
    assert store.asked["signing_secrets"].count == 1
    (secret,) = await signing.secrets(0.0)
    assert headers[0]["webhook-timestamp"] == "1000"
    assert all(is_signed_by(secret, each, 1000.0) for each in headers)


async def test_after_a_change_both_sign_for_a_day_the_new_one_first() -> None:
    store = MemoryStore()
    signing = Signing(store)
    (old,) = await signing.secrets(0.0)
    new, retiring = await signing.rotate(100.0)
    assert retiring.value == old.value
    for signs in (signing, Signing(store)):  # also after a restart
        headers = await signs.headers("msg_1", BODY, 101.0)
        assert is_signed_by(old, headers, 101.0)
        first_signature = headers[SIGNATURE_HEADER].split(" ")[0]
        assert is_signed_by(new, headers | {SIGNATURE_HEADER: first_signature}, 101.0)
        later = 101.0 + OVERLAP_S
        headers = await signs.headers("msg_1", BODY, later)
        assert not is_signed_by(old, headers, later)
        assert is_signed_by(new, headers, later)


async def test_however_often_it_is_changed_two_sign() -> None:
    store = MemoryStore()
    signing = Signing(store)
    (present,) = await signing.secrets(0.0)
    for now in (1.0, 2.0, 3.0):
        before, (present, *retiring) = present, await signing.rotate(now)
        assert retiring == [replace(before, retires_at=now + OVERLAP_S)]
    assert await store.signing_secrets() == [present, *retiring]


async def test_where_the_key_is_lost_a_change_makes_one_that_signs(tmp_path: Path) -> None:
    path, key = tmp_path / "runs.sqlite3", tmp_path / "vault.key"
    store = SqliteStore(path, Vault(key))
    await store.open()
    (old,) = await Signing(store).secrets(0.0)
    await store.close()
    key.unlink()

    store = SqliteStore(path, Vault(key))
    await store.open()
    signing = Signing(store)
    with pytest.raises(EmbeddedServerError, match="%lyceum callbacks secret --rotate"):
        await signing.headers("msg_1", BODY, 1.0)
    (new,) = await signing.rotate(2.0)
    assert new.value != old.value
    for signs in (signing, Signing(store)):  # also after a restart
        assert is_signed_by(new, await signs.headers("msg_1", BODY, 3.0), 3.0)
    await store.close()


async def test_where_the_disk_cannot_be_read_a_change_loses_none() -> None:
    class Unreadable(MemoryStore):
        async def signing_secrets(self) -> Sequence[StoredSigningSecret]:
            raise StoreUnavailable("the disk fails")

    store = Unreadable()
    with pytest.raises(StoreUnavailable):
        await Signing(store).rotate(1.0)
    assert await MemoryStore.signing_secrets(store) == ()


async def test_a_change_under_a_clock_that_went_back_outlives_a_restart(tmp_path: Path) -> None:
    for store in (MemoryStore(), SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "key"))):
        await store.open()
        signing = Signing(store)
        (old,) = await signing.secrets(1000.0)
        new, _ = await signing.rotate(500.0)
        assert new != old
        assert (await Signing(store).secrets(501.0))[0] == new
        await store.close()
