"""Compose files that a server does not run, and what it says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served

from .stacks import lines, service
from .stacks import start_stack as start

pytestmark = pytest.mark.usefixtures("image", "nothing_left")


SERVICE = "services:\n  web:\n    image: localhost/python:test\n"

REFUSED = [
    ("services: [1", ["line 1", "column"]),
    ("services:\n  web:\n    image: x\n   command: y\n", ["line 4", "column 4"]),
    ("- a", ["mapping", "a list"]),
    ("version: '3'", ["no services"]),
    ("services: {web: {}}", ["web", "neither an image nor a build context"]),
    (SERVICE + "    build: .", ["`build`", "push it"]),
    (SERVICE + "    env_file: /etc/environment", ["`env_file`", "`environment`"]),
    (SERVICE + "    label_file: x", ["`label_file`"]),
    (SERVICE + "    extends: {file: /etc/passwd, service: x}", ["extends", "web"]),
    (SERVICE + "include: [/etc/passwd]", ["`include`"]),
    (
        SERVICE + "    secrets: [s]\nsecrets: {s: {file: /etc/shadow}}",
        ["(line 5)", "`s`", "the file `/etc/shadow`", "%lyceum secrets set s", "`environment: s`"],
    ),
    (SERVICE + "    configs: [s]\nconfigs:\n  s:\n    file: ../../x", ["(line 7)", "the file"]),
    (
        SERVICE + "    configs: [s]\nconfigs: {s: {external: true}}",
        ["`s`", "`content`"],
    ),
    (SERVICE + "    provider: {type: x}", ["`provider`"]),
    (SERVICE + "    post_start: [{command: x, privileged: true}]", ["`post_start`"]),
    (SERVICE + "    colour: red", ["colour", "not allowed"]),
    (SERVICE + "    depends_on: [database]", ["undefined service", "database"]),
    (SERVICE + "    environment: {A: '${B?wanted}'}", ["B", "wanted"]),
    (SERVICE + "    profiles: [x]", ["profile"]),
    (SERVICE + "    image: other", ["`image` is there twice", "line 4"]),
    ("services: {web: {image: 'Not An Image'}}", ["'Not An Image'"]),
]
PRIVILEGED = [
    ("    privileged: true", "`privileged` in service `web`"),
    ("    cap_add: [SYS_ADMIN]", "`cap_add`"),
    ("    devices: [/dev/fuse]", "`devices`"),
    ("    network_mode: host", "`network_mode: host`"),
    ("    pid: host", "`pid: host`"),
    ("    ipc: host", "`ipc: host`"),
    ("    userns_mode: host", "`userns_mode: host`"),
    ("    cgroup: host", "`cgroup: host`"),
    ("    security_opt: ['seccomp:unconfined']", "seccomp:unconfined"),
    ("    use_api_socket: true", "`use_api_socket`"),
    ("    volumes: ['/var/run/docker.sock:/var/run/docker.sock']", "`/var/run/docker.sock`"),
    ("    volumes: ['../../x:/x']", "the host path"),
    ("    volumes: ['bound:/x']\nvolumes: {bound: {driver_opts: {o: bind, device: /etc}}}",
     "volume `bound`"),
    ("    volumes: ['theirs:/x']\nvolumes: {theirs: {external: true}}", "external volume"),
    ("    networks: [theirs]\nnetworks: {theirs: {external: true}}", "external network"),
]  # fmt: skip


def refusal(server: ServedProcess, text: str) -> str:
    body = {"compose_file_code": text, "execution_type": "cpu"}
    reply = server.client.post(paths.START_COMPOSE, json=body)
    assert reply.status_code == 422, reply.text
    detail = reply.json()["detail"]
    return detail if isinstance(detail, str) else " ".join(entry["msg"] for entry in detail)


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_cannot_run_is_refused_with_a_sentence(
    server: ServedProcess, text: str, words: list[str]
) -> None:
    sentence = refusal(server, text)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("    build: .", 4),
        ("    colour: red", 4),
        ("    depends_on: [database]", 4),
        ("    tty: no-boolean", 4),
        ("    mem_limit: much", 4),
        ("    ports:\n      - '80'\n      - {published: 1}", 6),
        ("    command: x\n    privileged: true", 5),
        ("    command: x\n    volumes: ['/etc:/x']", 5),
        ("    networks: [theirs]\nnetworks:\n  theirs: {external: true}", 6),
        ("  other:\n    image: Not An Image", 5),
        ("include: [/etc/passwd]", 4),
    ],
)
def test_a_refusal_names_the_line(server: ServedProcess, more: str, line: int) -> None:
    sentence = refusal(server, SERVICE + more)
    assert sentence.startswith(f"The Compose file (line {line}) ")
    assert "compose_file_code" not in sentence


@pytest.mark.parametrize(("more", "words"), PRIVILEGED)
def test_what_reaches_the_machine_is_refused(server: ServedProcess, more: str, words: str) -> None:
    sentence = refusal(server, SERVICE + more)
    assert words in sentence
    assert "--allow-privileged" in sentence


def test_a_server_may_allow_what_reaches_the_machine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("the host's\n")
    services = {
        "a": service("cat /host/seen", cap_add=["CHOWN"], volumes=[f"{tmp_path}:/host"]),
        "b": service("cat /proc/1/comm", pid="host"),
    }
    with served(folder, "--allow-privileged") as server:
        record = start(server, services).ended()
        assert "`build`" in refusal(server, SERVICE + "    build: .")
    assert record["status"] == "completed", record["system_errors"]
    assert lines(record, "a") == ["the host's"]


def test_without_compose_it_says_how_to_get_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        # As on a machine that has the engine's socket alone.
        elsewhere.setenv("PATH", str(tmp_path))
        with served(folder) as server:
            body = {"compose_file_code": SERVICE, "execution_type": "cpu"}
            reply = server.client.post(paths.START_COMPOSE, json=body)
    assert reply.status_code == 503
    assert "install Docker with its Compose plugin" in reply.json()["detail"]
