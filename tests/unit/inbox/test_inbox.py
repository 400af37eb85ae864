"""The public base of this Jupyter: the first setting counts, and must be a URL."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from concurrent import futures

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from lyceum_magic.exceptions import OptionError
from lyceum_magic.inbox.inbox import (
    BASE_VARIABLE,
    HUB_VARIABLE,
    Inbox,
    callback_folder,
    public_base,
)
from lyceum_magic.inbox.jupyter_servers import announce
from tests.tools.waiting import LIMIT_S

A, B, C = ("https://a.example/", "https://b.example/user/ann/", "https://c.example")


@pytest.mark.parametrize(
    ("setting", "environ", "base"),
    [
        ("", {}, None),
        (A, {BASE_VARIABLE: B, HUB_VARIABLE: C}, A),
        ("", {BASE_VARIABLE: B, HUB_VARIABLE: C}, B),
        ("", {BASE_VARIABLE: "", HUB_VARIABLE: C}, C),
        ("", {HUB_VARIABLE: ""}, None),
        ("http://127.0.0.1:8888", {}, "http://127.0.0.1:8888"),
    ],
)
def test_the_base(setting: str, environ: dict[str, str], base: str | None) -> None:
    assert public_base(setting, environ) == base


@pytest.mark.parametrize(
    "setting",
    ["me.example", "http://me.example", "https://u:p@me.example", "https://me.example/?token=x",
     "https://me.example/#x", "ftp://me.example", "https://"],
)  # fmt: skip
def test_what_is_no_base_is_refused_in_a_sentence(setting: str) -> None:
    with pytest.raises(OptionError, match="callback_base_url is where others reach this Jupyter"):
        public_base(setting, {})


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


def test_a_mailbox_that_has_ended_is_opened_again(portal: BlockingPortal) -> None:
    inbox = Inbox(portal, "s", lambda tag: None)
    arrivals = inbox.listen()
    first, _ = inbox.listening_address()
    assert inbox.listening_address()[0] == first
    assert inbox._task is not None
    assert inbox._watcher is not None

    tasks = inbox._watcher._tasks

    async def fail() -> None:
        raise RuntimeError("of the mailbox")

    async def end() -> None:
        tasks.start_soon(fail)

    portal.call(end)
    futures.wait([inbox._task], LIMIT_S)
    second, _ = inbox.listening_address()
    assert second != first
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(second, data=b'{"execution_id": "run-1"}', timeout=LIMIT_S).close()
    arrival = arrivals.get(timeout=LIMIT_S)
    assert arrival is not None
    assert arrival.event.run_id == "run-1"
    inbox.close()


def test_a_public_address_is_given_where_a_jupyter_server_receives(portal: BlockingPortal) -> None:
    inbox = Inbox(portal, "s", lambda tag: None)
    assert inbox.receiver() == "by this kernel, from this machine alone"
    with pytest.raises(OptionError, match="install lyceum-magic where Jupyter itself"):
        inbox.listening_address(A)
    announce(callback_folder(), None)
    address, base = inbox.listening_address(A)
    assert address.startswith(f"{A}lyceum/callbacks/")
    assert base == A
    assert inbox.receiver().startswith("by a Jupyter server from elsewhere")
    inbox.close()
