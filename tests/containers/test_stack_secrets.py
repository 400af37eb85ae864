"""Secrets and configs of a stack: from the account, and from the run's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served

from .runs import error_of
from .stacks import lines, service, start_stack

pytestmark = pytest.mark.usefixtures("image", "nothing_left")

DONE = {"condition": "service_completed_successfully"}
VALUE = "from $the account\nin two lines"
SECRETS = [{"name": "tok", "value": VALUE}, {"name": "SHORT", "value": "s$1"}]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    """A server whose account has secrets."""
    with served(tmp_path_factory.mktemp("account") / "state") as server:
        reply = server.client.post(paths.SECRETS, json={"environment_variables": SECRETS})
        assert reply.is_success, reply.text
        yield server


def start(server: ServedProcess, services: dict[str, Any], **top: Any) -> dict[str, Any]:
    return start_stack(server, services, top=top).ended()


SIZE = "python3 -c \"import sys; print(len(open('{}').read()))\""


@pytest.mark.parametrize(
    "entry", [{"file": "./t"}, {"environment": "tok"}, {"external": True, "name": "tok"}], ids=str
)
def test_a_secret_comes_from_the_account(account: ServedProcess, entry: dict[str, Any]) -> None:
    script = SIZE.format("/run/secrets/tok")
    record = start(account, {"a": service(script, secrets=["tok"])}, secrets={"tok": entry})
    assert record["stdout"] == f"a | {len(VALUE)}\n", record


def test_it_is_where_and_for_whom_the_service_says(account: ServedProcess) -> None:
    script = "cat /run/secrets/other /etc/more; ls -l /etc/more"
    uses = [
        {"source": "plain", "target": "other"},
        {"source": "plain", "target": "/etc/more", "mode": 0o400, "uid": "65534"},
    ]
    services = {"a": service(script, secrets=uses, user="nobody")}
    record = start(account, services, secrets={"plain": {"environment": "SHORT"}})
    said = lines(record, "a")
    assert said[0].startswith("s$1s$1"), record
    assert "-r--------" in said[0]


def test_a_config_comes_from_the_account_as_well(account: ServedProcess) -> None:
    services = {"a": service("cat /app.conf /own", configs=[
        {"source": "app", "target": "/app.conf"}, {"source": "own"},
    ])}  # fmt: skip
    configs = {"app": {"environment": "SHORT"}, "own": {"content": "-mine"}}
    assert lines(start(account, services, configs=configs), "a") == ["s$1-mine"]


def test_it_is_masked_and_lies_on_no_disk(account: ServedProcess) -> None:
    services = {"a": service("cat /run/secrets/tok", secrets=["tok"])}
    record = start(account, services, secrets={"tok": {"environment": "tok"}})
    assert lines(record, "a") == ["***"]
    for path in account.folder.rglob("*"):
        assert not path.is_file() or b"from $the account" not in path.read_bytes(), path


def test_a_file_of_the_run_s_folder_is_written_by_another_service(account: ServedProcess) -> None:
    services = {
        "maker": service("echo made >/out", volumes=["./made:/out"]),
        "user": service("cat /run/secrets/made", secrets=["made"], depends_on={"maker": DONE}),
    }
    record = start(account, services, secrets={"made": {"file": "./made"}})
    assert lines(record, "user") == ["made"], record


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"file": "./t"}, "takes `gone` of its secrets from `./t`, and no such file is in the run"),
        ({"environment": "NOWHERE"}, "set it with `%lyceum secrets set NOWHERE`"),
        ({"external": True}, "set it with `%lyceum secrets set gone`"),
    ],
    ids=str,
)
def test_what_is_not_there_is_named(
    account: ServedProcess, entry: dict[str, Any], sentence: str
) -> None:
    services = {"a": service("echo never", secrets=["gone"])}
    record = start(account, services, secrets={"gone": entry})
    assert (record["status"], record["stdout"]) == ("failed", "")
    assert sentence in error_of(record)


def test_a_file_beside_a_folder_of_another_service_is_refused(account: ServedProcess) -> None:
    """That service could put a link to any file of the machine in its place."""
    text = (
        "services:\n  a: {image: x, volumes: ['./data:/data']}\n  b: {image: x, secrets: [s]}\n"
        "secrets: {s: {file: ./data/t}}\n"
    )
    body = {"compose_file_code": text, "execution_type": "cpu"}
    reply = account.client.post(paths.START_COMPOSE, json=body)
    assert reply.status_code == 422
    assert "which lies in `data`" in reply.text


def test_a_privileged_server_takes_a_file_of_its_machine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the machine's\n")
    with served(folder, "--allow-privileged") as server:
        services = {"a": service("cat /run/secrets/t", secrets=["t"])}
        record = start(server, services, secrets={"t": {"file": str(tmp_path / "token")}})
    assert lines(record, "a") == ["the machine's"], record
