"""Tab completion: what is offered where."""

from __future__ import annotations

import pytest

from lyceum_magic.magic.completion import complete
from lyceum_magic.protocol.machines import MACHINES

IDS = ["0a1b2c3d", "0affffff"]


def offers(line: str) -> list[str] | None:
    return complete(line, lambda: IDS)


@pytest.mark.parametrize("line", ["", "x = 1", "%%time", "%%lyceum", "%lyceumx ", " %lyceum "])
def test_other_lines_are_left_to_others(line: str) -> None:
    assert offers(line) is None


def test_options_of_a_cell() -> None:
    every = offers("%%lyceum ")
    assert every is not None
    assert {"-m", "--machine", "--no-raise", "--as"} <= set(every)
    switches = ["--no-auto-requirements", "--no-check", "--no-raise", "--no-session"]
    assert offers("%%lyceum --no-") == switches
    assert offers("%%lyceum --no-raise --tim") == ["--timeout"]


@pytest.mark.parametrize("option", ["-m", "--machine"])
def test_machines(option: str) -> None:
    assert offers(f"%%lyceum {option} ") == list(MACHINES)
    assert offers(f"%%lyceum -t 5 {option} gpu.h") == ["gpu.h100", "gpu.h200"]


@pytest.mark.parametrize("line", ["--name ", "-t ", "--meta ", "--as m", "-r nu"])
def test_a_value_that_only_the_user_knows_is_not_guessed(line: str) -> None:
    assert offers(f"%%lyceum {line}") == []


def test_options_of_images_and_stacks() -> None:
    image, stack = offers("%%lyceum_image alpine "), offers("%%lyceum_compose ")
    assert image is not None
    assert stack is not None
    assert {"--env", "--python", "--cmd", "--no-s3", "--callback", "-m"} <= set(image)
    assert {"--registry", "--s3", "--callback", "-m"} <= set(stack)
    assert "--env" not in stack
    assert offers("%%lyceum_image alpine --registry ") == ["basic", "aws"]
    assert offers("%lyceum_image alpine -m gpu.h") == ["gpu.h100", "gpu.h200"]
    assert offers("%%lyceum_image alpine --env ") == []
    assert offers("%lyceum_image alpine --cmd ls -") == []


def test_actions_of_a_subcommand() -> None:
    assert offers("%lyceum secrets ") == ["list", "rm", "set"]
    assert offers("%lyceum storage g") == ["get"]
    assert offers("%lyceum session ch") == ["checkout"]
    assert offers("%lyceum storage get --") == ["--yes"]
    actions = ["list", "redeliver", "rm", "secret", "test"]
    assert offers("%lyceum callbacks ") == [*actions, "last", *IDS]
    assert offers("%lyceum callbacks 0af") == ["0affffff"]
    assert offers("%lyceum callbacks redeliver l") == ["last"]
    assert offers("%lyceum callbacks secret --") == ["--rotate", "--show"]
    assert offers("%lyceum callbacks test ") == []
    assert offers("%lyceum metrics 0af") == ["0affffff"]


def test_subcommands_and_their_options() -> None:
    assert offers("%lyceum ma") == ["machines"]
    assert offers("%lyceum st") == ["status", "stop", "storage"]
    assert offers("%lyceum list --") == ["--all", "--limit"]
    assert offers("%lyceum nonsense ") == []


def test_runs_where_an_id_belongs() -> None:
    assert offers("%lyceum attach ") == ["last", *IDS]
    assert offers("%lyceum abort 0af") == ["0affffff"]
    assert offers("%lyceum list 0a") == []


def test_runs_are_asked_for_only_there() -> None:
    def never() -> list[str]:
        raise AssertionError

    complete("%%lyceum --", never)
    complete("%lyceum ", never)
    complete("%lyceum list ", never)
