"""What a supervisor writes down, whatever happens to the work in the engine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.server.output.spool import read_spool
from lyceum_magic.server.runners.base import Refusal, RunEnd
from lyceum_magic.server.runners.control import KILL, STARTED, STOP, Servers
from lyceum_magic.server.runners.engine.supervisor import (
    EngineAssignment,
    EngineSupervisor,
    Events,
)

LIMIT_S = 60


class FakeWork:
    """Work whose program is a function; it notes what is asked of it."""

    def __init__(self, program: Callable[[Events], tuple[int, str]]) -> None:
        self._program = program
        self.asked: list[str] = []
        self.ended = threading.Event()
        self.kill_fails = self.remove_fails = False

    def run(self, events: Events) -> tuple[int, str]:
        return self._program(events)

    def stop(self) -> None:
        self.asked.append("stop")
        self.ended.set()

    def kill(self) -> None:
        self.asked.append("kill")
        if self.kill_fails:
            raise RuntimeError("the engine is away")
        self.ended.set()

    def remove(self) -> None:
        self.asked.append("remove")
        if self.remove_fails:
            raise RuntimeError("the engine is away")


class Server:
    """The server's end: it starts runs, and gives the orders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.orders, self.control = socket.socketpair()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "control.sock"))
        self.listener.listen()

    def supervise(
        self, work: FakeWork, *, timeout_s: float = LIMIT_S, secrets: Sequence[str] = ()
    ) -> RunEnd:
        assignment = EngineAssignment(
            run_id="id",
            kind="image",
            environment={f"SECRET_{number}": value for number, value in enumerate(secrets)},
            timeout_s=timeout_s,
            stop_grace_s=2.0,
            work={},
        )
        servers = Servers(self.control, self.listener)
        EngineSupervisor(assignment, work, servers).supervise()
        return RunEnd(**json.loads((self.folder / "exit.json").read_text()))

    def output(self) -> list[tuple[str, bytes]]:
        records = read_spool(self.folder / "spool", 0)
        return [(record.stream, record.data) for record in records]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)  # a supervisor works in the run's folder
    server = Server(tmp_path)
    yield server
    for end in (server.orders, server.control, server.listener):
        end.close()


def test_output_and_the_end_are_written_and_the_engine_is_left_empty(server: Server) -> None:
    def program(events: Events) -> tuple[int, str]:
        events.started()
        events.output("stdout", b"out")
        events.output("stderr", b"half a \xe2\x82")  # is completed by nothing
        return 3, "it ended with 3"

    work = FakeWork(program)
    end = server.supervise(work)
    assert (end.reason, end.return_code, end.error) == ("exited", 3, "it ended with 3")
    assert end.started_at is not None
    assert end.started_at <= end.finished_at
    assert b"".join(data for stream, data in server.output() if stream == "stderr") == (
        b"half a \xe2\x82"
    )
    assert work.asked == ["remove"]
    assert server.orders.recv(1) == STARTED


def test_a_refusal_brings_its_output(server: Server) -> None:
    def program(events: Events) -> tuple[int, str]:
        raise Refusal("it cannot be", b"because\n")

    end = server.supervise(FakeWork(program))
    assert (end.reason, end.error, end.started_at) == ("refused", "it cannot be", None)
    assert server.output() == [("stderr", b"because\n")]


def test_an_engine_that_fails_is_named_and_logged(server: Server) -> None:
    def program(events: Events) -> tuple[int, str]:
        events.started()
        raise RuntimeError("gone\nwith details " + "\u20ac" * 5000)

    end = server.supervise(FakeWork(program))
    assert (end.reason, end.return_code) == ("lost", None)
    assert end.error.startswith("the container engine failed: gone with details")
    assert "RuntimeError" in (server.folder / "supervisor.log").read_text()


@pytest.mark.parametrize("before", ["", "a" * 590])  # the sentence is cut within the secret
@pytest.mark.parametrize("kind", [Refusal, RuntimeError])
def test_the_end_is_written_down_without_the_secrets_of_the_run(
    server: Server, kind: type[Exception], before: str
) -> None:
    """Whatever the account's are by the time that a server reads it."""

    def program(events: Events) -> tuple[int, str]:
        raise kind(f"{before}hunter2-hunter2 is no command")

    end = server.supervise(FakeWork(program), secrets=["hunter2-hunter2"])
    assert "hunter" not in end.error
    assert "***" in end.error or before


def until_ended(work: list[FakeWork]) -> Callable[[Events], tuple[int, str]]:
    def program(events: Events) -> tuple[int, str]:
        events.started()
        assert work[0].ended.wait(LIMIT_S)
        return 143, ""

    return program


@pytest.mark.parametrize(
    ("order", "asked", "reason", "code"),
    [(STOP, "stop", "stopped", 143), (KILL, "kill", "aborted", None)],
)
def test_an_order_is_passed_on(
    server: Server, order: bytes, asked: str, reason: str, code: int | None
) -> None:
    works: list[FakeWork] = []
    works.append(FakeWork(until_ended(works)))
    server.orders.send(order)
    end = server.supervise(works[0])
    assert works[0].asked == [asked, "remove"]
    assert (end.reason, end.return_code) == (reason, code)


def test_the_time_limit_is_a_stop(server: Server) -> None:
    works: list[FakeWork] = []
    works.append(FakeWork(until_ended(works)))
    end = server.supervise(works[0], timeout_s=0.1)
    assert works[0].asked == ["stop", "remove"]
    assert (end.reason, end.return_code) == ("timeout", None)


def test_an_order_that_the_engine_does_not_take_ends_the_run(server: Server) -> None:
    """It is unknown whether the run goes on, and every client that waits is told."""
    works: list[FakeWork] = []
    works.append(FakeWork(until_ended(works)))
    works[0].kill_fails = works[0].remove_fails = True
    server.orders.send(KILL)
    end = server.supervise(works[0])
    works[0].ended.set()
    assert (end.reason, end.error) == (
        "lost",
        "the container engine failed: the engine is away",
    )


def test_the_end_of_a_server_is_not_the_end_of_the_run(server: Server) -> None:
    came_back = threading.Event()

    def program(events: Events) -> tuple[int, str]:
        events.started()
        server.orders.close()
        with socket.socket(socket.AF_UNIX) as later:
            later.connect(str(server.folder / "control.sock"))
            assert later.recv(1) == STARTED
            came_back.set()
        return 0, ""

    assert server.supervise(FakeWork(program)).reason == "exited"
    assert came_back.is_set()


def test_a_spool_that_cannot_be_written_kills(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[FakeWork] = []

    def program(events: Events) -> tuple[int, str]:
        events.started()
        events.output("stdout", b"x" * 100)
        assert works[0].ended.wait(LIMIT_S)
        events.output("stdout", b"after the failure")
        return 137, ""

    works.append(FakeWork(program))
    (server.folder / "spool").symlink_to("/dev/full")
    end: Any = server.supervise(works[0])
    assert works[0].asked == ["kill", "remove"]
    assert (end.reason, end.return_code) == ("lost", None)
    assert "is full: make room on it" in end.error
