"""The magic's line: every option, and one sentence for every mistake."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.exceptions import OptionError
from lyceum_magic.magic.options import CellOptions, parse_cell_line
from lyceum_magic.magic.parsing import split
from lyceum_magic.magic.subcommands import line_parser


def test_an_empty_line_leaves_everything_to_the_configuration() -> None:
    assert parse_cell_line("") == CellOptions()


def test_every_option_is_understood() -> None:
    line = (
        "-m gpu.a100 -t 60 -r 'numpy>=2' needs.txt -r rich --no-auto-requirements --name 'my run' "
        "--label a --label b --meta k=v --meta empty= --meta eq=a=b --raw --no-check --as handle "
        "--no-raise --dry-run --local"
    )
    assert parse_cell_line(line) == CellOptions(
        machine="gpu.a100",
        timeout_s=60,
        requirements=["numpy>=2", "needs.txt", "rich"],
        auto_requirements=False,
        name="my run",
        labels=["a", "b"],
        metadata={"k": "v", "empty": "", "eq": "a=b"},
        raw=True,
        check=False,
        as_name="handle",
        may_fail=True,
        dry_run=True,
        place="local",
    )
    assert parse_cell_line("--machine=cpu --timeout=600 --cloud").place == "cloud"


@pytest.mark.parametrize("text", ["$HOME {x} %d !ls", "`ls`", "~", "*", "#not a remark"])
def test_nothing_in_the_line_is_substituted(text: str) -> None:
    assert parse_cell_line(f"--name '{text}'").name == text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--nonsense", "unrecognized arguments: --nonsense"),
        ("--mach cpu", "unrecognized arguments: --mach"),
        ("stray", "unrecognized arguments: stray"),
        ("-m", "expected one argument"),
        ("-m gpu-a100", "not 'gpu-a100'"),
        ("-m ''", "not ''"),
        ("-t 0", "1 to 600 seconds, not 0"),
        ("-t 601", "1 to 600 seconds, not 601"),
        ("-t -1", "1 to 600 seconds, not -1"),
        ("-t 1.5", "a whole number is expected, not '1.5'"),
        ("-t soon", "a whole number is expected, not 'soon'"),
        ("-t 99999999999999999999", "1 to 600"),
        ("-r", "expected at least one argument"),
        ("--meta novalue", "--meta takes KEY=VALUE"),
        ("--meta =v", "--meta takes KEY=VALUE"),
        ("--as 1x", "--as takes a Python name"),
        ("--as a.b", "--as takes a Python name"),
        ("--as class", "--as takes a Python name"),
        ("--local --cloud", "not allowed with"),
        ("--name 'open", "cannot be split"),
        ("--name back\\", "cannot be split"),
        (" ".join(f"--label {n}" for n in range(65)), "at most 64 labels"),
        (" ".join(f"--meta {n}=x" for n in range(64)), "at most 63 pairs"),
        ("--raw=yes", "ignored explicit argument"),
        ("--help", "unrecognized arguments: --help"),
    ],
)
def test_a_mistake_is_one_sentence(line: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_cell_line(line)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert message.endswith(".")


@given(st.text())
def test_no_line_brings_anything_but_options_or_one_sentence(line: str) -> None:
    with contextlib.suppress(OptionError):
        parse_cell_line(line)


@pytest.mark.parametrize(
    ("line", "members"),
    [
        ("", {"command": None}),
        ("list --all", {"command": "list", "all": True}),
        ("logs", {"command": "logs", "id": "last", "grep": None}),
        ("logs abc --grep 'two words'", {"id": "abc", "grep": "two words"}),
        ("attach", {"command": "attach", "id": "last"}),
        ("forget a b", {"command": "forget", "id": ["a", "b"]}),
        ("forget --older-than 1.5", {"older_than": 1.5, "id": []}),
    ],
)
def test_subcommands_are_understood(line: str, members: dict[str, object]) -> None:
    parsed = vars(line_parser().parse_args(split(line, "%lyceum")))
    assert {name: parsed[name] for name in members} == members


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "invalid choice: 'nonsense'"),
        ("abort", "required: id"),
        ("list --nonsense", "unrecognized arguments: --nonsense"),
        ("login key", "unrecognized arguments: key"),
        ("forget --older-than soon", "invalid float value: 'soon'"),
    ],
)
def test_a_mistake_in_a_subcommand_is_one_sentence(line: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        line_parser().parse_args(split(line, "%lyceum"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
