"""`%%lyceum` in real kernels on the embedded server: text, ends, interrupts, and deaths."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from tests.tools.embedded import end_server, kill_server, run_folder, server_facts, server_process
from tests.tools.kernel import Kernel, running_kernel

pytestmark = pytest.mark.kernel


@pytest.fixture
def kernel(own_machine: Path) -> Iterator[Kernel]:
    """A kernel of this test's own, with a server of its own."""
    with running_kernel() as kernel:
        yield kernel


@pytest.fixture(scope="module")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of the kernel that the quiet tests share."""
    state = tmp_path_factory.mktemp("shared") / "lyceum"
    yield state
    end_server(state)


@pytest.fixture(scope="module")
def shared_kernel(shared_state: Path) -> Iterator[Kernel]:
    env = {"LYCEUM_MAGIC_HOME": str(shared_state), "HOME": str(shared_state.parent)}
    with running_kernel(env=env) as kernel:
        yield kernel


def gate(path: Path) -> str:
    """Code that waits until `path` exists."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(.02)\n"


def field(kernel: Kernel, name: str) -> object:
    """One member of the last run's record."""
    shown = kernel.run(f"import json; print(json.dumps(_run.record()[{name!r}]))")
    return json.loads(shown.stdout)


def runs(kernel: Kernel) -> str:
    return kernel.run("import lyceum_magic; print(len(lyceum_magic.runs()))").stdout


# --- text ------------------------------------------------------------------------------------


def test_each_line_comes_before_the_next_one_is_printed(
    shared_kernel: Kernel, tmp_path: Path
) -> None:
    cell = shared_kernel.start(
        "%%lyceum\n"
        + "".join(f"print({i})\n{gate(tmp_path / f'gate{i}')}" for i in range(4))
        + "print('end')"
    )
    for i in range(4):
        cell.until(lambda cell, i=i: cell.stdout == "".join(f"{n}\n" for n in range(i + 1)))
        (tmp_path / f"gate{i}").touch()
    assert cell.done().stdout == "0\n1\n2\n3\nend\n"


def test_text_arrives_as_it_was_written(shared_kernel: Kernel) -> None:
    texts = ["a\n\n\nb", "tab\there", "emoji 😀 é", "\x1b[31mred\x1b[0m", "50%\r100%", "x" * 2**20]
    cell = shared_kernel.run(f"%%lyceum\nfor text in {texts!r}: print(text)")
    assert cell.stdout == "".join(f"{text}\n" for text in texts)
    assert cell.stderr == ""


def test_stderr_is_a_stream_of_its_own(shared_kernel: Kernel) -> None:
    cell = shared_kernel.run("%%lyceum\nimport sys\nprint('out')\nprint('aside', file=sys.stderr)")
    assert (cell.stdout, cell.stderr) == ("out\n", "aside\n")


def test_bytes_that_are_no_text_are_shown_as_such_and_kept(
    shared_kernel: Kernel, shared_state: Path
) -> None:
    cell = shared_kernel.run("%%lyceum\nimport os\nos.write(1, b'a\\xff\\xfeb\\n')")
    assert cell.stdout.startswith("a��b\n")
    run_id = shared_kernel.run("print(_run.id)").stdout.strip()
    assert b"a\xff\xfeb\n" in (run_folder(shared_state, run_id) / "spool").read_bytes()


def test_the_value_of_the_last_line_is_shown_and_lines_count_as_in_the_notebook(
    shared_kernel: Kernel,
) -> None:
    assert "42" in shared_kernel.run("%%lyceum\nx = 6\nx * 7").summary.splitlines()
    cell = shared_kernel.run("%%lyceum\n\n1 / 0")
    assert cell.error is not None
    shown = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.error["traceback"]))
    assert ", line 3\n" in shown
    assert "----> 3 1 / 0" in shown
    assert "lyceum" not in shown + cell.stderr


def test_a_flood_leaves_head_and_tail_in_the_cell_and_all_of_it_on_disk(
    shared_kernel: Kernel,
) -> None:
    cell = shared_kernel.run("%%lyceum\nfor i in range(1_000_000): print('line', i)")
    assert cell.stdout.startswith("line 0\n")
    assert cell.stdout.endswith("line 999999\n")
    assert "left out here" in cell.stderr
    assert len(cell.stdout) < 1_500_000
    assert shared_kernel.run("%lyceum logs --grep 999999").stdout == "line 999999\n"
    whole = shared_kernel.run("print(sum(event.text.count('\\n') for event in _run.read_log()))")
    assert whole.stdout == "1000000\n"


# --- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "error", "return_code", "reason"),
    [
        ("", "import sys; sys.exit(3)", "RunFailed", 3, "exit code 3"),
        ("", "import os; os.kill(os.getpid(), 9)", "RunFailed", 137, "signal 9 (SIGKILL)"),
        ("-t 2", "while True: pass", "RunTimedOut", None, "time limit of 2 s"),
    ],
)
def test_a_failed_run_raises_with_its_reason_and_the_record_agrees(
    shared_kernel: Kernel, line: str, code: str, error: str, return_code: int | None, reason: str
) -> None:
    cell = shared_kernel.run(f"%%lyceum {line}\n{code}")
    assert cell.error is not None
    assert cell.error["ename"] == error
    assert reason in cell.error["evalue"]
    # One line for the reader: what the program said is above, in its own words.
    assert cell.error["traceback"] == f"{error}: {cell.error['evalue']}".splitlines()
    assert reason in cell.summary
    assert (
        shared_kernel.run("print(_run.state, _run.return_code)").stdout == f"failed {return_code}\n"
    )
    assert (field(shared_kernel, "status"), field(shared_kernel, "return_code")) == (
        "failed",
        return_code,
    )


def test_no_raise_lets_the_notebook_go_on(shared_kernel: Kernel) -> None:
    cell = shared_kernel.run("%%lyceum --no-raise --as broken\n1 / 0")
    assert cell.error is None
    assert shared_kernel.run("print(broken.state, broken is _run)").stdout == "failed True\n"


def test_a_run_ends_when_its_main_process_ends_though_a_child_holds_its_pipe(
    shared_kernel: Kernel,
) -> None:
    cell = shared_kernel.run(
        "%%lyceum\nimport subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid)"
    )
    assert cell.error is None
    assert not psutil.pid_exists(int(cell.stdout))


def test_a_run_that_takes_its_own_folder_away_ends_all_the_same(shared_kernel: Kernel) -> None:
    cell = shared_kernel.run(
        "%%lyceum\nimport os, shutil\nprint('before')\n"
        "shutil.rmtree(os.path.dirname(os.getcwd()))\nprint('after')"
    )
    assert cell.error is not None
    assert cell.error["ename"] == "RunLost"
    assert "folder cannot be used" in cell.error["evalue"]
    assert shared_kernel.run("%%lyceum\nprint('next')").stdout == "next\n"


def test_spawned_workers_get_the_definitions_and_run_nothing_twice(shared_kernel: Kernel) -> None:
    cell = shared_kernel.run(
        "%%lyceum\nimport multiprocessing\ndef double(x): return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    for method in ('fork', 'spawn', 'forkserver'):\n"
        "        with multiprocessing.get_context(method).Pool(2) as pool:\n"
        "            print(method, pool.map(double, [1, 2]), flush=True)\n"
        "'shown once'"
    )
    assert cell.stdout == "fork [2, 4]\nspawn [2, 4]\nforkserver [2, 4]\n", cell.stderr
    assert cell.summary.count("'shown once'") == 1


def test_a_typing_error_is_shown_as_python_shows_it_and_starts_nothing(
    shared_kernel: Kernel,
) -> None:
    before = runs(shared_kernel)
    cell = shared_kernel.run("%%lyceum\nx = 1\ny = = 2")
    assert cell.error is not None
    assert "\n".join(cell.error["traceback"]) == (
        '  File "<cell>", line 3\n    y = = 2\n        ^\nSyntaxError: invalid syntax'
    )
    assert runs(shared_kernel) == before


# --- interrupts ------------------------------------------------------------------------------

FAMILY = """\
import json, os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
child = ("import subprocess, sys, time; "
         f"print(subprocess.Popen({sleep!r}, start_new_session=True).pid, flush=True); "
         "time.sleep(600)")
parent = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
print("family", json.dumps([os.getpid(), parent.pid, int(parent.stdout.readline())]))
time.sleep(600)
"""


def family_of(text: str) -> list[psutil.Process]:
    found = re.search(r"family (\[.*\])", text)
    return [psutil.Process(pid) for pid in json.loads(found[1])] if found else []


def is_alive(process: psutil.Process) -> bool:
    """Return whether it still runs; a dead one may stay as a zombie that no parent reaps."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_an_interrupt_aborts_the_run_and_leaves_no_process(kernel: Kernel) -> None:
    cell = kernel.start(f"%%lyceum\n{FAMILY}").until(lambda cell: "\n" in cell.stdout)
    family = family_of(cell.stdout)
    assert len(family) == 3
    kernel.interrupt()
    cell.done()
    assert cell.error is not None
    assert cell.error["ename"] == "RunAborted"
    assert "interrupted" in cell.error["evalue"]
    assert [process for process in family if is_alive(process)] == []
    assert field(kernel, "status") == "aborted"


def test_an_interrupt_during_the_start_leaves_nothing_running(
    kernel: Kernel, own_machine: Path
) -> None:
    kernel.run("%%lyceum\n1")
    server = server_process(own_machine)
    assert server is not None
    server.suspend()
    cell = kernel.start("%%lyceum\nimport time\ntime.sleep(600)")
    # The place of its strip is published before the start is sent, the strip itself after it.
    cell.until(lambda cell: any(m["msg_type"] == "update_display_data" for m in cell.messages))
    kernel.interrupt()
    cell.until(lambda cell: "interrupted" in cell.summary)
    server.resume()
    cell.done()
    assert cell.error is not None
    assert cell.error["ename"] == "RunAborted"
    assert field(kernel, "status") == "aborted"


def test_an_interrupt_of_a_bare_await_aborts_the_run(kernel: Kernel) -> None:
    cell = kernel.start(
        "import lyceum_magic\n"
        "run = lyceum_magic.submit('import time; time.sleep(600)')\nprint('started')\nawait run"
    )
    cell.until(lambda cell: "started" in cell.stdout)
    kernel.interrupt()
    cell.done()
    assert cell.error is not None
    assert kernel.run("print(run.state)").stdout == "aborted\n"


def test_a_second_interrupt_leaves_and_the_run_can_be_attached_again(
    kernel: Kernel, own_machine: Path
) -> None:
    cell = kernel.start("%%lyceum\nimport time\nprint('here')\ntime.sleep(600)")
    cell.until(lambda cell: "here" in cell.stdout)
    server = server_process(own_machine)
    assert server is not None
    server.suspend()  # so that the abort cannot be confirmed
    kernel.interrupt()
    kernel.pump(lambda: "interrupted" in str(cell.messages))
    kernel.interrupt()
    cell.done()
    assert cell.error is not None
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert "%lyceum attach" in cell.summary
    server.resume()
    again = kernel.run("%lyceum attach last")
    assert again.stdout == "here\n"
    assert again.error is not None
    assert again.error["ename"] == "RunAborted"


def test_an_interrupt_reaches_no_other_kernel_and_not_the_server(
    kernel: Kernel, own_machine: Path, tmp_path: Path
) -> None:
    with running_kernel() as other:
        cell = kernel.start(f"%%lyceum\nprint('up')\n{gate(tmp_path / 'gate')}print('end')")
        cell.until(lambda cell: "up" in cell.stdout)
        pid = server_facts(own_machine)["pid"]
        victim = other.start("%%lyceum\nimport time\nprint('up')\ntime.sleep(600)")
        victim.until(lambda cell: "up" in cell.stdout)
        other.interrupt()
        victim.done()
        (tmp_path / "gate").touch()
        assert cell.done().stdout == "up\nend\n"
        assert cell.error is None
        assert server_facts(own_machine)["pid"] == pid


# --- deaths ----------------------------------------------------------------------------------


def test_a_cell_goes_on_when_its_server_is_killed_and_started_again(
    kernel: Kernel, own_machine: Path, tmp_path: Path
) -> None:
    count = 2000
    cell = kernel.start(
        f"%%lyceum\nfor i in range({count // 2}): print('line', i)\n{gate(tmp_path / 'gate')}"
        f"for i in range({count // 2}, {count}): print('line', i)"
    )
    cell.until(lambda cell: f"line {count // 2 - 1}\n" in cell.stdout)
    before = kill_server(own_machine)
    (tmp_path / "gate").touch()  # the second half is printed while no server lives
    cell.done()
    whole = "".join(f"line {i}\n" for i in range(count))
    assert cell.error is None
    assert cell.stdout == whole
    assert "the connection is lost" in str(cell.messages)
    assert field(kernel, "combined_output") == whole
    assert server_facts(own_machine)["pid"] != before


def test_a_run_whose_supervisor_is_killed_is_a_failure_of_the_system(kernel: Kernel) -> None:
    cell = kernel.start("%%lyceum\nimport os, time\nprint(os.getpid())\ntime.sleep(600)")
    cell.until(lambda cell: "\n" in cell.stdout)
    program = psutil.Process(int(cell.stdout))
    supervisor = program.parent()
    assert supervisor is not None
    supervisor.kill()
    cell.done()
    assert cell.error is not None
    assert cell.error["ename"] == "RunLost"
    assert not is_alive(program)
    assert field(kernel, "status") == "system_failure"


def test_a_run_outlives_its_kernel_and_another_one_has_all_of_it(
    own_machine: Path, tmp_path: Path
) -> None:
    with running_kernel() as first:
        cell = first.start(f"%%lyceum\nprint('one')\n{gate(tmp_path / 'gate')}print('two')")
        cell.until(lambda cell: "one" in cell.stdout)
        psutil.Process(first.pid).kill()
    with running_kernel() as second:
        assert "running" in second.run("%lyceum list --all").result
        assert second.run("%lyceum logs last").stdout == "one\n"
        (tmp_path / "gate").touch()
        attached = second.run("%lyceum attach last")
        assert attached.stdout == "one\ntwo\n"
        assert "completed" in attached.summary
        assert "completed" in second.run("%lyceum list --all").result


def test_first_cells_of_two_kernels_share_one_server(own_machine: Path) -> None:
    with running_kernel() as one, running_kernel() as other:
        cells = [kernel.start("%%lyceum\nprint('hi')") for kernel in (one, other)]
        assert [cell.done().stdout for cell in cells] == ["hi\n", "hi\n"]
        ports = {kernel.run("%lyceum server").result.split()[5] for kernel in (one, other)}
        assert len(ports) == 1


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("%%lyceum --bogus\n1", "unrecognized arguments: --bogus"),
        ("%%lyceum -m gpu.a1000\n1", "choose one of cpu, gpu, gpu.a100"),
        ("%%lyceum -m not-a-name\n1", "takes a name such as gpu.a100, not 'not-a-name'"),
        ("%%lyceum -t 0\n1", "takes 1 to 600 seconds, not 0"),
        ("%%lyceum -t 601\n1", "takes 1 to 600 seconds, not 601"),
        ("%%lyceum -t soon\n1", "a whole number is expected, not 'soon'"),
        ("%%lyceum --meta novalue\n1", "--meta takes KEY=VALUE, not 'novalue'"),
        ("%%lyceum --as 1x\n1", "--as takes a Python name"),
        ("%%lyceum --name 'open\n1", "No closing quotation"),
        ("%%lyceum -r missing.txt\n1", "there is no file missing.txt"),
        ("%%lyceum --local --cloud\n1", "not allowed with argument"),
        ("%%lyceum --cloud\n1", "--cloud needs an API key"),
        ("%%lyceum\n   \n", "The cell is empty"),
        ("%lyceum bogus", "invalid choice: 'bogus'"),
        ("%lyceum abort", "the following arguments are required: id"),
        ("%lyceum logs nosuch", "No run of yours begins with 'nosuch'"),
    ],
)
def test_bad_input_is_one_sentence_and_starts_nothing(
    shared_kernel: Kernel, cell: str, sentence: str
) -> None:
    before = runs(shared_kernel)
    done = shared_kernel.run(cell)
    assert done.error is not None
    assert sentence in done.error["evalue"]
    assert len(done.error["traceback"]) == 1
    assert done.error["evalue"].rstrip().endswith(".")
    assert runs(shared_kernel) == before


class _Html(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<html>It works!</html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def html_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Html)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def only_error(env: dict[str, str]) -> dict[str, str]:
    """The output of a cell in a kernel with these variables; nothing may have been started."""
    with running_kernel(env=env) as kernel:
        cell = kernel.run("%%lyceum\nprint('never')")
        assert cell.stdout == ""
        assert cell.error is not None
        assert len(cell.error["traceback"]) == 1
        return cell.error


def test_a_wrong_key_says_where_it_came_from_and_not_what_it_is(kernel: Kernel) -> None:
    kernel.run("%%lyceum\n1")
    origin = kernel.run("%lyceum server").result.split()[5]
    error = only_error({"LYCEUM_API_KEY": "lk_canary", "LYCEUM_BASE_URL": origin})
    assert error["ename"] == "NotAuthorised"
    assert "LYCEUM_API_KEY was refused (401)" in error["evalue"]
    assert "lk_canary" not in str(error)


def test_a_server_that_is_not_there_and_one_that_is_not_lyceum(html_server: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        error = only_error({"LYCEUM_API_KEY": "lk_canary", "LYCEUM_BASE_URL": nobody})
    assert error["ename"] == "ServerUnreachable"
    assert nobody in error["evalue"]
    error = only_error({"LYCEUM_API_KEY": "lk_canary", "LYCEUM_BASE_URL": html_server})
    assert error["ename"] == "ProtocolError"
    assert "answered 200 with text/html" in error["evalue"]


def test_a_nonsense_proxy_is_named_for_the_cloud_and_ignored_for_the_embedded_server() -> None:
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "nonsense://x:y")
    cloud = {"LYCEUM_API_KEY": "lk_canary", "LYCEUM_BASE_URL": "https://lyceum.invalid"}
    error = only_error({**proxies, **cloud})
    assert error["ename"] == "ConfigError"
    assert "HTTPS_PROXY" in error["evalue"]
    with running_kernel(env=proxies) as kernel:
        assert kernel.run("%%lyceum\nprint('hi')").stdout == "hi\n"


def test_a_locked_journal_starts_nothing_and_is_named(own_machine: Path) -> None:
    with running_kernel() as kernel:
        kernel.run("%%lyceum\n1")
        journal = own_machine / "journal" / "journal.db"
        with contextlib.closing(sqlite3.connect(journal, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            error = kernel.run("%%lyceum\nprint('never')").error
        assert error is not None
        assert error["ename"] == "JournalUnavailable"
        assert str(journal) in error["evalue"]
        assert kernel.run("%%lyceum\nprint('again')").stdout == "again\n"


def test_status_and_doctor_say_when_the_server_is_not_lyceum(html_server: str) -> None:
    env = {"LYCEUM_API_KEY": "lk_canary", "LYCEUM_BASE_URL": html_server}
    with running_kernel(env=env) as kernel:
        error = kernel.run("%lyceum status").error
        assert error is not None
        assert error["ename"] == "ProtocolError"
        assert "answered 200 with text/html" in kernel.run("%lyceum doctor").result


def test_a_broken_login_file_is_named(own_machine: Path) -> None:
    login = Path.home() / ".lyceum" / "config.json"
    login.parent.mkdir()
    login.write_text('{"api_key": "lk_canary", ')
    error = only_error({})
    assert error["ename"] == "ConfigError"
    assert str(login) in error["evalue"]
    assert "lk_canary" not in str(error)


def test_a_requirement_that_does_not_exist_fails_with_the_installers_own_words(
    shared_kernel: Kernel,
) -> None:
    cell = shared_kernel.run("%%lyceum -r 'no-such-package-at-all==1'\nprint('never')")
    assert cell.error is not None
    assert cell.error["ename"] == "RunFailed"
    assert "no-such-package-at-all" in cell.stderr
    assert "never" not in cell.stdout


# --- from Python -----------------------------------------------------------------------------


def test_fifty_runs_at_once_give_each_its_own_text(shared_kernel: Kernel) -> None:
    cell = shared_kernel.run(
        "import lyceum_magic\n"
        "code = 'for i in range(200): print({n}, i)'\n"
        "runs = [lyceum_magic.submit(code.format(n=n)) for n in range(50)]\n"
        "texts = [run.result().text for run in runs]\n"
        "expected = [''.join(f'{n} {i}\\n' for i in range(200)) for n in range(50)]\n"
        "print(texts == expected)"
    )
    assert cell.stdout == "True\n"


SCRIPT = """\
import asyncio, lyceum_magic
run = lyceum_magic.submit("print('plain')").result()
print(run.text, end="")
try:
    lyceum_magic.submit("raise SystemExit(4)").result()
except lyceum_magic.RunFailed as exc:
    print(exc.state, exc.return_code)

async def main():
    runs = [lyceum_magic.submit(f"print({n})") for n in range(3)]
    print([(await run).text for run in runs])
    print(lyceum_magic.submit("print('blocking')").result().text, end="")

asyncio.run(main())
print(lyceum_magic.attach("last").text, end="")
"""


def test_a_plain_script_and_a_running_loop_use_the_same_calls() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout == "plain\nfailed 4\n['0\\n', '1\\n', '2\\n']\nblocking\nblocking\n"


def test_ipython_in_a_terminal_shows_text_and_the_summary() -> None:
    code = "%load_ext lyceum_magic\nget_ipython().run_cell_magic('lyceum', '', 'print(1)\\n2')"
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("1\n2\n")
    assert "lyceum ✓ completed" in done.stdout
    assert "Traceback" not in done.stderr
