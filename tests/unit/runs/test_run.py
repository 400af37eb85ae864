"""`Run` against a scripted server: starts, ends, aborts, and what other processes left."""

from __future__ import annotations

import asyncio
import copy
import errno
import pickle
import sqlite3
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest

from lyceum_magic.client.api import Client, StartUnknown
from lyceum_magic.exceptions import (
    LyceumError,
    NotAuthorised,
    RequestRefused,
    RunAborted,
    RunFailed,
    RunLost,
    RunTimedOut,
    ServerError,
    UnknownRun,
)
from lyceum_magic.folders import journal_folder
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output, Progress
from lyceum_magic.protocol.limits import TAG_KEY
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.runs.run import Run
from lyceum_magic.runs.workspace import Workspace
from tests.tools.wire_server import (
    STREAM_SECRET,
    Reply,
    Request,
    WireServer,
    frame,
    hang_up,
    json_answer,
    record,
    refusal,
    started,
    stream,
)

REQUEST = StartPython(code="print(1)", execution_type="cpu")
END = Finished(State.COMPLETED, 0)
SECRET_PATH = f"{paths.stream('run')}/{STREAM_SECRET}"
LIMIT_S = 60


def submit(workspace: Workspace) -> Run:
    return workspace.submit(workspace.client(), REQUEST)


def events(*events: Output | Progress | Finished) -> list[bytes]:
    return [frame(event, str(number)) for number, event in enumerate(events, 1)]


def tag_of(wire: WireServer) -> str:
    (start,) = wire.asked("POST", paths.START_PYTHON)
    return str(start.json["metadata"][TAG_KEY])


def holding(wire: WireServer, member: str) -> Reply:
    """An answer with one run that carries the tag of the start that came."""

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        runs = [
            record("other", metadata={TAG_KEY: "another's"}),
            record("odd", metadata=None),
            record("run", metadata={TAG_KEY: tag_of(wire)}),
        ]
        await json_answer({member: runs} if member else runs)(request, writer)

    return reply


# From start to end.


@pytest.mark.usefixtures("cloud")
def test_a_run_tells_and_keeps_all_of_it(wire: WireServer, workspace: Workspace) -> None:
    said = [Output("a\n"), Output("e\n", "stderr"), Output("b\n"), END]
    wire.on("POST", SECRET_PATH, stream(*events(*said)))
    run = submit(workspace)
    assert run.result(LIMIT_S) is run
    assert (run.id, run.text, run.state, run.return_code) == ("run", "a\ne\nb\n", "completed", 0)
    assert [(out["name"], out["text"]) for out in run.outputs] == [
        ("stdout", "a\n"),
        ("stderr", "e\n"),
        ("stdout", "b\n"),
    ]
    assert workspace.history.entries()[0].is_final
    assert STREAM_SECRET not in f"{run!r}{workspace.history.entries()!r}"


@pytest.mark.parametrize(
    ("end", "kind", "reason"),
    [
        (Finished(State.FAILED, 3), RunFailed, "exit code 3"),
        (Finished(None, 1), RunFailed, "exit code 1"),
        (Finished(None, None, "no capacity"), RunFailed, "no capacity"),
        (Finished(State.FAILED, None, "limit", timed_out=True), RunTimedOut, "limit"),
        (Finished(State.ABORTED), RunAborted, "aborted"),
        (Finished(State.CANCELLED), RunAborted, "cancelled"),
        (Finished(State.SYSTEM_FAILURE, None, "node lost"), RunLost, "node lost"),
    ],
)
@pytest.mark.usefixtures("cloud")
def test_each_end_has_its_exception(
    wire: WireServer, workspace: Workspace, end: Finished, kind: type[RunFailed], reason: str
) -> None:
    wire.on("POST", SECRET_PATH, stream(*events(end)))
    run = submit(workspace)
    with pytest.raises(kind, match=reason) as caught:
        run.result(LIMIT_S)
    assert type(caught.value) is kind
    assert (caught.value.run_id, caught.value.return_code) == ("run", end.return_code)
    assert caught.value.state == run.state == run.wait()


@pytest.mark.usefixtures("cloud")
def test_a_wait_with_a_limit_leaves_the_run_alone(wire: WireServer, workspace: Workspace) -> None:
    wire.on("POST", SECRET_PATH, stream(hold=asyncio.Event()))
    run = submit(workspace)
    for wait in (run.wait, run.wait_callback):
        with pytest.raises(TypeError, match="a number of seconds or None, not 'x'"):
            wait("x")  # type: ignore[arg-type]
    with pytest.raises(TimeoutError, match="has not ended within"):
        run.wait(0.01)
    assert not wire.asked("POST", paths.abort("run"))


# Starts.


@pytest.mark.usefixtures("cloud")
def test_the_run_is_in_the_journal_before_it_is_sent(
    wire: WireServer, workspace: Workspace
) -> None:
    held = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        loops.append(asyncio.get_running_loop())
        await held.wait()
        await started(wire)(request, writer)

    wire.on("POST", paths.START_PYTHON, slow)
    wire.on("POST", SECRET_PATH, stream(*events(END)))
    run, request = workspace.new_run(workspace.client(), REQUEST)
    run.begin(request)
    until(lambda: loops)
    (entry,) = workspace.history.entries()
    assert (entry.run_id, entry.state, entry.tag) == (None, "pending", tag_of(wire))
    loops[0].call_soon_threadsafe(held.set)
    run.result(LIMIT_S)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("trouble", [hang_up, refusal(500), refusal(502)])
@pytest.mark.parametrize("place", [paths.WORKLOADS, paths.HISTORY])
@pytest.mark.usefixtures("cloud")
def test_a_start_whose_reply_was_lost_is_found_by_its_tag(
    wire: WireServer, workspace: Workspace, trouble: Reply, place: str
) -> None:
    wire.on("POST", paths.START_PYTHON, trouble)
    wire.on("GET", paths.WORKLOADS, json_answer([]))
    wire.on("GET", paths.HISTORY, json_answer({"executions": []}))
    wire.on("GET", place, holding(wire, "executions" if place == paths.HISTORY else ""))
    wire.on("POST", paths.stream("run"), stream(*events(Output("found\n"), END)))
    assert submit(workspace).result(LIMIT_S).text == "found\n"
    assert len(wire.asked("POST", paths.START_PYTHON)) == 1


@pytest.mark.parametrize(
    ("trouble", "kind"), [(hang_up, LyceumError), (refusal(500, "later"), ServerError)]
)
@pytest.mark.usefixtures("cloud")
def test_a_start_that_cannot_be_found_is_an_error_and_not_sent_again(
    wire: WireServer, workspace: Workspace, trouble: Reply, kind: type[LyceumError]
) -> None:
    wire.on("POST", paths.START_PYTHON, trouble)
    wire.on("GET", paths.WORKLOADS, json_answer([record("other", metadata={TAG_KEY: "x"})]))
    wire.on("GET", paths.HISTORY, json_answer({"executions": []}))
    with pytest.raises(kind):
        submit(workspace)
    assert len(wire.asked("POST", paths.START_PYTHON)) == 1
    (entry,) = workspace.history.entries()
    assert (entry.run_id, entry.is_final) == (None, True)


@pytest.mark.parametrize(
    ("refusal_", "kind", "state"),
    [
        (refusal(401), NotAuthorised, "system_failure"),
        (refusal(422, "not like this"), RequestRefused, "failed"),
        (refusal(503, "none here"), ServerError, "system_failure"),
    ],
)
@pytest.mark.usefixtures("cloud")
def test_a_start_that_was_refused_is_not_looked_for(
    wire: WireServer, workspace: Workspace, refusal_: Reply, kind: type[LyceumError], state: str
) -> None:
    wire.on("POST", paths.START_PYTHON, refusal_)
    with pytest.raises(kind):
        submit(workspace)
    assert not wire.asked("GET", paths.WORKLOADS)
    assert workspace.history.entries()[0].state == state


# Aborts.


@pytest.mark.usefixtures("cloud")
def test_an_abort_is_confirmed_by_the_runs_end(wire: WireServer, workspace: Workspace) -> None:
    wire.on("POST", SECRET_PATH, stream(*events(Output("a")), cut=True),
            stream(*events(Finished(State.ABORTED, None, "aborted"))))  # fmt: skip
    wire.on("POST", paths.abort("run"), json_answer({"status": "aborted"}))
    assert submit(workspace).abort() is State.ABORTED


@pytest.mark.usefixtures("cloud")
def test_an_abort_that_was_not_heard_is_asked_for_again(
    wire: WireServer, workspace: Workspace
) -> None:
    said = asyncio.Event()

    async def heard(request: Request, writer: asyncio.StreamWriter) -> None:
        said.set()
        await json_answer({"status": "aborted"})(request, writer)

    async def held(request: Request, writer: asyncio.StreamWriter) -> None:
        await stream(hold=said)(request, writer)

    wire.on("POST", SECRET_PATH, held, stream(*events(Finished(State.ABORTED))))
    wire.on("POST", paths.abort("run"), hang_up, refusal(503), heard)
    run = submit(workspace)
    run.request_abort("stopped by its Stop button")
    with pytest.raises(RunAborted, match="stopped by its Stop button"):
        run.result(LIMIT_S)
    assert len(wire.asked("POST", paths.abort("run"))) == 3


@pytest.mark.usefixtures("cloud")
def test_a_run_that_could_not_be_started_is_not_aborted(
    wire: WireServer, workspace: Workspace
) -> None:
    wire.on("POST", paths.START_PYTHON, refusal(402, "no credits"))
    run, request = workspace.new_run(workspace.client(), REQUEST)
    run.begin(request)
    run.request_abort("interrupted")
    with pytest.raises(LyceumError, match="no credits"):
        run.wait(LIMIT_S)
    workspace.history.entries()  # whatever the loop had still to do is done
    assert [request.path for request in wire.requests if "abort" in request.path] == []


# Runs that other processes left.


@pytest.mark.usefixtures("cloud")
def test_a_later_process_goes_on_behind_the_last_event(
    wire: WireServer, workspace: Workspace
) -> None:
    whole = events(Output("a\n"), Output("b\n"), END)
    wire.on("POST", SECRET_PATH, stream(whole[0], hold=asyncio.Event()))
    first = Workspace()
    run = submit(first)
    until(lambda: run.text == "a\n")
    first.close()
    wire.on("POST", SECRET_PATH, stream(*whole[1:]))
    again = workspace.attach("last")
    assert again.result(LIMIT_S).text == "a\nb\n"
    assert wire.asked("POST", SECRET_PATH)[-1].headers["last-event-id"] == "1"


@pytest.mark.usefixtures("cloud")
def test_a_later_process_writes_nothing_twice_where_there_are_no_ids(
    wire: WireServer, workspace: Workspace
) -> None:
    whole = [frame(Output("a\n")), frame(Output("b\n")), frame(END)]
    wire.on("POST", SECRET_PATH, stream(whole[0], hold=asyncio.Event()))
    wire.on("GET", paths.record("run"), json_answer(record(combined_output="a\nb\n")))
    first = Workspace()
    run = submit(first)
    until(lambda: run.text == "a\n")
    first.close()
    wire.on("POST", SECRET_PATH, stream(*whole))
    assert workspace.attach("run").result(LIMIT_S).text == "a\nb\n"


def orphan(workspace: Workspace, wire: WireServer, *, run_id: str | None = None) -> str:
    """A run whose process was killed between sending the start and hearing the answer."""
    run, _ = workspace.new_run(workspace.client(), REQUEST)
    entry = replace(run.following.entry, run_id=run_id, created_at=time.time() - 3600)
    workspace.ask(_write, workspace, entry)
    workspace.runs._runs.clear()
    return entry.tag


async def _write(workspace: Workspace, entry: object) -> None:
    workspace.history.journal.write(entry)  # type: ignore[arg-type]


@pytest.mark.usefixtures("cloud")
def test_a_run_whose_answer_nobody_heard_is_found_by_its_tag(
    wire: WireServer, workspace: Workspace
) -> None:
    tag = orphan(workspace, wire)
    wire.on("GET", paths.WORKLOADS, json_answer([record("run", metadata={TAG_KEY: tag})]))
    wire.on("GET", paths.HISTORY, json_answer({"executions": []}))
    wire.on("POST", paths.stream("run"), stream(*events(Output("a\n"), END)))
    (entry,) = workspace.runs.as_now(workspace.history.entries())
    assert entry.run_id == "run"
    assert workspace.attach("run").result(LIMIT_S).text == "a\n"


@pytest.mark.usefixtures("cloud")
def test_a_start_of_which_nobody_could_be_asked_is_found_later_by_its_tag(
    wire: WireServer, workspace: Workspace
) -> None:
    for method, path in (("POST", paths.START_PYTHON), ("GET", paths.WORKLOADS)):
        wire.on(method, path, hang_up)
    with pytest.raises(StartUnknown, match="The server cannot be asked now"):
        submit(workspace)
    (entry,) = workspace.history.entries()
    assert (entry.run_id, entry.is_final) == (None, False)
    assert "The server cannot be asked now" in entry.reason
    with pytest.raises(LyceumError):  # the server is still away
        workspace.attach(entry.tag).wait(LIMIT_S)
    wire.on("GET", paths.WORKLOADS, json_answer([record("run", metadata={TAG_KEY: entry.tag})]))
    wire.on("GET", paths.HISTORY, json_answer({"executions": []}))
    wire.on("POST", paths.stream("run"), stream(*events(Output("a\n"), END)))
    run = workspace.attach(entry.tag).result(LIMIT_S)
    assert (run.id, run.text, run.reason) == ("run", "a\n", "")
    assert len(wire.asked("POST", paths.START_PYTHON)) == 1


@pytest.mark.usefixtures("cloud")
def test_a_run_that_ended_while_nobody_looked_ended_when_its_record_says(
    wire: WireServer, workspace: Workspace
) -> None:
    ended = {"job_end": "2026-01-02T03:04:05.500+00:00"}
    ended_at = 1767323045.5
    orphan(workspace, wire, run_id="run")
    wire.on("GET", paths.record("run"), json_answer(record("run", "completed", **ended)))
    wire.on("POST", paths.stream("run"), stream(*events(END)))
    (entry,) = workspace.runs.as_now(workspace.history.entries())
    assert (entry.state, entry.ended_at) == ("completed", ended_at)
    run = workspace.attach("run")
    assert run.result(LIMIT_S).elapsed_s == pytest.approx(ended_at - run.created_at)


@pytest.mark.usefixtures("cloud")
def test_a_run_that_never_reached_the_server_is_said_to_be_over(
    wire: WireServer, workspace: Workspace
) -> None:
    orphan(workspace, wire)
    wire.on("GET", paths.WORKLOADS, json_answer([]))
    wire.on("GET", paths.HISTORY, json_answer({"executions": []}))
    (entry,) = workspace.runs.as_now(workspace.history.entries())
    assert entry.is_final
    assert "never started" in entry.reason


@pytest.mark.usefixtures("cloud")
def test_a_run_that_nobody_can_be_asked_about_is_not_given_up(
    wire: WireServer, workspace: Workspace
) -> None:
    orphan(workspace, wire)
    wire.on("GET", paths.WORKLOADS, hang_up)
    (entry,) = workspace.runs.as_now(workspace.history.entries())
    assert not entry.is_final


@pytest.mark.usefixtures("cloud")
def test_an_id_that_fits_nothing_or_several_is_refused(workspace: Workspace) -> None:
    with pytest.raises(UnknownRun):
        workspace.attach("nothing")


@pytest.mark.usefixtures("cloud")
def test_a_run_of_another_server_is_not_asked_for_with_this_key(
    wire: WireServer, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.on("POST", SECRET_PATH, stream(hold=asyncio.Event()))
    submit(workspace)
    workspace.runs._runs.clear()
    monkeypatch.setenv("LYCEUM_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(LyceumError, match=r"set LYCEUM_BASE_URL and LYCEUM_API_KEY for it"):
        workspace.attach("last")


# Watching.


@pytest.mark.usefixtures("cloud")
def test_a_watcher_that_comes_late_gets_each_text_once(
    wire: WireServer, workspace: Workspace
) -> None:
    go_on = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def halves(request: Request, writer: asyncio.StreamWriter) -> None:
        loops.append(asyncio.get_running_loop())
        await stream(*events(Output("a\n")), hold=go_on)(request, writer)

    rest = events(Output("a\n"), Output("b\n"), END)[1:]
    wire.on("POST", SECRET_PATH, halves, stream(*rest))
    run = submit(workspace)
    until(lambda: run.text == "a\n")
    before, backlog = run.watch()
    loops[0].call_soon_threadsafe(go_on.set)
    seen = [output.text for output in before]
    while not backlog.is_drained:
        seen += [item.text for item in backlog.get(LIMIT_S) if isinstance(item, Output)]
    assert seen == ["a\n", "b\n"]


@pytest.mark.usefixtures("cloud")
def test_a_log_that_cannot_be_written_keeps_nobody_from_the_run(
    wire: WireServer,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire.on("POST", SECRET_PATH, stream(*events(Output("a\n"), Output("b\n"), END)))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        run = workspace.submit(workspace.client(), REQUEST).result(LIMIT_S)
    assert (run.text, run.state) == ("a\nb\n", State.COMPLETED)
    # As an end, it would pass for all of the run.
    assert not workspace.history.find("run").is_final
    (warning,) = caplog.messages
    assert "is full: make room on it" in warning
    assert "kept in this process" in warning


@pytest.mark.usefixtures("cloud")
def test_an_end_that_the_journal_refuses_is_told_and_asked_for_again(
    wire: WireServer, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    workspace.history.entries()
    with closing(sqlite3.connect(journal_folder() / "journal.db")) as database:
        wire.on("POST", SECRET_PATH, stream(*events(Output("a\n"), END)))
        wire.on("GET", paths.record("run"), json_answer(record("run", status="completed")))
        database.execute(
            "CREATE TRIGGER refused BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        run = submit(workspace).result(LIMIT_S)
        assert (run.id, run.text, run.state) == ("run", "a\n", State.COMPLETED)
        (warning,) = caplog.messages
        assert "journal.db cannot be written: no" in warning
        (entry,) = workspace.history.entries()
        assert not entry.is_final
        assert workspace.attach(entry.tag) is run
        database.execute("DROP TRIGGER refused")


@pytest.mark.anyio
@pytest.mark.usefixtures("cloud")
async def test_a_run_can_be_awaited_and_a_cancelled_wait_leaves_it_alone(
    wire: WireServer, workspace: Workspace
) -> None:
    go_on = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def held(request: Request, writer: asyncio.StreamWriter) -> None:
        loops.append(asyncio.get_running_loop())
        await stream(*events(Output("a\n")), hold=go_on)(request, writer)

    wire.on("POST", SECRET_PATH, held, stream(*events(Output("a\n"), END)[1:]))
    run = submit(workspace)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run
    loops[0].call_soon_threadsafe(go_on.set)
    assert (await run).text == "a\n"
    assert not wire.asked("POST", paths.abort("run"))


def test_clients_are_made_once_for_an_account(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYCEUM_API_KEY", "lk_one")
    one: Client = workspace.client()
    assert workspace.client() is one
    monkeypatch.setenv("LYCEUM_API_KEY", "lk_two")
    assert workspace.client() is not one


@pytest.mark.usefixtures("cloud")
def test_long_text_takes_little_more_memory_than_itself(
    wire: WireServer, workspace: Workspace
) -> None:
    line, events_ = "x" * 999 + "\n", 300
    pieces = [Output(100 * line) for _ in range(events_)]
    wire.on("POST", f"{paths.stream('run')}/{STREAM_SECRET}", stream(*events(*pieces, END)))
    run = submit(workspace).result(LIMIT_S)
    tracemalloc.start()
    try:
        text = run.text
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert text == 100 * events_ * line
    assert peak < 1.5 * len(text)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_run_is_refused_where_it_would_be_copied(
    wire: WireServer, cloud: None, workspace: Workspace, copied: Callable[[object], object]
) -> None:
    wire.on("POST", SECRET_PATH, stream(*events(END)))
    run = submit(workspace)
    with pytest.raises(TypeError, match=r"lyceum_magic.attach\('run'\)"):
        copied(run)


@pytest.mark.usefixtures("cloud")
def test_the_facts_of_a_run_are_documented_and_cannot_be_set(
    wire: WireServer, workspace: Workspace
) -> None:
    run, _ = workspace.new_run(workspace.client(), REQUEST)
    assert (run.machine, run.timeout_s) == (REQUEST.execution_type, REQUEST.timeout)
    with pytest.raises(AttributeError, match="machine"):
        run.machine = "gpu.a100"  # type: ignore[misc]
    assert "time limit" in (Run.timeout_s.__doc__ or "")
