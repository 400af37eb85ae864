"""The official client, as people use it, against the embedded server: all its commands for runs.

Each row of TABLE is a process of its own with the account's HOME; the rows are in the order of a
day's work, and what one row's output names, later rows use. `build/interop.md` shows the table
with its results. Interrupts are in `test_lyceum_cli.py` and below, commands for what the embedded
server has not (machines of one's own, inference, other organisations) in the last rows.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lyceum_magic.protocol import paths
from tests.integration.test_lyceum_cli import LIMIT_S, Lyceum
from tests.tools.served_process import ServedProcess, served

REPORT = Path(__file__).resolve().parents[2] / "build" / "interop.md"

STACK = """\
services:
  greeter:
    image: {image}
    command: [echo, hello from the stack]
"""
FAILING_STACK = """\
services:
  job:
    image: {image}
    command: [sh, -c, exit 7]
"""
WAITING_STACK = """\
services:
  waiter:
    image: {image}
    command: [sh, -c, echo asleep; sleep 600]
"""
NOTEBOOK_IMAGE = """\
FROM {image}
RUN printf '#!/bin/sh\\nexec sleep 600\\n' > /bin/start-notebook.sh
RUN chmod +x /bin/start-notebook.sh
"""


@dataclass(frozen=True)
class Row:
    """One command.

    Attributes:
        command: after `lyceum`; `{name}` stands for a finding of an earlier row, or a fixture.
        output: a regular expression for its output; its named groups are kept for later rows.
        exit_code: as the client has it: 1 for every failure.
        fault: what is wrong with the client itself, where it does not do what it says.
    """

    command: str
    output: str
    exit_code: int = 0
    fault: str = ""

    @property
    def id(self) -> str:
        return re.sub(r"[^\w]+", "-", self.command).strip("-")


IDENTIFIER = r"[0-9a-f-]{36}"
NOT_HERE = "embedded server"


def ran(text: str, name: str) -> str:
    """The output of a command that ran something: its text, and the id, which is kept as `name`."""
    return rf"(?s){text}.*Execution ID: (?P<{name}>{IDENTIFIER})"


TABLE = [
    Row("auth login --url {url} --api-key lk_wrong", "(?i)401|invalid|unauthori|key", 1,
        "the wrong key stays in its configuration"),
    Row("auth login --url {url} --api-key {key}", "local"),
    Row("auth status", "(?s)Authenticated.*local"),
    Row("auth keys list", "."),
    Row("auth keys create interop", r"(?P<plaintext>lk_[\w-]{20,})"),
    Row("auth keys list --json", r'"id": "(?P<key_id>[^"]+)",\s*"key_name": "interop"'),
    Row("auth keys toggle {key_id}", "(?i)inactive"),
    Row("auth keys toggle {key_id}", "(?i)active"),
    Row("auth login --url {url} --api-key {plaintext}", "local"),
    Row("auth login --url {url} --api-key {key}", "local"),
    Row("auth keys revoke {key_id}", "(?i)revoked|deleted"),
    Row("auth login --url {url} --api-key {plaintext}", "(?i)401|invalid|unauthori|key", 1),
    Row("auth login --url {url} --api-key {key}", "local"),
    Row("auth keys revoke {key_id}", "(?i)no .*key|not found", 1),

    Row("org list", "local"),
    Row("org current", "local"),
    Row("org use elsewhere", "(?i)elsewhere|organi[sz]ation", 1),
    Row("org use local", "local"),
    Row("auth status", "local"),
    Row("org unset", "(?i)clear|unset|personal"),

    Row("gpu machines", r"gpu\.l40s.*✓"),
    Row("gpu machines --json", '"hardware_profile": "gpu.a100"'),

    Row("env set INTEROP_TOKEN hush-hush-hush", "INTEROP_TOKEN"),
    Row("env set INTEROP_TOKEN hush-hush-hush", "INTEROP_TOKEN"),
    Row("env set 1WRONG value", "(?i)name", 1),
    Row("env list", "INTEROP_TOKEN"),
    Row("env list --json", '"name": "INTEROP_TOKEN"'),

    Row("python run 'print(6 * 7)'", ran("42.*", "python_run")),
    Row("python run 'import os; print(os.environ[\"INTEROP_TOKEN\"], \"end\")'",
        r"(?m)^\*\*\* end"),
    Row("python run {folder}/program.py --run-name named --label a --metadata k=v -- one two",
        r"\['one', 'two'\]"),
    Row("python run 'raise SystemExit(3)'", "exit code 3", 1,
        "its hint names a command `lyceum status` that it does not have"),
    Row("python run 'print(1)' -m gpu.nothing", "(?i)gpu.nothing", 1),
    Row("python config init {folder}", "(?i)config"),
    Row("python config show {folder}", "(?i)workspace|dependencies"),
    Row("python config refresh {folder}", "(?i)config|refresh"),

    Row("docker run {image} -m cpu -c 'echo out'", ran("out.*", "image_run")),
    Row("docker run {image} -c \"python3 -c 'print(6 * 7)'\"", "42"),
    Row("docker run {image} -c \"sh -c 'echo $A; echo $INTEROP_TOKEN; exit 5'\" -e A=b -e LOST",
        r"(?s)b\n\*\*\*.*exit code 5", 1),
    Row("docker run {image} -c 'sh -c \"echo kept > /mnt/s3/from-image.txt\"'", "."),
    Row("docker run {image} -c 'ls /elsewhere' --s3-mount-path /elsewhere", "from-image.txt"),
    Row("docker run {image} -c 'ls /mnt' --no-s3", "(?i)no such file|exit code", 1),
    Row("docker run localhost:1/no/image:at-all -c ls", "(?i)localhost:1", 1),
    Row("docker run {image} -t 601 -c ls", "(?i)less than or equal to 600", 1),
    Row("docker run {image} --registry-type basic --registry-creds '{{\"username\": \"u\"}}' -c ls",
        "docker_password",
        1),
    Row("docker run {image} -d -c 'sh -c \"echo once; sleep 600\"'",
        rf"(?P<detached>{IDENTIFIER})"),
    Row("jobs list", "{detached}"),
    Row("jobs status {detached}", "(?i)running|starting|pending"),
    Row("jobs abort {detached}", "(?i)abort"),
    Row("jobs status {detached}", "aborted"),
    Row("docker logs {image_run}", "out"),
    Row("docker logs {detached}", "once", 1),
    Row("docker logs no-such-run", "(?i)not found|404|completed", 1),
    Row("docker registry-examples", "(?i)aws", fault="its example names `session_token`, which it "
        "does not read: the field is `aws_session_token`"),

    Row("compose run {folder}/stack.yaml -m cpu",
        ran("greeter.*hello from the stack.*", "stack_run")),
    Row("compose run {folder}/failing.yaml", "(?i)exit code 7|job", 1),
    Row("compose run {folder}/broken.yaml", "line 3, column 4", 1),
    Row("compose run {folder}/stack.yaml -d", IDENTIFIER),
    Row("compose logs {stack_run}", "hello from the stack"),
    Row("compose registry-examples", "(?i)aws"),

    Row("notebook launch --image {notebook_image} --token hidden-token -m cpu",
        rf"https://(?P<notebook>{IDENTIFIER})-8888\.port",
        fault="the address it prints is of Lyceum Cloud, whatever server it talks to"),
    Row("notebook list", "{notebook}"),
    Row("notebook stop {notebook}", "(?i)stop"),
    Row("jobs status {notebook}", "completed"),
    Row("notebook stop no-such-run", "(?i)not found|already|stop"),

    Row("jobs list", "."),
    Row("jobs list --json", r"^\[\]"),
    Row("jobs history -n 100", "{python_run}"),
    Row("jobs history --json", '"status": "aborted"'),
    Row("jobs status {python_run}", "completed"),
    Row("jobs status no-such-run", "(?i)no run has the id", 1),
    Row("jobs logs {python_run}", "42"),
    Row("jobs logs {stack_run} -n 5 --hours 1", "hello from the stack"),
    Row("jobs metrics {python_run}", "(?i)cpu|memory|ram|metrics"),
    Row("jobs metrics {python_run} --json", "systemCpuUsagePercent"),
    Row("jobs abort {python_run}", "(?i)completed|abort"),
    Row("jobs abort no-such-run", "(?i)no run has the id", 1),

    Row("storage ls", "from-image.txt"),
    Row("storage upload {folder}/program.py --key code/program.py", "Loaded: code/program.py"),
    Row("storage upload {folder}/tree -r -f --key trees/", "Loaded 2 files"),
    Row("storage ls trees/ -r", "(?s)a.txt.*b.txt"),
    Row("storage ls --json -r", '"?trees/'),
    Row("storage download code/program.py -o {folder}/back.py", "(?i)download"),
    Row("storage download no/such/file -o {folder}/none", "(?i)not found|404|no such", 1),
    Row("storage rm code/program.py -f", "(?i)delet|remov"),
    Row("storage rmdir trees/ -f", "(?i)delet|remov"),
    Row("storage ls -r", "from-image.txt"),
    Row("storage block list", "(?i)no .*volume|volume"),
    Row("storage block delete no-such-volume -f", "(?i)not found|no .*volume", 1),

    Row("env rm INTEROP_TOKEN -f", "INTEROP_TOKEN"),
    Row("env rm INTEROP_TOKEN -f", "INTEROP_TOKEN", 1),
    Row("env set OTHER value", "OTHER"),
    Row("env rm --all -f", "(?i)all|delet"),
    Row("env list --json", r"\[\]"),

    Row("vm list", NOT_HERE, 1),
    Row("infer deployments", NOT_HERE, 1),
    Row("org create other", NOT_HERE, 1),
    Row("auth logout", "(?i)logged out|removed|logout"),
    Row("auth status", "(?i)not authenticated|no .*key|not logged"),
]  # fmt: skip


@dataclass
class Day:
    """The values that the rows share."""

    lyceum: Lyceum
    found: dict[str, str]
    results: list[tuple[Row, str, int]] = field(default_factory=list)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[ServedProcess]:
    folder = tmp_path_factory.mktemp("interop")
    with served(folder / "state") as server:
        yield server
        for run in server.client.get(paths.WORKLOADS).json():
            server.client.post(paths.abort(run["execution_id"]))


@pytest.fixture(scope="module")
def day(
    server: ServedProcess, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Day]:
    lyceum = Lyceum(tmp_path_factory.mktemp("home"))
    folder = lyceum.folder
    (folder / "program.py").write_text("import sys\nprint(sys.argv[1:])\n")
    (folder / "stack.yaml").write_text(STACK.format(image=image))
    (folder / "failing.yaml").write_text(FAILING_STACK.format(image=image))
    (folder / "waiting.yaml").write_text(WAITING_STACK.format(image=image))
    (folder / "broken.yaml").write_text("services:\n  a: [1\n  b: 2\n")
    (folder / "tree").mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / "tree" / name).write_text(name)
    notebook_image = "localhost/notebook:test"
    subprocess.run(
        ["docker", "build", "--tag", notebook_image, "-"], check=True, capture_output=True,
        input=NOTEBOOK_IMAGE.format(image=image).encode(),
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )  # fmt: skip
    day = Day(
        lyceum,
        {
            "url": server.base_url,
            "key": server.facts()["api_key"],
            "image": image,
            "notebook_image": notebook_image,
            "folder": str(folder),
        },
    )
    yield day
    write_report(day.results)
    subprocess.run(["docker", "rmi", "--force", notebook_image], check=True, capture_output=True)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_a_command_of_the_official_client(row: Row, day: Day) -> None:
    missing = [
        name for name in re.findall(r"(?<!\{)\{(\w+)\}", row.command) if name not in day.found
    ]
    assert not missing, f"no earlier row has found {missing}"
    done = day.lyceum(*shlex.split(row.command.format(**day.found)))
    expected = row.output
    for name, value in day.found.items():
        expected = expected.replace(f"{{{name}}}", re.escape(value))
    found = re.search(expected, done.stdout + done.stderr)
    day.results.append((row, "as it should" if found else "otherwise", done.returncode))
    assert done.returncode == row.exit_code, done.stdout + done.stderr
    assert found, done.stdout + done.stderr
    day.found |= found.groupdict()


def test_what_was_downloaded_is_what_was_uploaded(day: Day) -> None:
    folder = day.lyceum.folder
    assert (folder / "back.py").read_bytes() == (folder / "program.py").read_bytes()


@pytest.mark.parametrize(
    ("command", "sleeper"),
    [
        ("docker run {image} -c 'sh -c \"echo asleep; sleep 600\"' --run-name sleeper", "image"),
        ("compose run {folder}/waiting.yaml --run-name sleeper", "stack"),
    ],
)
def test_an_interrupt_of_the_client_aborts_what_it_follows(
    command: str, sleeper: str, day: Day, server: ServedProcess
) -> None:
    login = f"auth login --url {day.found['url']} --api-key {day.found['key']}"
    assert day.lyceum(*shlex.split(login)).returncode == 0
    with day.lyceum.running(*shlex.split(command.format(**day.found))) as client:
        assert client.stdout is not None
        assert any("asleep" in line for line in client.stdout)
        (run,) = server.client.get(paths.WORKLOADS).json()
        client.send_signal(signal.SIGINT)
        assert client.wait(LIMIT_S) == 1
    record = server.client.get(paths.record(run["execution_id"])).json()
    assert record["status"] == "aborted"


def write_report(results: list[tuple[Row, str, int]]) -> None:
    lines = [
        "| lyceum ... | output | exit code | the client's own fault |",
        "| --- | --- | --- | --- |",
    ]
    for row, output, code in results:
        command = row.command.replace("|", r"\|")
        lines.append(f"| `{command}` | {output} | {code} | {row.fault} |")
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
