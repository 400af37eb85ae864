"""A secret that was set once: all kinds of run see it, and no reader of their output does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from tests.tools.canaries import Canaries
from tests.tools.embedded import end_server
from tests.tools.kernel import Kernel, running_kernel
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

from .runs import HOLD, ServedRun, docker, start_image

VALUE = "canary-7f3a-ü-value"
SIZE = len(VALUE)
#: No program listens there; the part after its host is a secret all the same.
CALLBACK_URL = "http://127.0.0.1:1/canary-of-a-path-9d20?t=${CANARY}"
CANARIES = Canaries(value=VALUE, path="canary-of-a-path-9d20")

#: Print it whole, cut after each of its bytes, and on stderr; then print its length.
PROGRAM = """\
import os, sys
value = os.environb[b"CANARY"]
for cut in range(len(value) + 1):
    os.write(1, b"<" + value[:cut])
    os.write(1, value[cut:] + b">\\n")
os.write(2, value + b"\\n")
print(len(value.decode()))
"""
CUTS = len(VALUE.encode()) + 1
#: The services of a stack are told apart by a prefix.
PREFIX = {"python": "", "image": "", "compose": "job | "}


def body_of(kind: str, image: str) -> dict[str, Any]:
    command = ["python3", "-c", PROGRAM]
    # Compose takes `$` for a variable; there is none in the program.
    stack = {"services": {"job": {"image": image, "command": command}}}
    bodies: dict[str, dict[str, Any]] = {
        "python": {"code": PROGRAM},
        "image": {"docker_image_ref": image, "docker_run_cmd": command},
        "compose": {"compose_file_code": json.dumps(stack)},
    }
    return {**bodies[kind], "execution_type": "cpu", "user_callback_urls": [CALLBACK_URL]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    with served(tmp_path_factory.mktemp("secrets") / "state") as server:
        body = {"environment_variables": [{"name": "CANARY", "value": VALUE}]}
        assert server.client.post(paths.SECRETS, json=body).status_code == 200
        yield server


@pytest.mark.parametrize("kind", ["python", "image", "compose"])
def test_every_kind_of_run_sees_it_and_nobody_else(
    kind: str, server: ServedProcess, image: str
) -> None:
    reply = server.client.post(paths.STARTS[kind], json=body_of(kind, image))
    assert reply.status_code == 200, reply.text
    run = ServedRun(server, reply.json())
    record = run.ended()
    assert record["status"] == "completed", record
    prefix = PREFIX[kind]
    assert record["stdout"] == f"{prefix}<***>\n" * CUTS + f"{prefix}{SIZE}\n"
    assert record["stderr"] == f"{prefix}***\n"
    logs = server.client.get(paths.logs(run.id)).text
    streamed = server.client.post(f"{paths.STREAM}/{run.id}").text
    for said in (json.dumps(record), logs, streamed):
        assert "***" in said
        assert CANARIES.in_text(said) == []
    listed = paths.run_deliveries(run.id)
    eventually(
        lambda: all(one["error"] for one in server.client.get(listed).json()["deliveries"]),
        "the callback fails",
    )
    assert CANARIES.in_text(server.client.get(listed).text) == []
    assert CANARIES.in_files(server.folder.parent) == []  # the server's log is there too


def test_no_container_and_no_process_is_told_a_callback_url(
    server: ServedProcess, image: str
) -> None:
    run = start_image(
        server, image, "sh", "-c", f"echo begun; {HOLD}", enable_s3_mount=True,
        user_callback_urls=[CALLBACK_URL],
    )  # fmt: skip
    run.said("begun")
    told = Canaries(path="canary-of-a-path-9d20", reference="${CANARY}")
    assert told.in_text(docker("inspect", run.container)) == []
    assert told.in_processes() == []
    run.let_go()
    run.ended()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    home = tmp_path_factory.mktemp("home")
    state = home / "lyceum"
    with running_kernel({"HOME": str(home), "LYCEUM_MAGIC_HOME": str(state)}) as kernel:
        # Backwards, so that the code that types it does not hold it.
        typed = f"import getpass\ngetpass.getpass = lambda prompt: {VALUE[::-1]!r}[::-1]\n"
        assert kernel.run(f"{typed}%lyceum secrets set CANARY").error is None
        yield kernel
    end_server(state)


@pytest.mark.kernel
def test_no_cell_shows_it(kernel: Kernel, image: str) -> None:
    show = "import os\nos.environ['CANARY']"
    stack = f"services:\n  job:\n    image: {image}\n    command: [sh, -c, 'echo $$CANARY']\n"
    cells = {
        f"%%lyceum\n{PROGRAM}": "<***>",
        f"%%lyceum\n{show}": "***",
        f"%%lyceum --no-raise\n{show}\nraise ValueError(os.environ['CANARY'])": "***",
        f"%%lyceum_image {image}\necho $CANARY": "***",
        f"%%lyceum_image {image} --python\n{show}": "***",
        f"%%lyceum_compose\n{stack}": "job | ***",
    }
    for code, shown in cells.items():
        cell = kernel.run(code)
        assert shown in str(cell.messages), code
        assert VALUE not in str(cell.messages), code
