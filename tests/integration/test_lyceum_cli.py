"""The official client, as people use it, against the embedded server: both are real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served
from tests.tools.wheels import write_wheel

LIMIT_S = 60
LYCEUM = Path(sys.executable).with_name("lyceum")


#: Import the client's libraries once, then run each command, which comes as a line, in a process of
#: its own, which imports the client itself.
COMMANDS = """
import json, os, sys
import lyceum.main

for name in [name for name in sys.modules if name.partition(".")[0] == "lyceum"]:
    del sys.modules[name]
for line in sys.stdin:
    arguments, stdout, stderr = json.loads(line)
    if (pid := os.fork()) == 0:
        for number, path in enumerate([os.devnull, stdout, stderr]):
            os.dup2(os.open(path, os.O_RDWR), number)
        sys.argv = ["lyceum", *arguments]
        from lyceum.main import app
        sys.exit(app())
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Lyceum:
    """The command `lyceum` with a home of its own, and a folder of programs to run.

    Its commands are children of one process that has imported its libraries, which takes half a
    second.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "programs"
        self.folder.mkdir(parents=True)
        # Nothing of the tester's: neither a login nor a proxy. The width keeps tables from
        # breaking ids in two.
        self._environment = {"HOME": str(home), "PATH": os.environ["PATH"], "COLUMNS": "200"}
        self._output = home / "stdout", home / "stderr"
        self._commands: subprocess.Popen[str] | None = None

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        commands = self._commands = self._commands or self._started()
        for path in self._output:
            path.write_text("")
        assert commands.stdin is not None
        assert commands.stdout is not None
        commands.stdin.write(json.dumps([arguments, *map(str, self._output)]) + "\n")
        commands.stdin.flush()
        code = int(commands.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, *(p.read_text() for p in self._output))

    def _started(self) -> subprocess.Popen[str]:
        commands = subprocess.Popen(
            [sys.executable, "-c", COMMANDS], cwd=self.folder, env=self._environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        weakref.finalize(self, commands.communicate)
        return commands

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The command while it runs; killed if the test has not ended it."""
        with subprocess.Popen(
            [LYCEUM, *arguments], cwd=self.folder, env=self._environment,
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def write(self, name: str, source: str) -> str:
        (self.folder / name).write_text(source)
        return name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    folder = tmp_path_factory.mktemp("cli")
    write_wheel(folder / "wheels", "lyceum_cli_wheel", "answer = 42\n")
    (folder / "empty-index").mkdir()
    with served(
        folder / "state", "--find-links", str(folder / "wheels"),
        "--index-url", (folder / "empty-index").as_uri(),
    ) as server:  # fmt: skip
        yield server
        # Their supervisors would outlive the server.
        for run in active_runs(server):
            server.client.post(paths.abort(run["execution_id"]))


@pytest.fixture(scope="module")
def lyceum(server: ServedProcess, tmp_path_factory: pytest.TempPathFactory) -> Lyceum:
    lyceum = Lyceum(tmp_path_factory.mktemp("home"))
    done = log_in(lyceum, server, server.facts()["api_key"])
    assert done.returncode == 0, done.stdout
    return lyceum


def log_in(lyceum: Lyceum, server: ServedProcess, key: str) -> subprocess.CompletedProcess[str]:
    return lyceum("auth", "login", "--url", server.base_url, "--api-key", key)


def active_runs(server: ServedProcess) -> list[dict[str, Any]]:
    return list(server.client.get(paths.WORKLOADS).json())


def execution_id(output: str) -> str:
    """The id that the client prints below what the run printed."""
    found = re.search(r"Execution ID: (\S+)", output)
    assert found, output
    return found[1]


def test_a_login_is_confirmed(lyceum):
    done = lyceum("auth", "status")
    assert done.returncode == 0
    assert "Authenticated" in done.stdout
    assert "API connection working" in done.stdout


def test_a_wrong_key_is_refused_and_starts_nothing(server, tmp_path):
    stranger = Lyceum(tmp_path)
    before = server.client.get(paths.HISTORY).json()
    assert log_in(stranger, server, "lk_wrong").returncode == 1
    done = stranger("python", "run", "print('let in')")
    assert done.returncode == 1
    assert "let in" not in done.stdout
    assert server.client.get(paths.HISTORY).json() == before


def test_a_file_runs_with_its_arguments_and_its_own_modules(lyceum):
    lyceum.write("greetings.py", "def greet(*names):\n    return 'hello ' + ', '.join(names)\n")
    program = lyceum.write(
        "arguments.py", "import sys\nfrom greetings import greet\nprint(greet(*sys.argv[1:]))\n"
    )
    done = lyceum("python", "run", program, "--", "Ada", "--flag", "two words")
    assert done.stdout.splitlines()[0] == "hello Ada, --flag, two words"
    assert done.returncode == 0


def test_what_the_client_mistakes_for_packages_is_not_installed(lyceum):
    # It asks for `__future__` and `zoneinfo`, which its list of standard modules lacks, and for
    # the local module. The index of this server has none of them, and so would say.
    lyceum.write("colours.py", "names = ['red', 'green']\n")
    program = lyceum.write(
        "mistaken.py",
        "from __future__ import annotations\nimport colours, zoneinfo\nprint(*colours.names)\n",
    )
    done = lyceum("python", "run", program)
    assert done.stdout.splitlines()[0] == "red green"
    assert done.returncode == 0


def test_a_requirement_is_installed_for_the_run(lyceum):
    program = lyceum.write("wheel.py", "import lyceum_cli_wheel\nprint(lyceum_cli_wheel.answer)\n")
    done = lyceum("python", "run", program, "-r", "lyceum_cli_wheel")
    assert done.stdout.splitlines()[0] == "42"
    assert done.returncode == 0


def test_inline_code_runs_and_its_text_arrives_as_the_client_shows_it(lyceum):
    code = r"print('gr\u00fcn \U0001F40D\n\n\n\x1b[31mred\x1b[0m\u2028end')"
    done = lyceum("python", "run", code)
    # The client itself drops colours and blank lines.
    assert done.stdout.startswith("grün 🐍\nred\u2028end\n")
    assert done.returncode == 0


def test_a_failing_file_fails_the_command(lyceum):
    program = lyceum.write("failing.py", "import sys\nprint('so far')\nsys.exit(3)\n")
    done = lyceum("python", "run", program)
    assert done.returncode == 1
    assert done.stdout.startswith("so far\n")
    assert "exit code 3" in done.stdout
    record = lyceum.json("jobs", "status", execution_id(done.stdout))
    assert (record["status"], record["return_code"]) == ("failed", 3)


def test_text_arrives_while_the_program_runs(lyceum, tmp_path):
    seen = tmp_path / "seen"
    program = lyceum.write(
        "waiting.py",
        "import pathlib, time\n"
        "print('waiting', flush=True)\n"
        f"while not pathlib.Path({str(seen)!r}).exists():\n"
        "    time.sleep(0.01)\n"
        "print('seen')\n",
    )
    with lyceum.running("python", "run", program) as client:
        assert client.stdout.readline() == "waiting\n"
        seen.touch()
        assert client.stdout.readline() == "seen\n"
        assert client.wait(LIMIT_S) == 0


def test_an_interrupt_of_the_client_aborts_its_run(lyceum, server):
    code = "print('asleep', flush=True); import time; time.sleep(600)"
    with lyceum.running("python", "run", code, "--run-name", "to interrupt") as client:
        assert client.stdout.readline() == "asleep\n"
        (run,) = [r for r in active_runs(server) if r["run_name"] == "to interrupt"]
        client.send_signal(signal.SIGINT)
        assert client.wait(LIMIT_S) == 1
    assert lyceum.json("jobs", "status", run["execution_id"])["status"] == "aborted"


def test_jobs_lists_and_aborts_what_runs(lyceum, server):
    started = server.start("import time; time.sleep(600)", run_name="to abort")
    run_id = started["execution_id"]
    assert run_id in [run["execution_id"] for run in lyceum.json("jobs", "list")]
    done = lyceum("jobs", "abort", run_id)
    assert done.returncode == 0, done.stdout
    assert lyceum.json("jobs", "status", run_id)["status"] == "aborted"
    assert run_id not in [run["execution_id"] for run in lyceum.json("jobs", "list")]


def test_jobs_shows_an_ended_run_and_its_log(lyceum):
    run_id = execution_id(lyceum("python", "run", "print('one')\nprint('two')").stdout)
    status = lyceum("jobs", "status", run_id)
    assert status.returncode == 0
    assert run_id in status.stdout
    assert "completed" in status.stdout
    logs = lyceum("jobs", "logs", run_id)
    assert logs.returncode == 0
    assert [line for line in logs.stdout.split() if line in ("one", "two")] == ["one", "two"]


def test_gpu_machines_lists_machines_as_accessible(lyceum):
    done = lyceum("gpu", "machines")
    assert done.returncode == 0
    (row,) = [line for line in done.stdout.splitlines() if "gpu.l40s" in line]
    assert "✓" in row
