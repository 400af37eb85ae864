"""The process runner with real processes: what a program sees, and what is left of it."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.server.output.spool import SpoolRecord, read_spool
from lyceum_magic.server.runners.base import RunEnd, RunOrder
from lyceum_magic.server.runners.control import is_supervised
from lyceum_magic.server.runners.handle import SupervisedHandle
from lyceum_magic.server.runners.process.runner import ProcessRunner
from tests.tools.small_disks import small_disk

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[ProcessRunner]:
    runner = ProcessRunner(tmp_path / "state", index_url=_index(tmp_path / "index"))
    await runner.open()
    yield runner
    await runner.close()


def run_order(folder: Path, code: str, *, grace_s: float = 10.0, **fields: Any) -> RunOrder:
    folder.mkdir(exist_ok=True)
    environment = fields.pop("environment", {})
    request = StartPython(code=code, **fields)
    return RunOrder(folder.name, folder, request, environment, grace_s)


async def start(runner: ProcessRunner, folder: Path, code: str, **fields: Any) -> SupervisedHandle:
    return await runner.start(run_order(folder, code, **fields), lambda phrase: None)


async def run(
    runner: ProcessRunner, folder: Path, code: str, **fields: Any
) -> tuple[RunEnd, str, str]:
    handle = await start(runner, folder, code, **fields)
    end = await handle.ended()
    return end, output(handle, "stdout"), output(handle, "stderr")


def output(handle: SupervisedHandle, stream: str) -> str:
    return b"".join(r.data for r in records(handle) if r.stream == stream).decode(errors="replace")


def records(handle: SupervisedHandle) -> list[SpoolRecord]:
    found: list[SpoolRecord] = []
    while more := read_spool(handle.spool, found[-1].end if found else 0):
        found += more
    return found


async def until(handle: SupervisedHandle, enough: Callable[[str], bool]) -> str:
    """Return the run's output as soon as it is enough."""
    async with asyncio.timeout(60):
        while True:
            end = records(handle)[-1].end if records(handle) else 0
            if enough(stdout := output(handle, "stdout")):
                return stdout
            await handle.grown(end)
            await asyncio.sleep(0)  # a run that is over grows no more, and waits for nothing


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- output ----------------------------------------------------------------------------------


async def test_stdout_and_stderr_come_apart(runner: ProcessRunner, tmp_path: Path) -> None:
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('more')"
    end, stdout, stderr = await run(runner, tmp_path / "run", code)
    assert (end.reason, end.return_code, end.error) == ("exited", 0, "")
    assert (stdout, stderr) == ("out\nmore\n", "err\n")
    assert end.started_at is not None
    assert end.started_at <= end.finished_at


async def test_output_is_there_before_the_end(runner: ProcessRunner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    code = f"print('begun', end='')\nopen({str(go)!r}).read()\nprint(' over')"
    handle = await start(runner, tmp_path / "run", code)
    await handle.started()
    assert handle.started_at is not None
    assert await until(handle, lambda stdout: "begun" in stdout) == "begun"
    await asyncio.to_thread(go.write_text, "")
    await handle.ended()
    assert output(handle, "stdout") == "begun over\n"


async def test_characters_stay_whole_and_other_bytes_as_they_are(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    code = (
        "import os\ntext = '€😀' * 50_000\n"
        "data = text.encode()\n"
        "while data: data = data[os.write(1, data[:7001]):]\n"
        "os.write(2, b'a\\xff\\xe2\\x82')"
    )
    handle = await start(runner, tmp_path / "run", code)
    await handle.ended()
    offset, whole = 0, ""
    while records := read_spool(handle.spool, offset):
        whole += "".join(r.data.decode() for r in records if r.stream == "stdout")
        offset = records[-1].end
    assert whole == "€😀" * 50_000
    raw = handle.spool.read_bytes()
    assert b"a\xff" in raw
    assert raw.endswith(b"\xe2\x82")


async def test_fifty_runs_at_once_do_not_mix(runner: ProcessRunner, tmp_path: Path) -> None:
    results = await asyncio.gather(
        *(
            run(runner, tmp_path / f"run{n}", f"for i in range(200): print({n}, i)")
            for n in range(50)
        )
    )
    for n, (end, stdout, _) in enumerate(results):
        assert end.return_code == 0
        assert stdout == "".join(f"{n} {i}\n" for i in range(200))


# --- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "return_code", "stderr"),
    [
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('why')", 1, "why\n"),
        ("import os; os._exit(7)", 7, ""),
        ("import os; os.kill(os.getpid(), 9)", 137, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
        ("import atexit, sys; atexit.register(print, 'bye', file=sys.stderr)", 0, "bye\n"),
        (
            "import os, threading; threading.Timer(0.01, os.write, [2, b'late']).start()",
            0,
            "late",
        ),
        ("import sys; sys.excepthook = lambda *e: sys.stderr.write('mine'); 1/0", 1, "mine"),
    ],
)
async def test_a_program_ends_as_python_lets_it(
    runner: ProcessRunner, tmp_path: Path, code: str, return_code: int, stderr: str
) -> None:
    end, _, errors = await run(runner, tmp_path / "run", code)
    assert (end.reason, end.return_code, errors) == ("exited", return_code, stderr)
    assert bool(end.error) == bool(return_code)


async def test_a_kill_from_elsewhere_is_explained(runner: ProcessRunner, tmp_path: Path) -> None:
    end, _, _ = await run(runner, tmp_path / "run", "import os; os.kill(os.getpid(), 9)")
    assert end.error.startswith("the program was killed by signal 9 (SIGKILL)")
    assert "memory" in end.error


async def test_a_traceback_shows_the_program_alone(runner: ProcessRunner, tmp_path: Path) -> None:
    end, _, stderr = await run(
        runner, tmp_path / "run", "def f():\n    1/0\nf()", file_name="analysis.py"
    )
    script = tmp_path / "run/work/analysis.py"
    assert end.return_code == 1
    assert end.error == "the program ended with exit code 1"
    assert [line for line in stderr.splitlines() if "File" in line] == [
        f'  File "{script}", line 3, in <module>',
        f'  File "{script}", line 2, in f',
    ]


async def test_a_syntax_error_looks_as_it_does_in_python(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    end, _, stderr = await run(runner, tmp_path / "run", "x = 1\nx =")
    script = tmp_path / "run/work/main.py"
    plain = await asyncio.to_thread(
        subprocess.run, [sys.executable, script], capture_output=True, text=True
    )
    assert (end.return_code, stderr) == (plain.returncode, plain.stderr)


@pytest.mark.parametrize("prelude", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"])
async def test_the_time_limit_ends_a_program_even_if_it_ignores_sigterm(
    runner: ProcessRunner, tmp_path: Path, prelude: str
) -> None:
    code = f"import os, signal\n{prelude}print(os.getpid())\nwhile True: pass"
    end, stdout, _ = await run(runner, tmp_path / "run", code, timeout=1, grace_s=0.2)
    assert (end.reason, end.return_code) == ("timeout", None)
    assert end.error == "the run exceeded its time limit of 1 s"
    assert not is_alive(int(stdout))


async def test_stop_lets_a_program_say_goodbye(runner: ProcessRunner, tmp_path: Path) -> None:
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready')\nwhile True: signal.pause()"
    )
    handle = await start(runner, tmp_path / "run", code)
    await until(handle, lambda stdout: "ready" in stdout)
    await handle.stop()
    end = await handle.ended()
    assert (end.reason, end.return_code) == ("stopped", 5)


# Each says its pid in one write: print writes text and line end apart where nothing is buffered,
# and four processes share the pipe.
FAMILY = """
import os, signal, subprocess, sys
inner = "import os, time; os.write(1, b'%d\\\\n' % os.getpid()); time.sleep(1000)"
for own_session in (False, True):
    subprocess.Popen([sys.executable, "-c", inner], start_new_session=own_session)
if not os.fork():  # a daemon: its parent is gone, its session its own
    os.setsid()
    if not os.fork():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b'%d\\n' % os.getpid())
        while True: signal.pause()
    os._exit(0)
os.write(1, b'%d\\n' % os.getpid())
"""


async def family(handle: SupervisedHandle) -> list[int]:
    """The processes of FAMILY, once all four have spoken."""
    stdout = await until(handle, lambda stdout: stdout.count("\n") == 4)
    return [int(pid) for pid in stdout.split()]


async def test_kill_leaves_no_descendant(runner: ProcessRunner, tmp_path: Path) -> None:
    handle = await start(runner, tmp_path / "run", FAMILY + "signal.pause()")
    pids = await family(handle)
    assert all(is_alive(pid) for pid in pids)
    await handle.kill()
    end = await handle.ended()
    assert (end.reason, end.return_code, end.error) == ("aborted", None, "the run was aborted")
    assert not any(is_alive(pid) for pid in pids)


async def test_children_that_stay_do_not_keep_a_run(runner: ProcessRunner, tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'],"
        " start_new_session=True)\n"
        "print(child.pid)"
    )
    end, stdout, _ = await run(runner, tmp_path / "run", code)
    assert (end.reason, end.return_code) == ("exited", 0)
    assert not is_alive(int(stdout))


async def test_a_dead_supervisor_means_lost_and_nothing_left(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    handle = await start(runner, tmp_path / "run", FAMILY + "signal.pause()")
    pids = await family(handle)
    supervisor = json.loads((tmp_path / "run/supervisor.json").read_text())
    os.kill(supervisor["pid"], signal.SIGKILL)
    end = await handle.ended()
    assert (end.reason, end.return_code) == ("lost", None)
    assert "supervisor" in end.error
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("recursive", [False, True])
async def test_a_killed_idle_interpreter_costs_no_run(
    runner: ProcessRunner, tmp_path: Path, recursive: bool
) -> None:
    for process in psutil.Process().children(recursive=recursive):
        process.kill()
    end, stdout, _ = await run(runner, tmp_path / "run", "print('hi')")
    assert (end.reason, stdout) == ("exited", "hi\n")


async def test_a_full_disk_ends_a_run_as_lost(runner: ProcessRunner, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "size=256k"):
        end, stdout, _ = await run(
            runner, disk / "run", "while True: print('x' * 10_000, flush=True)"
        )
        assert (end.reason, end.return_code) == ("lost", None)
        assert "is full: make room on it" in end.error
        assert stdout.startswith("x" * 10_000)
        assert (await _found(runner, disk / "run")).reason == "lost"


async def _found(runner: ProcessRunner, folder: Path) -> RunEnd:
    handle = await runner.find(run_order(folder, ""))
    assert handle is not None
    return await handle.ended()


# --- what a program sees ---------------------------------------------------------------------


async def test_the_environment_is_clean(
    runner: ProcessRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = [
        "LYCEUM_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "HTTPS_PROXY",
        "JPY_API_TOKEN",
        "PYTHONPATH",
    ]
    for name in hidden:
        monkeypatch.setenv(name, "secret-of-the-server")
    monkeypatch.setenv("LC_TIME", "C")
    fresh = ProcessRunner(tmp_path / "fresh", pool_size=0)
    _, stdout, _ = await run(
        fresh,
        tmp_path / "run",
        "import os, json; print(json.dumps(dict(os.environ)))\n"
        "print(open('/proc/self/environ').read())\n"
        "print(open(f'/proc/{os.getppid()}/environ').read())",
        environment={"MY_SECRET": "mine"},
    )
    await fresh.close()
    seen = json.loads(stdout.partition("\n")[0])
    assert not set(hidden) & set(seen)
    assert "secret-of-the-server" not in stdout
    assert seen["MY_SECRET"] == "mine"
    assert seen["LYCEUM_RUN_ID"] == "run"
    assert seen["LC_TIME"] == "C"
    assert seen["PYTHONUNBUFFERED"] == "1"
    assert not (tmp_path / "run/assignment.json").exists()


async def test_the_program_is_an_ordinary_main_module(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    code = (
        "'''doc'''\nfrom __future__ import annotations\nimport json, os, sys, signal, __main__\n"
        "print(json.dumps([__name__, __doc__, __file__, sys.argv, sys.path[0], os.getcwd(),"
        " __main__.__dict__ is globals(), sys.stdin.read(), sys.stdout.write_through,"
        " sys.stdout.encoding, signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
        " signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,"
        " [m for m in sys.modules if m.startswith('lyceum')],"
        " sorted(os.listdir('/proc/self/fd'), key=int)]))"
    )
    _, stdout, stderr = await run(runner, tmp_path / "run", code)
    assert stderr == ""
    work = tmp_path / "run/work"
    script = str(work / "main.py")
    assert json.loads(stdout) == [
        *["__main__", "doc", script, [script], str(work), str(work)],
        *[True, "", True, "utf-8", True, True, [], ["0", "1", "2", "3"]],
    ]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_multiprocessing_works(runner: ProcessRunner, tmp_path: Path, method: str) -> None:
    code = (
        "import multiprocessing, helper\n"
        "def double(x): return helper.two * x\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context({method!r}).Pool(2) as pool:\n"
        "        print(pool.map(double, [1, 2, 3]))\n"
    )
    end, stdout, stderr = await run(
        runner, tmp_path / "run", code, import_files='{"helper.py": "two = 2"}'
    )
    assert (end.return_code, stdout, stderr) == (0, "[2, 4, 6]\n", "")


async def test_import_files_can_be_imported(runner: ProcessRunner, tmp_path: Path) -> None:
    files = {"pkg/__init__.py": "", "pkg/deep/mod.py": "name = 'ü'", "main.py": "name = 'other'"}
    code = "import main, pkg.deep.mod\nprint(pkg.deep.mod.name, main.name)"
    end, stdout, _ = await run(
        runner, tmp_path / "run", code, import_files=json.dumps(files), file_name="../../main.py"
    )
    assert (end.return_code, stdout) == (0, "ü other\n")


async def test_files_that_contradict_each_other_are_refused(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    end, _, _ = await run(
        runner, tmp_path / "run", "", import_files=json.dumps({"a": "", "a/b.py": ""})
    )
    assert (end.reason, end.return_code, end.started_at) == ("refused", None, None)
    assert "a/b.py" in end.error


async def test_prior_imports_do_not_shift_lines(runner: ProcessRunner, tmp_path: Path) -> None:
    code = "from __future__ import annotations\nprint(math.pi, j.dumps([]))\nraise KeyError"
    _, stdout, stderr = await run(
        runner, tmp_path / "run", code, prior_imports=["math", "import json as j"]
    )
    assert stdout == "3.141592653589793 []\n"
    assert 'main.py", line 3, in <module>' in stderr


async def test_a_prior_import_that_fails_fails_the_run(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    end, _, stderr = await run(runner, tmp_path / "run", "", prior_imports=["no_such_module"])
    assert (end.reason, end.return_code) == ("exited", 1)
    assert "No module named 'no_such_module'" in stderr
    assert "supervisor" not in stderr


# --- servers that die ------------------------------------------------------------------------

SERVER = """
import asyncio, sys
from pathlib import Path
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.server.runners.base import RunOrder
from lyceum_magic.server.runners.process.runner import ProcessRunner

async def main():
    runner = ProcessRunner(Path(sys.argv[1]))
    await runner.open()
    folder = Path(sys.argv[2])
    handle = await runner.start(RunOrder(folder.name, folder, StartPython(code=sys.argv[3])), print)
    await handle.grown(0)
    print("running", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def start_server_and_kill_it(state: Path, folder: Path, code: str) -> None:
    """Let another process start a run, and kill it once the run has printed something."""
    folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, state, folder, code], stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"running\n"
        server.send_signal(signal.SIGINT)
        server.kill()


async def test_a_run_outlives_its_server_and_is_found(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    folder = tmp_path / ("a-long-way-down" * 10) / "run"  # longer than a socket's address may be
    code = f"print('before')\nopen({str(go)!r}).read()\nfor i in range(5000): print(i)"
    await asyncio.to_thread(start_server_and_kill_it, tmp_path / "state", folder, code)

    handle = await runner.find(run_order(folder, code))
    assert handle is not None
    await handle.started()
    assert handle.started_at is not None
    assert output(handle, "stdout").startswith("before\n")
    await asyncio.to_thread(go.write_text, "")
    assert (await handle.ended()).return_code == 0
    assert output(handle, "stdout") == "before\n" + "".join(f"{i}\n" for i in range(5000))


async def test_a_found_run_can_be_killed(runner: ProcessRunner, tmp_path: Path) -> None:
    code = FAMILY + "signal.pause()"
    await asyncio.to_thread(start_server_and_kill_it, tmp_path / "state", tmp_path / "run", code)
    handle = await runner.find(run_order(tmp_path / "run", code))
    assert handle is not None
    pids = await family(handle)
    await handle.kill()
    assert (await handle.ended()).reason == "aborted"
    assert not any(is_alive(pid) for pid in pids)


async def test_a_run_that_ended_without_a_server_is_found(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    code = "print('hi')\nraise SystemExit(4)"
    await asyncio.to_thread(start_server_and_kill_it, tmp_path / "state", folder, code)
    end = await _found(runner, folder)
    assert (end.reason, end.return_code) == ("exited", 4)
    assert await _found(runner, folder) == end


async def test_a_run_whose_supervisor_died_without_a_server_is_lost(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    code = "import os, signal; print(os.getpid()); signal.pause()"
    await asyncio.to_thread(start_server_and_kill_it, tmp_path / "state", folder, code)
    os.kill(json.loads((folder / "supervisor.json").read_text())["pid"], signal.SIGKILL)
    assert (await _found(runner, folder)).reason == "lost"


async def test_a_run_whose_socket_is_gone_is_lost_and_leaves_nothing(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    code = FAMILY + "signal.pause()"
    await asyncio.to_thread(start_server_and_kill_it, tmp_path / "state", folder, code)
    found = await runner.find(run_order(folder, code))
    assert found is not None
    pids = await family(found)
    await found.leave()
    (folder / "control.sock").unlink()
    handle = await runner.find(run_order(folder, code))
    assert handle is not None
    end = await handle.ended()
    assert (end.reason, end.error) == ("lost", "the supervisor of the run can no longer be reached")
    assert not any(is_alive(pid) for pid in pids)


def test_who_only_looks_at_a_run_is_no_supervisor_of_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with lock.open("w") as supervisor:
        fcntl.flock(supervisor, fcntl.LOCK_SH)  # as long as another process looks
        assert not is_supervised(tmp_path)
        fcntl.flock(supervisor, fcntl.LOCK_EX)
        assert is_supervised(tmp_path)


async def test_a_server_that_runs_no_processes_refuses_those_that_an_earlier_one_accepted(
    tmp_path: Path,
) -> None:
    runner = ProcessRunner(tmp_path / "state", is_refused=True)
    before = psutil.Process().children()
    await runner.open()
    end, stdout, _ = await run(runner, tmp_path / "run", "print('ran')")
    assert psutil.Process().children() == before  # none waits for a run either
    await runner.close()
    assert (end.reason, stdout) == ("refused", "")
    assert "`--profile local`" in end.error


async def test_a_run_that_was_never_handed_over_is_not_found(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    assert await runner.find(run_order(tmp_path / "run", "")) is None


async def test_closing_the_runner_leaves_the_runs(runner: ProcessRunner, tmp_path: Path) -> None:
    other = ProcessRunner(tmp_path / "state")
    handle = await start(
        other, tmp_path / "run", "input() if 0 else print('hi')\nimport signal\nsignal.pause()"
    )
    await until(handle, lambda stdout: "hi" in stdout)
    await other.close()
    found = await runner.find(run_order(tmp_path / "run", ""))
    assert found is not None
    await found.kill()
    assert (await found.ended()).reason == "aborted"


# --- requirements ----------------------------------------------------------------------------


def _index(folder: Path) -> str:
    """A package index in a folder: `tiny` 1.0, and `stuck`, which is never delivered."""
    tiny = folder / "tiny"
    tiny.mkdir(parents=True)
    wheel = "tiny_lyceum_test-1.0-py3-none-any.whl"
    with zipfile.ZipFile(tiny / wheel, "w") as archive:
        files = {
            "tiny_lyceum_test.py": "value = 42\n",
            "tiny_lyceum_test-1.0.dist-info/METADATA": (
                "Metadata-Version: 2.1\nName: tiny-lyceum-test\nVersion: 1.0\n"
            ),
            "tiny_lyceum_test-1.0.dist-info/WHEEL": (
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            ),
        }
        record = "".join(
            f"{name},sha256={_digest(text)},{len(text)}\n" for name, text in files.items()
        )
        files["tiny_lyceum_test-1.0.dist-info/RECORD"] = (
            record + "tiny_lyceum_test-1.0.dist-info/RECORD,,\n"
        )
        for name, text in files.items():
            archive.writestr(name, text)
    tiny.rename(folder / "tiny-lyceum-test")
    link = f'<a href="{wheel}">{wheel}</a>'
    (folder / "tiny-lyceum-test/index.html").write_text(f"<!DOCTYPE html><body>{link}</body>")
    return folder.as_uri()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


USE_TINY = (
    "import subprocess, sys, tiny_lyceum_test\n"
    "print(tiny_lyceum_test.value, flush=True)\n"
    "subprocess.run([sys.executable, '-c', 'import tiny_lyceum_test'], check=True)"
)


async def test_what_is_missing_is_installed_once(runner: ProcessRunner, tmp_path: Path) -> None:
    phrases: list[str] = []
    handles = [
        await runner.start(
            run_order(
                tmp_path / f"run{n}", USE_TINY, requirements_content="tiny-lyceum-test\npytest"
            ),
            phrases.append,
        )
        for n in range(5)
    ]
    for handle in handles:
        end = await handle.ended()
        assert (end.return_code, output(handle, "stdout")) == (0, "42\n"), output(handle, "stderr")
    assert set(phrases) == {"installing requirements"}
    assert len(list((tmp_path / "state/requirements").iterdir())) == 1


async def test_the_installation_itself_stays_out_of_the_server(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    await run(runner, tmp_path / "run", USE_TINY, requirements_content="tiny-lyceum-test")
    end, _, stderr = await run(runner, tmp_path / "bare", "import tiny_lyceum_test")
    assert end.return_code == 1
    assert "ModuleNotFoundError" in stderr


async def test_a_package_that_does_not_exist_refuses_the_run(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    end, _, stderr = await run(
        runner, tmp_path / "run", "print('never')", requirements_content="no-such-lyceum-package"
    )
    assert (end.reason, end.return_code, end.started_at) == ("refused", None, None)
    assert "no-such-lyceum-package" in end.error
    assert "\n" not in end.error
    assert "no-such-lyceum-package" in stderr
    assert list((tmp_path / "state/requirements").iterdir()) == []


async def test_a_local_tag_is_taken_off_with_a_notice(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    end, stdout, stderr = await run(
        runner, tmp_path / "run", USE_TINY, requirements_content="tiny-lyceum-test==1.0+cu121"
    )
    assert (end.return_code, stdout) == (0, "42\n")
    assert "+cu121" in stderr


@pytest.fixture
async def stuck_index() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """An index that takes a question and never answers; the event says that it was asked."""
    asked = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await _.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/simple", asked
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("order", "reason"), [(SupervisedHandle.kill, "aborted"), (SupervisedHandle.stop, "stopped")]
)
async def test_an_installation_can_be_ended(
    tmp_path: Path,
    stuck_index: tuple[str, asyncio.Event],
    order: Callable[[SupervisedHandle], Any],
    reason: str,
) -> None:
    url, asked = stuck_index
    runner = ProcessRunner(tmp_path / "state", index_url=url)
    handle = await start(runner, tmp_path / "run", "", requirements_content="anything-at-all")
    await asked.wait()
    await order(handle)
    end = await handle.ended()
    assert (end.reason, end.return_code, end.started_at) == (reason, None, None)
    await runner.close()


async def test_an_installation_has_its_own_limit(
    tmp_path: Path, stuck_index: tuple[str, asyncio.Event]
) -> None:
    runner = ProcessRunner(tmp_path / "state", index_url=stuck_index[0], install_limit_s=0.2)
    end, _, _ = await run(runner, tmp_path / "run", "", requirements_content="anything-at-all")
    assert end.reason == "refused"
    assert end.error == "installing the requirements exceeded its limit of 0.2 s"
    await runner.close()


# --- what it uses ----------------------------------------------------------------------------


async def test_usage_is_that_of_the_program_and_all_it_started(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    size = 64 << 20
    busy = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    code = (
        "import subprocess, sys\n"
        # One child works and is gone, another holds memory and stays.
        f"subprocess.run([sys.executable, '-c', {busy!r}], check=True)\n"
        f"hold = \"held = b'x' * {size}; print('held', flush=True); input()\"\n"
        "child = subprocess.Popen([sys.executable, '-c', hold], stdin=subprocess.PIPE)\n"
        "child.wait()\n"
    )
    handle = await start(runner, tmp_path / "run", code)
    await until(handle, lambda stdout: "held" in stdout)
    usage = await handle.usage()
    assert usage is not None
    assert usage.memory_bytes > size
    assert usage.cpu_s >= 0.3
    await handle.kill()
    await handle.ended()
    assert await handle.usage() is None


async def test_requirements_of_a_live_run_are_not_swept_away(
    runner: ProcessRunner, tmp_path: Path
) -> None:
    cache = tmp_path / "state" / "requirements"
    for name, age_s in (("recent", 1800), ("old", 7200)):
        (cache / name).mkdir(parents=True)
        used_at = time.time() - age_s
        os.utime(cache / name, (used_at, used_at))
    handle = await start(runner, tmp_path / "run", "import time; time.sleep(600)")
    await runner.sweep(time.time())  # it is still to be seen what this run needs
    assert {path.name for path in cache.iterdir()} == {"recent", "old"}
    await handle.started()
    await runner.sweep(time.time())
    assert {path.name for path in cache.iterdir()} == {"recent"}
    await handle.kill()
    await handle.ended()
