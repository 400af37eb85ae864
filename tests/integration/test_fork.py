"""Processes that fork after their first run, and programs that begin one at their very end."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.tools.programs import run_program
from tests.tools.waiting import LIMIT_S, eventually

pytestmark = pytest.mark.usefixtures("shared_server")

#: A run that ends when the file that the program is given exists; `forked` runs in a child, and
#: ends as a program does, not by `os._exit`.
PARENT = """
import os, sys, time
import lyceum_magic

def forked(function):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        function()
        sys.exit()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

gate = sys.argv[1]
run = lyceum_magic.submit(
    f"import os, time\\nwhile not os.path.exists({gate!r}): time.sleep(0.05)\\nprint('parent')"
)
"""


def test_a_child_has_a_workspace_of_its_own_and_ends_at_once(tmp_path: Path) -> None:
    code = """
def child():
    mine = lyceum_magic.submit("print('child')").result()
    print(mine.text, end="")
    print(len({entry.process for entry in lyceum_magic.runs()}), "processes")

forked(child)
open(gate, "w").close()
print(run.result().text, end="")
"""
    printed = run_program(PARENT + code, str(tmp_path / "gate"))
    assert printed == "child\n2 processes\nparent\n"


def test_a_child_does_not_visit_its_parents_objects_when_it_ends(tmp_path: Path) -> None:
    code = """
import gc
def child():
    mine = [gc.get_freeze_count() > 10_000]
    mine.append(mine)
    print(mine[0], any(one is mine for one in gc.get_objects()))

forked(child)
print(gc.get_freeze_count())
open(gate, "w").close()
run.result()
"""
    assert run_program(PARENT + code, str(tmp_path / "gate")) == "True True\n0\n"


@pytest.mark.parametrize(
    "use",
    [
        "run.result()",
        "run.wait(0.1)",
        "run.wait_callback()",
        "run.abort()",
        "run.stop()",
        "run.logs()",
        "run.metrics()",
        "asyncio.run(awaited())",
    ],
)
def test_an_inherited_run_says_attach_again(tmp_path: Path, use: str) -> None:
    code = f"""
import asyncio
async def awaited():
    await run

def child():
    try:
        {use}
    except lyceum_magic.LyceumError as exc:
        assert f"lyceum_magic.attach('{{run.id}}')" in str(exc), exc
    else:
        sys.exit("no error")
    again = lyceum_magic.attach(run.id)
    open(gate, "w").close()
    print(again.result().text, end="")

forked(child)
print(run.result().text, end="")
"""
    assert run_program(PARENT + code, str(tmp_path / "gate")) == "parent\nparent\n"


def test_an_inherited_run_that_has_ended_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    code = """
run.result()
forked(lambda: print(run.result().text, run.outputs[0]["text"], end=""))
"""
    assert run_program(PARENT + code, str(tmp_path / "gate")) == "parent\n parent\n"


def test_hooks_hear_of_the_runs_of_their_own_process(tmp_path: Path) -> None:
    code = """
names = []

@lyceum_magic.on_finish
def note(run):
    names.append(run.name)

def child():
    lyceum_magic.submit("pass", name="child").result()
    assert names == ["child"], names

forked(child)
open(gate, "w").close()
run.result()
assert names == [""], names
"""
    run_program(PARENT + code, str(tmp_path / "gate"))


def test_a_child_that_outlives_its_parent_does_not_keep_its_runs(tmp_path: Path) -> None:
    code = """
pid = os.fork()
if pid == 0:
    os.close(1)
    os.close(2)
    sys.stdin.read()
    sys.exit()
print(run.id, pid, flush=True)
os._exit(0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT + code, str(tmp_path / "gate")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        run_id, pid = program.stdout.read().split()
        program.wait(LIMIT_S)
        child = psutil.Process(int(pid))
        # Who may write to the journal is told by a lock, which the child would have inherited.
        followed = run_program(
            f"""
            import lyceum_magic
            run = lyceum_magic.attach({run_id!r})
            run.watch()
            print(run.following._is_writer)
            open({str(tmp_path / "gate")!r}, "w").close()
            run.result()
            """
        )
        assert followed == "True\n"
        assert child.is_running()
    child.wait(LIMIT_S)


def test_children_of_multiprocessing_may_run_cells(tmp_path: Path) -> None:
    code = """
import multiprocessing

def double(number):
    return lyceum_magic.submit(f"print({number} * 2)").result().text

open(gate, "w").close()
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(double, [1, 2]))
"""
    assert run_program(PARENT + code, str(tmp_path / "gate")) == "['2\\n', '4\\n']\n"


def test_a_thread_that_forks_gets_a_workspace_too(tmp_path: Path) -> None:
    code = """
import multiprocessing, threading

def child():
    print(lyceum_magic.submit("print('child')").result().text, end="")

process = multiprocessing.get_context("fork").Process(target=child)
thread = threading.Thread(target=lambda: (process.start(), process.join()))
thread.start()
thread.join()
assert process.exitcode == 0
"""
    assert run_program(PARENT + code, str(tmp_path / "gate")) == "child\n"


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="Python starts no thread in an atexit handler"
)
def test_the_first_run_may_begin_in_an_atexit_handler() -> None:
    code = """
import atexit

@atexit.register
def last():
    import lyceum_magic
    print(lyceum_magic.submit("print('late')").result().text, end="")
    lyceum_magic.submit("print('left alone')")
"""
    assert run_program(code) == "late\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="threads start until the very end")
def test_a_run_that_comes_too_late_is_refused() -> None:
    code = """
import atexit

@atexit.register
def last():
    import lyceum_magic
    try:
        lyceum_magic.submit("print('late')")
    except lyceum_magic.LyceumError as exc:
        print("before the program's end" in str(exc))
"""
    assert run_program(code) == "True\n"


#: Start one run at import, which `--preload` does in the master, and one for each request.
APP = """
import os
import lyceum_magic

run = lyceum_magic.submit("print('preloaded')")
ended = []
lyceum_magic.on_finish(ended.append)


def app(environ, start_response):
    mine = lyceum_magic.submit("print('worker')").result()
    try:
        # It may have ended before the fork: then its handle knows all there is to know.
        inherited = run.result().text
    except lyceum_magic.LyceumError:
        inherited = lyceum_magic.attach(run.id).result().text
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {os.getppid()} {mine.text}{inherited}".encode()]
"""


@contextmanager
def gunicorn(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """A real gunicorn that serves `APP`; gives its process, its port and its log."""
    (folder / "app.py").write_text(APP)
    log = folder / "gunicorn.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "app:app", "--bind", "127.0.0.1:0"),
                # No worker is killed for being slow to end: such a one fails the test.
                *("--graceful-timeout", "600", "--timeout", "600", "--no-control-socket"),
                *options,
            ],
            cwd=folder,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
        )
    try:
        found = eventually(
            lambda: (
                re.search(r"Listening at: http://127.0.0.1:(\d+)", log.read_text())
                or process.poll()
            ),
            "gunicorn listens",
        )
        assert isinstance(found, re.Match), log.read_text()
        yield process, int(found[1]), log
    finally:
        if process.poll() is None:
            for worker in psutil.Process(process.pid).children():
                worker.kill()
            process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_gunicorn_that_preloads_serves_and_ends(tmp_path: Path, kind: str) -> None:
    with gunicorn(tmp_path, "--preload", "--workers", "2", "--worker-class", kind) as started:
        process, port, log = started
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
            connection.request("GET", "/")
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, log.read_text()
            worker, master, *lines = body.split()
            assert lines == ["worker", "preloaded"]
            assert (int(master), int(worker) != process.pid) == (process.pid, True)
            connection.close()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        assert "Traceback" not in log.read_text()
