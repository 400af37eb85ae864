"""The watcher delivers every callback, even if the store could not be read at first."""

from __future__ import annotations

import queue
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from lyceum_magic.callbacks.events import read
from lyceum_magic.inbox import watcher as watcher_module
from lyceum_magic.inbox.store import Arrival, InboxStore
from lyceum_magic.inbox.watcher import InboxWatcher
from tests.tools.waiting import LIMIT_S, eventually

BODY = b'{"execution_id": "run-1", "status": "completed"}'


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


def test_an_inbox_that_could_not_be_read_is_read_again(
    portal: BlockingPortal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watcher_module, "AGAIN_S", 0.02)
    came: queue.SimpleQueue[Arrival] = queue.SimpleQueue()

    async def deliver(arrival: Arrival) -> None:
        came.put(arrival)

    box = InboxWatcher(tmp_path, "s", deliver)
    life, _ = portal.start_task(box.live)
    try:
        address = portal.call(box.new_address, None, None)
        post(address)
        assert came.get(timeout=LIMIT_S).event.run_id == "run-1"
        path = tmp_path / "callbacks.db"
        kept = path.read_bytes()
        path.write_bytes(b"no database at all" * 100)
        box._seen = 0  # so that there is something to come
        portal.call(box._poked.set)
        eventually(lambda: "cannot be read now" in caplog.text, "a failed look")
        path.write_bytes(kept)
        assert came.get(timeout=60).event.run_id == "run-1"
    finally:
        life.cancel()


def test_what_came_before_a_run_was_adopted_is_handed_on_once(
    portal: BlockingPortal, tmp_path: Path
) -> None:
    came: queue.SimpleQueue[Arrival] = queue.SimpleQueue()

    async def deliver(arrival: Arrival) -> None:
        came.put(arrival)

    inbox = InboxStore(tmp_path)
    box = InboxWatcher(tmp_path, "s", deliver)
    life, _ = portal.start_task(box.live)

    def keep(secret: str, tag: str) -> None:
        inbox.register(secret, process="gone", tag=tag, poke_port=0)
        address = inbox.find(secret)
        assert address is not None
        inbox.add(address, read(BODY), BODY)

    try:
        keep("first", "before")
        post(portal.call(box.new_address, None, None))
        numbers = [came.get(timeout=LIMIT_S).number]
        keep("second", "after")
        assert portal.call(box.adopt, "before")
        assert portal.call(box.adopt, "after")
        numbers += [came.get(timeout=LIMIT_S).number for _ in range(2)]
        post(portal.call(box.new_address, None, None))
        numbers.append(came.get(timeout=LIMIT_S).number)
        assert numbers == [2, 1, 3, 4]
    finally:
        life.cancel()


def test_many_pokes_are_one_look(
    portal: BlockingPortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "PAUSE_S", 600)
    looks: list[int] = []

    async def deliver(arrival: Arrival) -> None: ...

    def look(process: str, *, after: int) -> list[Arrival]:
        looks.append(after)
        return []

    box = InboxWatcher(tmp_path, "s", deliver)
    life, _ = portal.start_task(box.live)
    try:
        monkeypatch.setattr(box._inbox, "arrivals", look)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as poker:
            poker.sendto(b"", ("127.0.0.1", box._port))
            eventually(lambda: looks and not box._poked.is_set(), "the first look")
            for _ in range(20):
                poker.sendto(b"", ("127.0.0.1", box._port))
        eventually(box._poked.is_set, "a poke that waits")
        assert len(looks) == 1
    finally:
        life.cancel()


def post(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data=BODY, method="POST")
    with opener.open(request, timeout=LIMIT_S) as answer:
        assert answer.status == 204
