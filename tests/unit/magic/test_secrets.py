"""`%lyceum secrets` against a scripted cloud: values go there, and nowhere else."""

from __future__ import annotations

import getpass

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.line import run_line
from lyceum_magic.protocol import paths
from tests.tools.wire_server import WireServer, json_answer, refusal

DEFAULTS = Defaults(machine="cpu", timeout_s=600, max_lines=10, max_bytes=1000)
VALUE = "canary-value"
LISTED = {
    "environment_variables": [
        {"id": "7", "name": "TOKEN", "updated_at": "2026-11-22T08:00:00.123456+00:00"},
        {"id": "a/b", "key": "API_KEY"},
    ]
}


def say(line: str) -> str:
    return repr(run_line(f"secrets {line}", DEFAULTS, lambda name, value: None))


@pytest.mark.parametrize("line", ["", "list"])
def test_names_are_listed(wire: WireServer, line: str) -> None:
    wire.on("GET", paths.SECRETS, json_answer(LISTED))
    assert say(line).splitlines() == [
        "name     set at", "API_KEY", "TOKEN    2026-11-22T08:00:00",
    ]  # fmt: skip


def test_none_yet(wire: WireServer) -> None:
    wire.on("GET", paths.SECRETS, json_answer({"environment_variables": []}))
    assert say("list") == "no secrets; `%lyceum secrets set NAME` keeps one"


def test_a_value_is_asked_for_and_travels(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: VALUE)
    wire.on("POST", paths.SECRETS, json_answer(LISTED))
    said = say("set TOKEN")
    assert said == "TOKEN is set: runs that start from now on have it as a variable."
    (request,) = wire.asked("POST", paths.SECRETS)
    assert request.json == {"environment_variables": [{"name": "TOKEN", "value": VALUE}]}
    assert VALUE not in f"{said}{capsys.readouterr()}"


def test_a_short_value_is_said_to_stay_visible(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "12345")
    wire.on("POST", paths.SECRETS, json_answer(LISTED))
    assert "With fewer than 6 characters it is not masked" in say("set PIN")


def test_where_nobody_can_be_asked_nothing_is_set(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(getpass, "getpass", refuse)
    with pytest.raises(OptionError, match="Value of TOKEN: nobody can be asked here; set it once"):
        say("set TOKEN")
    monkeypatch.setattr(getpass, "getpass", lambda prompt: " ")
    with pytest.raises(OptionError, match="nothing was typed"):
        say("set TOKEN")
    assert wire.requests == []


@pytest.mark.parametrize("name", ["1x", "a-b", "''", "A=canary", "ÄPFEL"])
def test_a_name_that_no_variable_has_is_refused_before_it_is_asked_for(
    wire: WireServer, name: str
) -> None:
    with pytest.raises(OptionError, match="such as HF_TOKEN"):
        say(f"set {name}")
    assert wire.requests == []


def test_one_is_removed_by_its_name(wire: WireServer) -> None:
    wire.on("GET", paths.SECRETS, json_answer(LISTED))
    wire.on("DELETE", f"{paths.SECRETS}7", json_answer({}))
    assert say("rm TOKEN") == "TOKEN is removed."
    wire.on("DELETE", f"{paths.SECRETS}a%2Fb", json_answer({}))
    assert say("rm API_KEY") == "API_KEY is removed."
    with pytest.raises(OptionError, match="There is no secret NONE"):
        say("rm NONE")


def test_what_the_server_refuses_is_said_without_the_value(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda prompt: VALUE)
    wire.on("POST", paths.SECRETS, refusal(422, "TOKEN is reserved"))
    with pytest.raises(Exception, match=r"\(422\): TOKEN is reserved\.") as caught:
        say("set TOKEN")
    assert VALUE not in repr(caught.value)
