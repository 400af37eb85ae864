"""The examples of notebooks/receivers/ as processes, told by the embedded server and by us."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from lyceum_magic.embedded.demo import throwaway_home
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.protocol.limits import TAG_KEY
from lyceum_magic.protocol.signatures import sign
from lyceum_magic.protocol.states import State
from tests.tools.environments import ROOT
from tests.tools.waiting import eventually
from tests.tools.wire_server import frame, hang_up, json_answer, record, stream, wire_thread

RECEIVERS = ROOT / "notebooks" / "receivers"
#: Of callbacks that these tests send; the server's own are refused where it is set.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OURS = {"LYCEUM_CALLBACK_SECRET": SECRET}
LIMIT_S = 90


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """One embedded server for all of them, started by the first that needs it."""
    with throwaway_home() as variables:
        yield variables | {"PYTHONUNBUFFERED": "1"}


@contextmanager
def example(
    name: str, environment: dict[str, str], folder: Path, *arguments: object
) -> Iterator[subprocess.Popen[str]]:
    """An example at work in a folder; killed behind the block if it still is."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(RECEIVERS / name), *map(str, arguments)],
        env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def client_of(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=LIMIT_S)


def answers(client: httpx.Client, path: str = "/") -> bool | None:
    try:
        client.get(path)
    except httpx.TransportError:
        return None
    return True


def tell(
    client: httpx.Client, path: str, callback_id: str, *, secret: str = SECRET, **members: Any
) -> int:
    """Send a signed callback; return the status of the answer."""
    body, headers = signed(callback_id, secret=secret, **members)
    return client.post(path, content=body, headers=headers).status_code


def signed(
    callback_id: str, *, secret: str = SECRET, **members: Any
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a callback."""
    body = json.dumps({"schema": 1, "status": "completed", **members}).encode()
    sent_at_s = int(time.time())
    return body, {
        "webhook-id": callback_id,
        "webhook-timestamp": str(sent_at_s),
        "webhook-signature": sign(secret, callback_id, sent_at_s, body),
    }


def answer_to_length(port: int, path: str, length: str) -> int:
    """The status that a POST gets for the length which it announces; its body never comes."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)) as connection:
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", length)
        connection.endheaders()
        return connection.getresponse().status


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return connection.execute(query).fetchall()


def change(database: Path, statement: str, *rows_of_it: tuple[object, ...]) -> None:
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.executemany(statement, rows_of_it or [()])


# A backend.


def page(client: httpx.Client, path: str) -> str | None:
    text = client.get(path).text
    return text if "<h1>running" not in text else None


def test_a_backend_is_told_by_the_server_when_its_training_ends(environment, tmp_path):
    port = free_port()
    with (
        example("backend.py", environment | {"PORT": str(port)}, tmp_path),
        client_of(port) as client,
    ):
        eventually(lambda: answers(client), "the backend listens")
        path = client.post("/trainings").raise_for_status().json()["page"]
        text = eventually(lambda: page(client, path), "the training has ended")
    assert "<h1>completed</h1>" in text
    assert "loss 0.00000" in text
    assert rows(tmp_path / "trainings.db", "SELECT told, state FROM trainings") == [
        (1, "completed")
    ]


def test_a_backend_takes_signed_callbacks_alone_and_each_once(environment, tmp_path):
    port = free_port()
    with (
        example("backend.py", environment | OURS | {"PORT": str(port)}, tmp_path) as process,
        client_of(port) as client,
    ):
        eventually(lambda: answers(client), "the backend listens")
        path = client.post("/trainings").raise_for_status().json()["page"]
        ((token,),) = rows(tmp_path / "trainings.db", "SELECT token FROM trainings")
        to = f"/callbacks/{token}"
        other = "whsec_plJ3nmyCDGBKInavdOK15jsl"
        assert client.post(to, content=b"{}").status_code == 400
        assert client.post(to, content=b"x" * 200_000).status_code == 413
        assert tell(client, to, "msg_1", secret=other) == 400
        assert "<h1>running</h1>" in client.get(path).text
        # The other is about no training of ours, as a test callback is.
        assert tell(client, "/callbacks/99", "msg_0") == 204
        assert [tell(client, to, "msg_1") for _ in range(3)] == [204] * 3
        text = eventually(lambda: page(client, path), "the training was read again")
        assert client.get("/trainings/99").status_code == 404
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)
    assert "<h1>completed</h1>" in text
    seen = rows(tmp_path / "trainings.db", "SELECT id FROM lyceum_callbacks_seen ORDER BY id")
    assert seen == [("msg_0",), ("msg_1",)]


def test_a_backend_reads_what_it_was_told_before_it_ended(environment, tmp_path):
    variables = environment | OURS | {"PORT": str(free_port())}
    with client_of(int(variables["PORT"])) as client:
        with example("backend.py", variables, tmp_path):
            eventually(lambda: answers(client), "the backend listens")
            path = client.post("/trainings").raise_for_status().json()["page"]
        # As if it had been killed between its answer to the callback and the reading.
        with closing(sqlite3.connect(tmp_path / "trainings.db")) as connection, connection:
            connection.execute("UPDATE trainings SET told = 1")
            connection.execute("INSERT INTO trainings (token) VALUES ('training-never')")
        with example("backend.py", variables, tmp_path):
            eventually(lambda: answers(client), "the backend listens again")
            text = eventually(lambda: page(client, path), "the training was read")
            assert "<h1>not started" in client.get("/trainings/2").text
    assert "<h1>completed</h1>" in text


def test_a_backend_whose_callbacks_are_lost_looks_by_itself(environment, tmp_path):
    port = free_port()
    variables = environment | OURS | {"PORT": str(port), "LOOK_S": "0.2"}  # it refuses the server's
    with example("backend.py", variables, tmp_path), client_of(port) as client:
        eventually(lambda: answers(client), "the backend listens")
        path = client.post("/trainings").raise_for_status().json()["page"]
        eventually(lambda: page(client, path), "the training has ended")
    assert rows(tmp_path / "trainings.db", "SELECT told, state FROM trainings") == [
        (0, "completed")
    ]


def in_python(environment: dict[str, str], code: str) -> None:
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=LIMIT_S)


def test_a_backend_answers_callbacks_whatever_it_has_to_wait_for(environment, tmp_path):
    """More of them than it has threads, about a run that has not ended."""
    port, count = free_port(), 60
    variables = environment | OURS | {"PORT": str(port)}
    long = "import time\ntime.sleep(600)"
    in_python(environment, f"import lyceum_magic as m; m.submit({long!r}, name='training-long')")
    with (
        example("backend.py", variables, tmp_path),
        client_of(port) as client,
    ):
        eventually(lambda: answers(client), "the backend listens")
        change(tmp_path / "trainings.db", "INSERT INTO trainings (token) VALUES ('training-long')")
        client.timeout = httpx.Timeout(20)
        with ThreadPoolExecutor(8) as pool:
            sent = [f"msg_{number}" for number in range(count)]
            told = pool.map(lambda each: tell(client, "/callbacks/training-long", each), sent)
            assert list(told) == [204] * count
        assert "<h1>running</h1>" in client.get("/trainings/1").text
    in_python(environment, "import lyceum_magic as m; m.attach('last').abort()")


def test_a_backend_keeps_a_training_that_may_have_been_started(tmp_path):
    """The line breaks behind the start, and nobody can be asked until later."""
    port = free_port()
    with wire_thread() as wire, client_of(port) as client:
        for method, path in (("POST", paths.START_PYTHON), ("GET", paths.WORKLOADS)):
            wire.on(method, path, hang_up)
        with throwaway_home() as environment:
            variables = {
                **environment, **OURS, "PORT": str(port), "LOOK_S": "0.2",
                "BACKEND_URL": "https://example.org",
                "LYCEUM_BASE_URL": wire.base_url, "LYCEUM_API_KEY": "lk_test",
            }  # fmt: skip
            with example("backend.py", variables, tmp_path):
                eventually(lambda: answers(client), "the backend listens")
                path = client.post("/trainings").raise_for_status().json()["page"]
                assert "<h1>running</h1>" in client.get(path).text
                journal = Path(environment["LYCEUM_MAGIC_HOME"], "journal", "journal.db")
                ((tag,),) = rows(journal, "SELECT tag FROM runs")
                found = [record("run", metadata={TAG_KEY: tag})]
                end = Finished(State.COMPLETED, 0)
                wire.on("POST", paths.stream("run"), stream(frame(Output("learnt\n")), frame(end)))
                wire.on("GET", paths.HISTORY, json_answer({"executions": []}))
                wire.on("GET", paths.WORKLOADS, json_answer(found))
                text = eventually(lambda: page(client, path), "the training is found")
        assert len(wire.asked("POST", paths.START_PYTHON)) == 1
    assert "<h1>completed</h1><p>run run</p><pre>learnt" in text


# README.md's.


def test_the_readmes_app_takes_signed_callbacks_alone(tmp_path, monkeypatch, capsys):
    section = (ROOT / "README.md").read_text("utf-8").partition("### In an app of your own")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LYCEUM_CALLBACK_SECRET", SECRET)
    program: dict[str, Any] = {"__name__": "app"}
    exec(compile(code, "README.md", "exec"), program)
    taken = 0

    async def pieces(count: int) -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(count):
            taken += 1
            yield b"x" * 1024

    async def statuses() -> list[int]:
        body, headers = signed("msg_1", execution_id="run-1")
        transport = httpx.ASGITransport(program["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            bodies = (body, body, body.replace(b"run-1", b"run-2"), pieces(64), pieces(1000))
            sent = [await client.post("/done", content=each, headers=headers) for each in bodies]
            sent.append(await client.post("/done", content=body))
        return [answer.status_code for answer in sent]

    assert asyncio.run(statuses()) == [204, 204, 400, 400, 413, 400]
    assert taken == 64 + 65  # no more is read than a callback has
    assert capsys.readouterr().out == "run-1\n"


# A queue worker.

JOBS = "SELECT id, state, told, result FROM jobs ORDER BY id"


def test_a_worker_ticks_off_every_job_when_the_server_says_so(environment, tmp_path):
    with example(
        "queue_worker.py", environment, tmp_path, "--add", 6, "--port", free_port()
    ) as worker:
        code, out, err = finish(worker)
    assert (code, err) == (0, "")
    assert rows(tmp_path / "jobs.db", JOBS) == [
        (number + 1, "completed", 1, str(number**2)) for number in range(6)
    ]
    assert sorted(re.findall(r"^job (\d): completed", out, re.M)) == list("123456")


def test_a_killed_worker_goes_on_and_counts_each_job_once(environment, tmp_path):
    """Killed while its runs are under way; each callback then comes from several sides at once."""
    port, gate, database = free_port(), tmp_path / "gate", tmp_path / "jobs.db"
    arguments = ("queue_worker.py", environment | OURS, tmp_path, "--port", port)
    code = (
        "import os, time\n"
        f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.02)\nprint('through')"
    )
    with example(*arguments) as worker:  # makes the table
        assert finish(worker)[0] == 0
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany("INSERT INTO jobs (code) VALUES (?)", [(code,)] * 3)

    def started() -> bool:
        return len(rows(database, "SELECT 1 FROM jobs WHERE run_id IS NOT NULL")) == 3

    with example(*arguments) as worker, client_of(port) as client:
        eventually(started, "the jobs are running")
        (token,) = rows(database, "SELECT token FROM jobs WHERE id = 1")[0]
        assert tell(client, f"/jobs/{token}", "msg_1") == 204
        worker.kill()
        worker.wait(LIMIT_S)
    before = rows(database, "SELECT id, run_id FROM jobs")
    to = {job: f"/jobs/{token}" for job, token in rows(database, "SELECT id, token FROM jobs")}
    gate.touch()
    with example(*arguments) as worker, client_of(port) as client:
        eventually(lambda: answers(client), "the worker listens again")
        assert client.post(to[2], content=b"{}").status_code == 400
        assert client.post(to[2], content=b"x" * 70_000).status_code == 400
        assert answer_to_length(port, to[2], "00000000050000000") == 400
        with ThreadPoolExecutor(6) as pool:
            calls = [(to[job], f"msg_{job}") for job in (1, 2) for _ in range(3)]
            assert list(pool.map(lambda call: tell(client, *call), calls)) == [204] * 6
        assert tell(client, "/jobs/none", "msg_4") == 204
        assert tell(client, to[3], "msg_3") == 204
        code_of_exit, _, err = finish(worker)
    assert (code_of_exit, err) == (0, "")
    assert rows(database, JOBS) == [(job, "completed", 1, "through") for job in (1, 2, 3)]
    assert rows(database, "SELECT id, run_id FROM jobs") == before  # no run was started again


def test_a_worker_that_was_away_is_told_when_it_is_back(environment, tmp_path):
    """The server's own callbacks meet a closed port, and come again."""
    port, gate, database = free_port(), tmp_path / "gate", tmp_path / "jobs.db"
    arguments = ("queue_worker.py", environment, tmp_path, "--port", port)
    code = (
        "import os, time\n"
        f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.02)\nprint('through')"
    )
    with example(*arguments) as worker:
        assert finish(worker)[0] == 0
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO jobs (code) VALUES (?)", (code,))
    with example(*arguments) as worker:
        eventually(
            lambda: rows(database, "SELECT 1 FROM jobs WHERE run_id IS NOT NULL"), "it is running"
        )
        worker.kill()
    gate.touch()
    with example(*arguments) as worker:
        assert finish(worker)[0] == 0
    assert rows(database, JOBS) == [(1, "completed", 1, "through")]


def empty_table(arguments: tuple[Any, ...]) -> Path:
    with example(*arguments) as worker:
        assert finish(worker)[0] == 0
    return Path(arguments[2], "jobs.db")


def test_a_job_whose_start_no_worker_heard_the_answer_of_is_not_started_again(tmp_path):
    """Killed behind the sending of a start, and before it; with and without a run."""
    with throwaway_home() as environment:  # its journal is changed
        arguments = ("queue_worker.py", environment, tmp_path, "--port", free_port())
        database, starts = empty_table(arguments), tmp_path / "starts"
        code = f"open({str(starts)!r}, 'a').write('sent ')\nprint('once')"
        change(database, "INSERT INTO jobs (code) VALUES (?)", (code,))
        with example(*arguments) as worker:
            assert finish(worker)[0] == 0
        # As such a kill leaves them: of the first the server knows, of the second nobody.
        unheard = "UPDATE jobs SET state = 'running', run_id = NULL, told = 0, result = NULL"
        change(database, unheard)
        journal = Path(environment["LYCEUM_MAGIC_HOME"], "journal", "journal.db")
        change(journal, "UPDATE runs SET run_id = NULL, state = 'pending', ended_at = NULL")
        change(
            database,
            "INSERT INTO jobs (code, state, token) VALUES ('print(2)', 'running', 'job-2-begun')",
        )
        with example(*arguments) as worker:
            code_of_exit, _, err = finish(worker)
    assert (code_of_exit, err) == (0, "")
    assert starts.read_text() == "sent "
    result = "SELECT id, state, result FROM jobs ORDER BY id"
    assert rows(database, result) == [(1, "completed", "once"), (2, "completed", "2")]


def test_a_job_of_a_new_table_is_not_given_the_run_of_an_old_one(environment, tmp_path):
    arguments = ("queue_worker.py", environment, tmp_path, "--port", free_port())
    with example(*arguments, "--add", 1) as worker:
        assert finish(worker)[0] == 0
    (tmp_path / "jobs.db").unlink()
    database = empty_table(arguments)
    change(database, "INSERT INTO jobs (code, state) VALUES ('print(\"new\")', 'running')")
    with example(*arguments) as worker:
        assert finish(worker)[0] == 0
    assert rows(database, JOBS) == [(1, "completed", 1, "new")]


def test_a_job_that_cannot_be_started_or_asked_for_ends_no_worker(environment, tmp_path):
    arguments = ("queue_worker.py", environment, tmp_path, "--port", free_port())
    database = empty_table(arguments)
    insert = "INSERT INTO jobs (code, state, run_id) VALUES (?, ?, ?)"
    jobs = [("print(", "waiting", None), ("", "ended", "nobody-s"), ("print(3)", "waiting", None)]
    change(database, insert, *jobs)
    with example(*arguments) as worker:
        code, _, err = finish(worker)
    assert code == 0
    assert "Traceback" not in err
    states = rows(database, "SELECT state FROM jobs ORDER BY id")
    assert states == [("refused",), ("lost",), ("completed",)]
    assert re.findall(r"^job (\d): ", err, re.M) == ["2", "1"]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"LYCEUM_CALLBACK_SECRET": "canary"}, "LYCEUM_CALLBACK_SECRET cannot be used"),
        ({"LYCEUM_BASE_URL": "canary", "LYCEUM_API_KEY": "lk_test"}, "LYCEUM_BASE_URL"),
    ],
    ids=["secret", "server"],
)
def test_a_worker_that_cannot_take_callbacks_says_so(tmp_path, wrong, expected):
    with (
        throwaway_home() as environment,
        example("queue_worker.py", environment | wrong, tmp_path) as worker,
    ):
        code, out, err = finish(worker)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"queue_worker\.py: [^\n]*{expected}[^\n]*\.\n", err)


def test_a_worker_outlives_a_journal_that_cannot_be_read(tmp_path):
    with throwaway_home() as environment:
        arguments = ("queue_worker.py", environment | OURS, tmp_path, "--port", free_port())
        database = empty_table(arguments)
        change(database, "INSERT INTO jobs (code, state, token) VALUES ('', 'running', 'job-1')")
        journal = Path(environment["LYCEUM_MAGIC_HOME"], "journal")
        journal.mkdir(parents=True)
        (journal / "journal.db").write_bytes(b"no database" * 100)
        with example(*arguments) as worker:
            said = worker.stderr.readline()
            assert worker.poll() is None
    assert "journal" in said
    assert "Traceback" not in said


# A CI step.


def step(
    environment: dict[str, str], folder: Path, code: str, *arguments: object
) -> tuple[int, str, str]:
    (folder / "build.py").write_text(code)
    with example("ci_step.py", environment, folder, "build.py", *arguments) as process:
        return finish(process)


def test_a_step_ends_with_the_exit_code_of_its_build_when_it_is_told(environment, tmp_path):
    code, out, err = step(
        environment, tmp_path, "print('building')\nraise SystemExit(3)", "--look", 60
    )
    assert code == 3
    assert "building\nfailed after" in out
    assert "(told)" in out
    assert "3" in err


@pytest.mark.parametrize("why", ["none is asked for", "it is refused"])
def test_a_step_that_is_told_nothing_finds_out(environment, tmp_path, why):
    refused = OURS if why == "it is refused" else {}
    arguments = () if refused else ("--no-callback",)
    code, out, err = step(
        environment | refused, tmp_path, "print('built')", "--look", 0.1, *arguments
    )
    assert (code, err) == (0, "")
    assert "built\ncompleted after" in out
    assert "(found out)" in out


def test_a_step_aborts_a_build_that_takes_too_long_and_shows_how_far_it_came(environment, tmp_path):
    started = time.monotonic()
    code, out, err = step(
        environment,
        tmp_path,
        "import time\nprint('half built', flush=True)\ntime.sleep(600)",
        "--timeout",
        3,
    )
    assert code == 124
    assert "half built\n" in out
    assert re.search("aborted|time limit", err)
    assert time.monotonic() - started < LIMIT_S


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (("missing.py", "--no-callback"), "missing.py"),
        (("build.py", "--no-callback", "--timeout", 0), "1 to 600 seconds, not 0"),
        (("build.py", "--url", "ftp://example.org"), "callback URL"),
        (("build.py", "--port", 99999), "port 99999"),
        (("build.py", "--machine", "none"), "none"),
    ],
    ids=["script", "timeout", "url", "port", "machine"],
)
def test_a_step_that_cannot_start_its_build_says_why(environment, tmp_path, wrong, expected):
    (tmp_path / "build.py").write_text("print('built')")
    with example("ci_step.py", environment | OURS, tmp_path, *wrong) as process:
        code, out, err = finish(process)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"ci_step\.py: [^\n]*{expected}[^\n]*\n", err)


def test_a_step_finds_a_secret_that_is_none_before_it_builds(environment, tmp_path):
    wrong = environment | {"LYCEUM_CALLBACK_SECRET": "canary"}
    code, out, err = step(wrong, tmp_path, "print('built')")
    assert (code, out) == (2, "")
    assert err == (
        "ci_step.py: LYCEUM_CALLBACK_SECRET cannot be used: a signing secret is `whsec_` and "
        "base64 behind it.\n"
    )
