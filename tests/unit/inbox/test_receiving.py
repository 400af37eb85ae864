"""A process that waits is told of each callback; one that cannot be told still has it kept."""

from __future__ import annotations

import socket
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

from lyceum_magic.callbacks.events import read
from lyceum_magic.inbox.receiving import Reception
from lyceum_magic.inbox.store import InboxStore

BODY = b'{"execution_id": "run-1", "status": "completed"}'


def receive(inbox: InboxStore) -> HTTPStatus:
    reception = Reception(inbox, "POST", "secret", [])
    assert reception.admit() is None
    assert reception.feed(BODY) is None
    return reception.finish()


def test_a_callback_that_comes_again_is_told_of_again(tmp_path: Path) -> None:
    """The receiver that kept it may have died before it told the process."""
    inbox = InboxStore(tmp_path)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as bell:
        bell.bind(("127.0.0.1", 0))
        bell.settimeout(60)
        inbox.register("secret", process="s", tag=None, poke_port=bell.getsockname()[1])
        address = inbox.find("secret")
        assert address is not None
        assert inbox.add(address, read(BODY), BODY)
        assert receive(inbox) is HTTPStatus.NO_CONTENT
        assert bell.recv(16) == b""
    assert len(inbox.arrivals("s")) == 1


def test_what_nobody_can_be_told_of_is_kept_all_the_same(tmp_path: Path) -> None:
    inbox = InboxStore(tmp_path)
    inbox.register("secret", process="s", tag="t", poke_port=0)  # which nothing can be sent to
    assert receive(inbox) is HTTPStatus.NO_CONTENT
    assert len(inbox.arrivals("s")) == 1


def test_an_address_of_a_process_that_has_gone_is_not_there_but_for_its_runs(
    tmp_path: Path,
) -> None:
    inbox = InboxStore(tmp_path)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as bell:
        bell.bind(("127.0.0.1", 0))
        port = bell.getsockname()[1]
        inbox.register("listening", process="s", tag=None, poke_port=port)
        inbox.register("run", process="s", tag="t", poke_port=port)
        assert Reception(inbox, "POST", "listening", []).admit() is None
    assert Reception(inbox, "POST", "listening", []).admit() is HTTPStatus.NOT_FOUND
    assert Reception(inbox, "POST", "run", []).admit() is None
