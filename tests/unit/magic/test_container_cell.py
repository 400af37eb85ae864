"""`%%lyceum_image` and `%%lyceum_compose` against a scripted cloud."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import IPython
import pytest
from IPython.core.error import StdinNotImplementedError

import lyceum_magic
from lyceum_magic.exceptions import OptionError, RunFailed, ServiceUnavailable
from lyceum_magic.magic.cell import Cell, Defaults, run_cell
from lyceum_magic.magic.container_cell import ComposeCell, ImageCell
from lyceum_magic.magic.python_cell import PythonCell
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished
from lyceum_magic.protocol.states import State
from lyceum_magic.runs.run import Run
from lyceum_magic.runs.workspace import workspace
from tests.tools.wire_server import WireServer, refusal
from tests.unit.magic.conftest import ends

DEFAULTS = Defaults(machine="cpu", timeout_s=600, max_lines=10, max_bytes=1000)
STACK = "services:\n  web: {image: 'nginx:${TAG}'}\n"
PASSWORD = "canary-password"
REGISTRY = "--registry basic --registry-user me"

#: A cell of each magic, without a registry.
CELLS: dict[str, Callable[[str, Defaults], Cell]] = {
    paths.START_PYTHON: lambda line, defaults: PythonCell(line, "print(1)", defaults, {}, {}),
    paths.START_IMAGE: lambda line, defaults: ImageCell(f"alpine {line}", "echo", defaults),
    paths.START_COMPOSE: lambda line, defaults: ComposeCell(line, STACK, defaults),
}


def run(cell: Cell) -> dict[str, object]:
    """Runs a cell; what it has bound."""
    bound: dict[str, object] = {}
    run_cell(cell, DEFAULTS, bound.__setitem__)
    return bound


def sent(wire: WireServer, path: str) -> dict[str, Any]:
    (request,) = wire.asked("POST", path)
    body: dict[str, Any] = request.json
    return body


def test_a_script_runs_in_its_image(wire: WireServer, capsys: pytest.CaptureFixture[str]) -> None:
    cell = ImageCell("alpine:3 --env A=1 -t 9 --as mine", "echo $A {x}\n", DEFAULTS)
    bound = run(cell)
    body = sent(wire, paths.START_IMAGE)
    assert body["docker_image_ref"] == "alpine:3"
    assert body["docker_run_cmd"] == ["sh", "-c", "\necho $A {x}\n"]
    assert (body["docker_run_env"], body["timeout"]) == ("A=1", 9)
    assert capsys.readouterr().out == "hello\n"
    assert bound["mine"] is bound["_run"]
    (entry,) = workspace().history.entries()
    assert (entry.run_id, entry.state) == ("run", "completed")


@pytest.mark.parametrize(
    ("line", "text", "choice"),
    [
        ("x", "ls", "auto"),
        ("x --python", "1", "auto"),
        ("x", None, None),
        ("x --cmd ls", None, None),
        ("x --cmd", "ls", None),
        ("x --entrypoint keep", "ls", "keep"),
        ("x --entrypoint skip --cmd ls", None, "skip"),
    ],
)
def test_scripts_run_whatever_the_entry_point_is(
    line: str, text: str | None, choice: str | None
) -> None:
    request = ImageCell(line, text, DEFAULTS).request
    assert request.to_wire().get("docker_entrypoint") == choice


def test_an_image_s_own_command_keeps_its_entry_point() -> None:
    with pytest.raises(OptionError, match="runs with its entry point"):
        ImageCell("x --entrypoint skip", None, DEFAULTS)


def test_what_the_cloud_may_not_honour_is_said(
    wire: WireServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = ImageCell("alpine --no-init --entrypoint skip", "ls", DEFAULTS)
    bound = run(cell)
    assert sent(wire, paths.START_IMAGE)["docker_init"] is False
    said = "the cloud may take no notice of --entrypoint skip · "
    said += "the cloud may take no notice of --no-init"
    assert bound["_run"].note == said  # type: ignore[attr-defined]
    run_cell(ImageCell("alpine --no-init --dry-run", "ls", DEFAULTS), DEFAULTS, bound.__setitem__)
    assert "the cloud may take no notice of --no-init\n" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="no notice of --no-init"):
        lyceum_magic.submit_image("alpine", "ls", init=False).result()


@pytest.mark.parametrize(
    ("line", "text", "command"),
    [
        ("x", None, None),
        ("x --cmd", "app 'two words'\n $D", ["app", "two words", "$D"]),
        ("x --cmd app -m 'two words' --env", None, ["app", "-m", "two words", "--env"]),
    ],
)
def test_commands_without_a_shell(
    wire: WireServer, line: str, text: str | None, command: list[str] | None
) -> None:
    run(ImageCell(line, text, DEFAULTS))
    assert sent(wire, paths.START_IMAGE).get("docker_run_cmd") == command


def test_a_stack_travels_as_it_is(wire: WireServer) -> None:
    run(ComposeCell("--s3 --graceful-timeout 30 --name n", STACK, DEFAULTS))
    body = sent(wire, paths.START_COMPOSE)
    # Its lines have the numbers that they have in the cell.
    assert body["compose_file_code"] == f"\n{STACK}"
    assert (body["enable_s3_mount"], body["graceful_timeout"], body["run_name"]) == (True, 30, "n")


@pytest.mark.parametrize("path", CELLS)
def test_callbacks_of_line_and_configuration_travel_together(wire: WireServer, path: str) -> None:
    configured = Defaults("cpu", 600, 10, 1000, ("https://e.org/always",))
    run(CELLS[path]("--callback https://e.org/once --callback https://e.org/always", configured))
    assert sent(wire, path)["user_callback_urls"] == [
        "https://e.org/always", "https://e.org/once",
    ]  # fmt: skip


@pytest.mark.parametrize("path", [paths.START_IMAGE, paths.START_COMPOSE])
def test_a_run_that_fails_raises_its_reason(
    wire: WireServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(user_ns={}))
    ends(wire, Finished(State.FAILED, 7, error="service job ended with exit code 7"))
    with pytest.raises(RunFailed, match="service job ended with exit code 7") as caught:
        run(CELLS[path]("", DEFAULTS))
    assert (caught.value.return_code, caught.value.state) == (7, "failed")
    assert (caught.value.ename, caught.value.__cause__) == ("", None)
    run(CELLS[path]("--no-raise", DEFAULTS))


@pytest.mark.parametrize("path", [paths.START_IMAGE, paths.START_COMPOSE])
def test_a_server_without_an_engine_says_so_itself(wire: WireServer, path: str) -> None:
    advice = "There is no container engine here: install Docker."
    wire.on("POST", path, refusal(503, advice))
    with pytest.raises(ServiceUnavailable) as caught:
        run(CELLS[path]("", DEFAULTS))
    assert str(caught.value) == advice
    assert len(wire.asked("POST", path)) == 1


def test_a_field_that_the_server_refuses_is_one_sentence(wire: WireServer) -> None:
    problem = {"loc": ["body", "compose_file_code"], "msg": "line 3: no", "type": "value_error"}
    wire.on("POST", paths.START_COMPOSE, refusal(422, [problem]))
    with pytest.raises(lyceum_magic.LyceumError, match=r"\(422\): compose_file_code: line 3: no\."):
        run(ComposeCell("", STACK, DEFAULTS))


def test_what_is_wrong_in_a_stack_is_told_by_its_line_alone(wire: WireServer) -> None:
    said = "The Compose file (line 3) uses `build`: name an image."
    problem = {"loc": ["body", "compose_file_code"], "msg": said, "type": "value_error"}
    wire.on("POST", paths.START_COMPOSE, refusal(422, [problem]))
    with pytest.raises(lyceum_magic.LyceumError) as caught:
        run(ComposeCell("", STACK, DEFAULTS))
    assert str(caught.value) == said


# Registries.


@pytest.mark.parametrize("path", [paths.START_IMAGE, paths.START_COMPOSE])
def test_a_password_comes_from_the_named_variable(
    wire: WireServer, path: str, own_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", PASSWORD)
    bound = run(CELLS[path](f"{REGISTRY} --registry-password-env REGISTRY_PASSWORD", DEFAULTS))
    body = sent(wire, path)
    assert body["docker_registry_credential_type"] == "basic"
    assert (body["docker_username"], body["docker_password"]) == ("me", PASSWORD)
    assert PASSWORD not in repr(bound)
    for file in own_machine.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file


def test_a_password_is_asked_for_once_nothing_else_can_go_wrong(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return PASSWORD

    monkeypatch.setattr(getpass, "getpass", answer)
    with pytest.raises(OptionError):
        run(ImageCell(f"alpine {REGISTRY} --s3-path data", "ls", DEFAULTS))
    assert asked == []
    run(ImageCell(f"alpine {REGISTRY}", "ls", DEFAULTS))
    assert asked == ["Password of me at the registry: "]
    assert sent(wire, paths.START_IMAGE)["docker_password"] == PASSWORD


@pytest.mark.parametrize("error", [StdinNotImplementedError("no"), EOFError()])
def test_where_nobody_can_be_asked_the_other_way_is_named(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(prompt: str) -> str:
        raise error

    monkeypatch.setattr(getpass, "getpass", refuse)
    with pytest.raises(OptionError, match=r"nobody can be asked here.*--registry-password-env"):
        run(ImageCell(f"alpine {REGISTRY}", "ls", DEFAULTS))
    assert not wire.asked("POST", paths.START_IMAGE)
    assert workspace().history.entries() == []


def test_a_variable_that_is_not_set_is_named(wire: WireServer) -> None:
    line = f"alpine {REGISTRY} --registry-password-env NOT_SET_HERE"
    with pytest.raises(OptionError, match="NOT_SET_HERE is not set"):
        run(ImageCell(line, "ls", DEFAULTS))


def test_aws_keys_travel_and_are_not_asked_for(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    run(ComposeCell("--registry aws --aws-region eu-west-1", STACK, DEFAULTS))
    body = sent(wire, paths.START_COMPOSE)
    assert {name: body[name] for name in body if name.startswith("aws")} == {
        "aws_access_key_id": "AKIA", "aws_secret_access_key": "canary",
        "aws_session_token": "token", "aws_region": "eu-west-1",
    }  # fmt: skip


# From Python.


def test_submit_image_is_the_same_way(wire: WireServer) -> None:
    started = lyceum_magic.submit_image(
        "alpine", "echo $A", env={"A": "1"}, registry="basic", registry_user="me",
        registry_password=PASSWORD, name="n", callback_urls="https://e.org/x",
    )  # fmt: skip
    assert isinstance(started, Run)
    assert started.result().text == "hello\n"
    body = sent(wire, paths.START_IMAGE)
    assert body["docker_run_cmd"] == ["sh", "-c", "echo $A"]
    assert (body["docker_password"], body["user_callback_urls"]) == (PASSWORD, ["https://e.org/x"])


def test_submit_compose_reads_a_path_and_takes_a_text(wire: WireServer, tmp_path: Path) -> None:
    path = tmp_path / "stack.yml"
    path.write_text(STACK)
    for file, name in ((path, "stack.yml"), (STACK, "compose.yaml")):
        lyceum_magic.submit_compose(file, s3=True).result()
        body = wire.asked("POST", paths.START_COMPOSE)[-1].json
        assert (body["compose_file_code"], body["file_name"]) == (STACK, name)


# What cannot be.


@pytest.mark.parametrize(
    ("line", "text", "said"),
    [
        ("alpine", "\n", "The cell is empty: write the shell script"),
        ("alpine --cmd", "\n", "The cell is empty: write the command's words"),
        ("alpine --cmd ls", "ls", "the rest of the line or the cell, not both"),
        ("alpine --python", None, "--python needs a cell"),
        ("alpine --python", "", "The cell is empty: write the Python code"),
        ("alpine", "canary" * 30_000, "has 180,005 bytes"),
    ],
)
def test_a_cell_that_cannot_run_is_one_sentence(line: str, text: str | None, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        ImageCell(line, text, DEFAULTS)
    assert "canary" not in str(caught.value)


def test_python_for_an_image_is_compiled_here_first() -> None:
    with pytest.raises(SyntaxError):
        ImageCell("python --python", "x = = 1", DEFAULTS)
    assert ImageCell("python --python --no-check", "x = = 1", DEFAULTS).request


def test_a_stack_without_a_file_is_one_sentence() -> None:
    with pytest.raises(OptionError, match="The Compose file is empty"):
        ComposeCell("", "\n  \n", DEFAULTS)
