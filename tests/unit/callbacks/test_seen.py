"""`SqliteSeen`: each callback once, for all threads and processes, even if one is killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lyceum_magic.callbacks import CallbackEvent, SqliteSeen, read

from .signed import body

WORKERS = 6


def event(callback_id: str = "msg_1") -> CallbackEvent:
    return read(body(), {"webhook-id": callback_id})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture(params=["path", "connection"])
def make(request: pytest.FixtureRequest, path: Path) -> Callable[[], SqliteSeen]:
    """Open the store again, as a program does that was started again."""

    def opened() -> SqliteSeen:
        if request.param == "path":
            return SqliteSeen(path)
        connection = sqlite3.connect(path, timeout=30)
        request.addfinalizer(connection.close)
        return SqliteSeen(connection)

    return opened


def is_new(seen: SqliteSeen, callback_id: str = "msg_1") -> bool:
    with seen.once(event(callback_id)) as new:
        return new


def test_a_callback_is_new_once(make):
    seen = make()
    assert [is_new(seen), is_new(seen), is_new(seen, "msg_2")] == [True, False, True]
    assert not is_new(make())


def test_a_relative_path_stays_where_it_is_when_the_program_goes_elsewhere(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    seen = SqliteSeen("app.db")
    assert is_new(seen)
    monkeypatch.chdir(elsewhere)
    assert not is_new(seen)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raised_runs_again(make, failure):
    seen = make()
    for _ in range(2):
        with pytest.raises(failure, match="True"), seen.once(event()) as new:
            raise failure(new)
    assert is_new(make())


def test_what_the_block_wrote_is_committed_with_the_event_or_not_at_all(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE jobs (state TEXT)")
    seen = SqliteSeen(connection)
    assert seen.forget(0) == 0  # as any use, it makes the table

    def seen_by_others() -> tuple[int, int]:
        other = sqlite3.connect(path)
        try:
            return other.execute(
                "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM lyceum_callbacks_seen)"
            ).fetchone()
        finally:
            other.close()

    def write_and_fail() -> None:
        with seen.once(event()):
            connection.execute("INSERT INTO jobs VALUES ('done')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert seen_by_others() == (0, 0)
    with seen.once(event()) as new:
        assert new
        connection.execute("INSERT INTO jobs VALUES ('done')")
        assert seen_by_others() == (0, 0)
    assert seen_by_others() == (1, 1)
    connection.close()


WORK = """
import os, signal, sqlite3, sys
from lyceum_magic.callbacks import SqliteSeen, read
_, path, own_file, point = sys.argv
connection = sqlite3.connect(path, timeout=30)
seen = SqliteSeen(path if own_file == "path" else connection)
with seen.once(read(b"{}", {"webhook-id": "msg_1"})) as new:
    if point == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    if new and own_file != "path":
        connection.execute("INSERT INTO jobs VALUES ('done')")
    if point == "after":
        os.kill(os.getpid(), signal.SIGKILL)
print(new)
"""


def worker(path: Path, own_file: str, point: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(path), own_file, point], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("own_file", ["path", "connection"])
def test_a_process_killed_in_its_block_leaves_the_callback_to_the_next(path, own_file):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE jobs (state TEXT)")
    for point in ("before", "after"):
        with worker(path, own_file, point) as process:
            assert process.wait(30) == -signal.SIGKILL
    assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    with worker(path, own_file) as process:
        assert process.communicate(timeout=30)[0] == "True\n"
    assert is_new(SqliteSeen(path)) is False
    expected = 0 if own_file == "path" else 1
    assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (expected,)
    connection.close()


def test_of_several_processes_one_gets_it(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE jobs (state TEXT)")
    connection.close()
    workers = [worker(path, "connection" if number % 2 else "path") for number in range(WORKERS)]
    answers = []
    for process in workers:
        with process:
            answers.append(process.communicate(timeout=60)[0].strip())
    assert sorted(answers) == ["False"] * (WORKERS - 1) + ["True"]


@pytest.mark.parametrize("kind", ["path", "connection"])
def test_of_several_threads_one_gets_it_and_the_others_wait_for_its_end(path, kind):
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
    seen = SqliteSeen(path if kind == "path" else connection)
    together = threading.Barrier(WORKERS)
    at_work: list[bool] = []

    def work() -> bool:
        together.wait(30)
        with seen.once(event()) as new:
            assert at_work == []  # no other thread is in a block
            at_work.append(new)
            at_work.pop()
            return new

    with ThreadPoolExecutor(WORKERS) as pool:
        answers = [future.result(60) for future in [pool.submit(work) for _ in range(WORKERS)]]
    assert sorted(answers) == [False] * (WORKERS - 1) + [True]
    connection.close()


def test_where_the_first_block_fails_one_that_waited_gets_it(path):
    seen = SqliteSeen(path)
    inside, may_fail = threading.Event(), threading.Event()

    def fail() -> None:
        with seen.once(event()):
            inside.set()
            assert may_fail.wait(30)
            raise OSError("disk")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fail)
        assert inside.wait(30)
        second = pool.submit(is_new, seen)
        may_fail.set()
        assert second.result(60)
        with pytest.raises(OSError, match="disk"):
            first.result(60)


def test_a_lock_that_does_not_come_free_is_an_error_and_nothing_is_marked(path):
    other = sqlite3.connect(path, isolation_level=None)
    seen = SqliteSeen(path, wait_s=0.01)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"), seen.once(event()):
        pytest.fail("the block ran without the lock")
    other.close()
    assert is_new(seen)


def test_a_store_on_a_connection_of_each_request_takes_the_write_lock_once(path):
    connection, statements = sqlite3.connect(path), []
    connection.set_trace_callback(statements.append)
    assert is_new(SqliteSeen(connection))
    assert not is_new(SqliteSeen(connection))
    assert [text for text in statements if text.startswith("BEGIN")] == ["BEGIN IMMEDIATE"] * 2
    connection.close()


def test_a_commit_that_fails_is_no_mark(path):
    # A constraint that is looked at then stands in for a disk that is full then.
    connection = sqlite3.connect(path)
    connection.executescript(
        "PRAGMA foreign_keys = ON; CREATE TABLE a (id INTEGER PRIMARY KEY);"
        "CREATE TABLE b (a INTEGER REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED);"
    )
    seen = SqliteSeen(connection)
    with pytest.raises(sqlite3.IntegrityError), seen.once(event()):
        connection.execute("INSERT INTO b VALUES (5)")
    assert not connection.in_transaction
    assert is_new(seen)
    connection.close()


def test_a_connection_in_a_transaction_is_refused(path):
    connection = sqlite3.connect(path)
    seen = SqliteSeen(connection)
    connection.execute("CREATE TABLE jobs (state TEXT)")
    connection.execute("INSERT INTO jobs VALUES ('half')")
    with pytest.raises(RuntimeError, match="commit it before"), seen.once(event()):
        pytest.fail("the block ran")
    connection.commit()
    with pytest.raises(RuntimeError, match="commit it before"), seen.once(event()):
        is_new(seen, "msg_2")  # one block in another
    connection.close()


def test_a_block_that_commits_by_itself_is_told(path):
    connection = sqlite3.connect(path)
    seen = SqliteSeen(connection)
    with pytest.raises(RuntimeError, match="leave the commit"), seen.once(event()):
        connection.commit()
    assert not is_new(seen)
    connection.close()


@pytest.mark.parametrize("isolation_level", ["", None, "EXCLUSIVE"])
def test_every_isolation_level_of_a_connection_will_do(path, isolation_level):
    connection = sqlite3.connect(path, isolation_level=isolation_level)
    seen = SqliteSeen(connection)
    assert [is_new(seen), is_new(seen)] == [True, False]
    connection.close()


def test_old_callbacks_are_forgotten(path):
    clock = 1000.0
    seen = SqliteSeen(path, now=lambda: clock)
    assert is_new(seen, "old")
    clock = 1100.0
    assert is_new(seen, "young")
    assert (seen.forget(50), seen.forget(50)) == (1, 0)
    assert (is_new(seen, "young"), is_new(seen, "old")) == (False, True)


@pytest.mark.parametrize("name", [":memory:", "", Path(":memory:")])
def test_a_name_for_a_database_in_memory_is_refused(name):
    with pytest.raises(ValueError, match="give that"):
        SqliteSeen(name)
    connection = sqlite3.connect(":memory:")
    seen = SqliteSeen(connection)
    assert [is_new(seen), is_new(seen)] == [True, False]
    connection.close()


def test_a_file_that_cannot_be_used_is_said_at_once(tmp_path):
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        SqliteSeen(tmp_path / "missing" / "app.db")
