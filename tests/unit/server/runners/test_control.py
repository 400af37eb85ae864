"""The channel between a server and a supervisor: connections, the lock and the end file."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyceum_magic.server.runners import control
from lyceum_magic.server.runners.control import EndFile, Servers, order_sentence


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a supervisor works in the run's folder
    return tmp_path


@pytest.fixture
def first() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_notice_reaches_every_server_and_an_order_comes_from_one(
    folder: Path, first: tuple[socket.socket, socket.socket]
) -> None:
    with control.listening(folder) as listener:
        servers = Servers(first[1], listener)
        with control.connect(folder) as later:
            accepted = servers.accept()
            assert accepted is not None
            servers.tell(control.GROWN)
            assert (first[0].recv(8), later.recv(8)) == (control.GROWN, control.GROWN)
            later.send(control.STOP)
            assert servers.orders(accepted) == control.STOP
        assert servers.orders(accepted) == b""
        assert servers.descriptors == [first[1].fileno()]


def test_a_server_that_is_gone_or_does_not_read_stops_nothing(
    folder: Path, first: tuple[socket.socket, socket.socket]
) -> None:
    with control.listening(folder) as listener:
        servers = Servers(first[1], listener)
        for _ in range(100_000):
            servers.tell(control.GROWN)
        first[0].close()
        servers.tell(control.GROWN)
        assert servers.orders(first[1].fileno()) == b""


def test_connections_beyond_the_limit_are_closed_at_once(
    folder: Path, first: tuple[socket.socket, socket.socket]
) -> None:
    with control.listening(folder) as listener:
        servers = Servers(first[1], listener)
        opened = []
        try:
            while True:
                opened.append(control.connect(folder))
                if servers.accept() is None:
                    break
            opened[-1].setblocking(True)
            assert opened[-1].recv(1) == b""
            assert len(servers.descriptors) == len(opened) == 32
        finally:
            for connection in opened:
                connection.close()
            servers.close()


def test_a_run_is_supervised_for_as_long_as_a_copy_of_its_lock_is_open(folder: Path) -> None:
    assert not control.is_supervised(folder)
    with control.locked(folder) as lock:
        copy = os.dup(lock)
    assert control.is_supervised(folder)
    os.close(copy)
    assert not control.is_supervised(folder)


@pytest.mark.parametrize("taken", ["exit.json", "exit.draft"])
@pytest.mark.parametrize("kind", ["nothing", "folder", "link", "gone"])
def test_the_end_is_written_whatever_the_program_put_in_its_place(
    folder: Path, taken: str, kind: str
) -> None:
    end = EndFile()
    place = folder / taken
    if kind != "nothing":
        place.unlink(missing_ok=True)
    if kind == "folder":
        (place / "full").mkdir(parents=True)
    elif kind == "link":
        place.symlink_to("/nowhere")
    end.put('{"reason": "exited"}')
    assert json.loads((folder / "exit.json").read_text()) == {"reason": "exited"}
    assert not (folder / "exit.json").is_symlink()


def test_a_path_of_any_length_can_be_listened_on(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a-long-name" * 5] * 4)
    folder.mkdir(parents=True)
    with control.listening(folder), control.connect(folder):
        pass


def test_facts_name_this_process_and_its_mark(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(control.SUPERVISOR_ID, "mark")
    control.write_facts(12.5, memory_group=None)
    facts = json.loads((folder / control.FACTS).read_text())
    assert facts == {"memory_group": None, "pid": os.getpid(), "id": "mark", "started_at": 12.5}


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("timeout", "the run exceeded its time limit of 1.5 s"),
        ("aborted", "the run was aborted"),
        ("stopped", "the run was stopped"),
        ("exited", ""),
    ],
)
def test_an_order_has_its_sentence(reason: str, sentence: str) -> None:
    assert order_sentence(reason, 1.5) == sentence
