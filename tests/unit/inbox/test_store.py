"""Callbacks are kept once, for the process that waits, and not for ever."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lyceum_magic.callbacks.events import read
from lyceum_magic.inbox import store as inbox_module
from lyceum_magic.inbox.store import InboxStore, digest_of

BODY = b'{"execution_id": "run-1", "status": "completed"}'


@pytest.fixture
def inbox(tmp_path: Path) -> InboxStore:
    made = InboxStore(tmp_path)
    made.register("secret", process="s", tag="t", poke_port=9)
    return made


def add(inbox: InboxStore, callback_id: str, secret: str = "secret") -> bool:
    address = inbox.find(secret)
    assert address is not None
    return inbox.add(address, read(BODY, {"webhook-id": callback_id}), BODY)


def test_an_address_is_found_by_its_whole_secret(inbox: InboxStore) -> None:
    found = inbox.find("secret")
    assert found is not None
    assert (found.digest, found.process, found.tag, found.poke_port) == (
        digest_of("secret"), "s", "t", 9
    )  # fmt: skip
    assert [inbox.find(other) for other in ("", "secre", "secret ", "\ud800", "x" * 9999)] == (
        [None] * 5
    )


def test_arrivals_come_in_order_and_once(inbox: InboxStore) -> None:
    assert [add(inbox, name) for name in ("a", "b", "a", "c")] == [True, True, False, True]
    first, *others = inbox.arrivals("s")
    assert [arrival.event.id for arrival in (first, *others)] == ["a", "b", "c"]
    assert (first.tag, first.event.run_id) == ("t", "run-1")
    assert inbox.arrivals("s", after=first.number) == others
    assert inbox.arrivals("another") == []


def test_one_id_at_two_addresses_is_two_callbacks(inbox: InboxStore) -> None:
    inbox.register("other", process="s", tag=None, poke_port=9)
    assert add(inbox, "a")
    assert add(inbox, "a", "other")


def test_of_many_at_once_one_is_new(inbox: InboxStore, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda _: add(InboxStore(tmp_path), "a"), range(16)))
    assert sum(new) == 1


def test_another_process_may_take_a_run_over(inbox: InboxStore) -> None:
    add(inbox, "a")
    assert inbox.adopt("t", process="new", poke_port=10)
    assert not inbox.adopt("unknown", process="new", poke_port=10)
    assert [arrival.event.id for arrival in inbox.arrivals_of_run("t")] == ["a"]
    assert inbox.arrivals("s") == []
    found = inbox.find("secret")
    assert found is not None
    assert found.poke_port == 10


def test_a_process_that_ends_leaves_the_addresses_of_its_runs(inbox: InboxStore) -> None:
    inbox.register("listening", process="s", tag=None, poke_port=9)
    inbox.retire("s")
    assert inbox.find("listening") is None
    assert inbox.find("secret") is not None


def test_old_addresses_go_with_what_came_there(tmp_path: Path) -> None:
    now = [1000.0]
    inbox = InboxStore(tmp_path, now=lambda: now[0])
    inbox.register("secret", process="s", tag="t", poke_port=9)
    address = inbox.find("secret")
    assert address is not None
    add(inbox, "a")
    now[0] += 2 * 86400
    inbox.prune(keep_days=3)
    assert len(inbox.arrivals("s")) == 1
    inbox.prune(keep_days=1)
    assert (inbox.find("secret"), inbox.arrivals("s")) == (None, [])
    assert not inbox.add(address, read(BODY), BODY), "a request that was under way"


def test_an_old_address_stays_while_a_process_waits_there(tmp_path: Path) -> None:
    now = [1000.0]
    inbox = InboxStore(tmp_path, now=lambda: now[0])
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as bell:
        bell.bind(("127.0.0.1", 0))
        inbox.register("secret", process="s", tag=None, poke_port=bell.getsockname()[1])
        now[0] += 40 * 86400
        inbox.prune()
        assert inbox.find("secret") is not None
    inbox.prune()
    assert inbox.find("secret") is None


def test_a_run_is_forgotten_with_what_came_for_it(inbox: InboxStore) -> None:
    inbox.register("other", process="s", tag="u", poke_port=9)
    inbox.register("listening", process="s", tag=None, poke_port=9)
    add(inbox, "a")
    add(inbox, "b", "other")
    inbox.forget(["t", "unknown"])
    assert inbox.find("secret") is None
    assert [arrival.event.id for arrival in inbox.arrivals("s")] == ["b"]
    assert inbox.find("listening") is not None


def test_one_address_fills_no_disk(inbox: InboxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "KEEP_CALLBACKS", 3)
    inbox.register("other", process="s", tag=None, poke_port=9)
    add(inbox, "kept", "other")
    for number in range(6):
        add(inbox, f"n{number}")
    assert [arrival.event.id for arrival in inbox.arrivals("s")] == ["kept", "n3", "n4", "n5"]


def test_what_cannot_be_read_keeps_nothing_else_from_being_read(
    inbox: InboxStore, caplog: pytest.LogCaptureFixture
) -> None:
    address = inbox.find("secret")
    assert address is not None
    event = read(BODY)
    inbox.add(address, replace(event, id="i" * 300), BODY)
    inbox.add(address, replace(event, id="bad"), b"no callback")
    add(inbox, "good")
    assert [len(arrival.event.id) for arrival in inbox.arrivals("s")] == [300, 4]
    assert "is left out" in caplog.text


def test_what_is_open_to_others_is_closed(tmp_path: Path) -> None:
    InboxStore(tmp_path)
    file = tmp_path / "callbacks.db"
    tmp_path.chmod(0o777)
    file.chmod(0o666)
    InboxStore(tmp_path)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path, file)] == [0o700, 0o600]


def test_what_is_not_ones_own_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    InboxStore(tmp_path / "mine")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "callbacks.db").symlink_to(tmp_path / "mine" / "callbacks.db")
    with pytest.raises(OSError, match="symbolic link"):
        InboxStore(tmp_path / "linked")
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        InboxStore(tmp_path / "mine")
