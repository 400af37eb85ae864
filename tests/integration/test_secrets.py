"""A secret set once reaches a Python run, and nothing that a run leaves holds it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.outputs.decoding import Display, Raised, decode
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Output
from lyceum_magic.submission.wrapping import wrap_cell
from tests.tools.served_process import ServedProcess, served
from tests.tools.wheels import write_wheel

TOKEN = "t0p-sécret-value-0f-the-account"
MARK = "0123456789ab"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    folder = tmp_path_factory.mktemp("secrets")
    write_wheel(folder / "wheels", "lyceum_secrets_wheel", "answer = 42\n")
    (folder / "empty-index").mkdir()
    with served(
        folder / "state", "--find-links", str(folder / "wheels"),
        "--index-url", (folder / "empty-index").as_uri(),
    ) as server:  # fmt: skip
        reply = server.client.post(paths.SECRETS, json={"name": "TOKEN", "value": TOKEN})
        assert reply.status_code == 200, reply.text
        yield server


def events(server: ServedProcess, started: dict[str, Any]) -> list[dict[str, Any]]:
    """All of a run's stream, until its end."""
    reply = server.client.post(started["streaming_url"])
    lines = reply.text.split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


def outputs(server: ServedProcess, started: dict[str, Any]) -> list[Output]:
    return [
        Output(event["output"]["content"], event["output"]["stream"])
        for event in events(server, started)
        if "output" in event
    ]


def run(server: ServedProcess, code: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The text of a run, as its stream tells it, and its record."""
    started = server.start(code, **fields)
    text = "".join(output.text for output in outputs(server, started))
    return text, server.client.get(paths.record(started["execution_id"])).json()


def files_with(folder: Path, text: str) -> list[str]:
    """Every file below a folder that holds the text, but the key of the vault."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != "vault.key" and text.encode() in path.read_bytes()
    ]


def test_a_run_has_the_secret_and_its_output_has_not(server: ServedProcess) -> None:
    code = (
        "import os, sys\n"
        "print(len(os.environ['TOKEN']), os.environ['TOKEN'])\n"
        "print(os.environ['TOKEN'], file=sys.stderr)\n"
        "sys.exit(os.environ['TOKEN'])\n"
    )
    text, record = run(server, code)
    assert text.split("\n")[0] == f"{len(TOKEN)} ***"
    assert record["stdout"] == f"{len(TOKEN)} ***\n"
    assert record["stderr"] == "***\n***\n"
    logs = server.client.get(paths.logs(record["execution_id"])).json()
    assert [line["message"] for line in logs["logs"]].count("***") == 2
    assert TOKEN not in json.dumps([record, logs], ensure_ascii=False)


def test_it_is_masked_wherever_the_program_cuts_it(server: ServedProcess) -> None:
    code = (
        "import array, fcntl, os, termios\n"
        "def write_apart(piece):\n"
        "    os.write(1, piece)\n"
        "    unread = array.array('i', [1])\n"
        "    while unread[0]:\n"  # until the supervisor has taken it from the pipe
        "        fcntl.ioctl(1, termios.FIONREAD, unread)\n"
        "        os.sched_yield()\n"
        "secret = os.environb[b'TOKEN']\n"
        "for cut in range(len(secret) + 1):\n"
        "    write_apart(b'<' + secret[:cut])\n"
        "    write_apart(secret[cut:] + b'>\\n')\n"
        "for at in range(len(secret)):\n"
        "    write_apart(secret[at:at + 1])\n"
    )
    text, _ = run(server, code)
    assert text == "<***>\n" * (len(TOKEN.encode()) + 1) + "***"


def test_a_run_with_requirements_has_it_too(server: ServedProcess) -> None:
    code = "import os, lyceum_secrets_wheel as w\nprint(w.answer, os.environ['TOKEN'])"
    text, record = run(server, code, requirements_content="lyceum_secrets_wheel")
    assert (text, record["status"]) == ("42 ***\n", "completed")


def test_what_a_cell_shows_and_raises_is_masked(server: ServedProcess) -> None:
    cell = (
        "import os\n"
        "token = os.environ['TOKEN']\n"
        "display({'text/html': '<b>' + token + '</b>', 'text/plain': 'x'}, raw=True)\n"
        "print(token)\n"
        "raise ValueError(token)\n"
    )
    started = server.start(wrap_cell(cell, mark=MARK))
    items = list(decode(outputs(server, started), MARK))
    (shown,) = (item for item in items if isinstance(item, Display))
    (raised,) = (item for item in items if isinstance(item, Raised))
    assert shown.data["text/html"] == "<b>***</b>"
    assert raised.error["exceptions"][0]["value"] == "***"
    assert [item.text for item in items if isinstance(item, Output)] == ["***\n"]


def test_nothing_in_the_state_folder_holds_it(server: ServedProcess) -> None:
    run(server, "import os; print(os.environ['TOKEN'])")
    # The search itself works: what is not secret is found.
    assert "runs.sqlite3-wal" in files_with(server.folder, "os.environ['TOKEN']")
    assert files_with(server.folder, TOKEN) == []
    assert (server.folder / "vault.key").stat().st_mode & 0o777 == 0o600


def test_a_secret_outlives_the_server_and_a_removed_one_reaches_no_run(tmp_path: Path) -> None:
    code = "import os; print(sorted(set(os.environ) & {'FIRST', 'SECOND'}))"
    with served(tmp_path / "state") as server:
        body = [{"key": name, "value": f"value of {name}"} for name in ("FIRST", "SECOND")]
        assert server.client.post(paths.SECRETS, json=body).status_code == 200
        server.end()
    with served(tmp_path / "state") as server:
        assert run(server, code)[0] == "['FIRST', 'SECOND']\n"
        listed = server.client.get(paths.SECRETS).json()["environment_variables"]
        (first,) = [item["id"] for item in listed if item["name"] == "FIRST"]
        assert server.client.delete(paths.secret(first)).status_code == 200
        assert run(server, code)[0] == "['SECOND']\n"
        server.end()
    with sqlite3.connect(tmp_path / "state/runs.sqlite3") as database:
        assert database.execute("SELECT name FROM secrets").fetchall() == [("SECOND",)]
    database.close()
