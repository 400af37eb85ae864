"""The magic's line: every option, and one sentence for every mistake."""

from __future__ import annotations

import argparse
import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.exceptions import OptionError
from lyceum_magic.magic.commands import line_parser
from lyceum_magic.magic.options import read_line
from lyceum_magic.magic.parsing import split
from lyceum_magic.submission.specs import ComposeSpec, ImageSpec, PythonSpec


def parse_cell_line(line: str) -> PythonSpec:
    return read_line(PythonSpec, line, code="1")


def parse_image_line(line: str) -> ImageSpec:
    return read_line(ImageSpec, line)


def parse_compose_line(line: str) -> ComposeSpec:
    return read_line(ComposeSpec, line, file="services: {}")


def test_an_empty_line_leaves_everything_to_the_configuration() -> None:
    assert parse_cell_line("") == PythonSpec("1")
    configured = {"machine": "gpu", "timeout_s": 5, "callback_urls": ("https://e.org/a",)}
    spec = read_line(PythonSpec, "", code="1", **configured)
    assert spec == PythonSpec("1", "gpu", timeout_s=5, callback_urls="https://e.org/a")
    spec = read_line(PythonSpec, "-m cpu --callback here", code="1", **configured)
    assert (spec.machine, spec.callback_urls) == ("cpu", ("https://e.org/a", "here"))


def test_every_option_is_understood() -> None:
    line = (
        "-m gpu.a100 -t 60 -r 'numpy>=2' needs.txt -r rich --no-auto-requirements --name 'my run' "
        "--label a --label b --meta k=v --meta empty= --meta eq=a=b --raw --no-check --as handle "
        "--no-raise --dry-run --local --callback https://e.org/a --callback https://e.org/b"
    )
    assert parse_cell_line(line) == PythonSpec.of_cell(
        code="1",
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
        callback_urls=["https://e.org/a", "https://e.org/b"],
    )
    assert parse_cell_line("--machine=cpu --timeout=600 --cloud").place == "cloud"


def test_every_option_of_an_image_is_understood() -> None:
    assert parse_image_line("alpine") == ImageSpec("alpine")
    line = (
        "--env A=1 --env B=x=y --user 1000 --no-s3 --s3-path /data --registry basic -m gpu.a100 "
        "--registry-user me --registry-password-env PW --graceful-timeout 30 --detach alpine:3 "
        "--budget 0.5 --entrypoint keep --no-init --cmd"
    )
    assert parse_image_line(line) == ImageSpec.of_cell(
        image="alpine:3",
        env={"A": "1", "B": "x=y"},
        user="1000",
        entrypoint="keep",
        init=False,
        s3=False,
        s3_path="/data",
        registry="basic",
        registry_user="me",
        registry_password_env="PW",
        graceful_timeout_s=30,
        machine="gpu.a100",
        detach=True,
        budget=0.5,
        words=[],
    )
    assert parse_image_line("alpine --cmd -m x --local").words == ["-m", "x", "--local"]
    assert parse_image_line("alpine --python --no-check").python


def test_every_option_of_a_stack_is_understood() -> None:
    assert parse_compose_line("") == ComposeSpec("services: {}")
    line = "--s3 --registry aws --aws-region eu-west-1 --graceful-timeout 1 --meta k=v"
    assert parse_compose_line(line) == ComposeSpec(
        "services: {}",
        s3=True,
        registry="aws",
        aws_region="eu-west-1",
        graceful_timeout_s=1,
        metadata={"k": "v"},
    )


def parse_line(line: str) -> argparse.Namespace:
    words = split(line, "%lyceum")
    return line_parser(words).parse_args(words)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "arguments are required: IMAGE"),
        ("a b", "unrecognized arguments: b"),
        ("a --env A", "--env takes KEY=VALUE, not 'A'; `%lyceum secrets set` keeps"),
        ("a --python --cmd", "Use either --python or --cmd, not both."),
        ("a --registry gcp", "invalid choice: 'gcp'"),
        ("a --registry basic", "--registry basic needs --registry-user NAME"),
        ("a --registry-user me", "--registry-user belongs to --registry basic"),
        ("a --registry-password-env X", "belongs to --registry basic"),
        ("a --registry aws --registry-user me", "belongs to --registry basic"),
        ("a --registry basic --registry-user me --aws-region x", "belongs to --registry aws"),
        ("a --graceful-timeout 0", "1 to 300 seconds, not 0"),
        ("a --graceful-timeout 301", "1 to 300 seconds, not 301"),
        ("a --graceful-timeout soon", "a whole number is expected, not 'soon'"),
        ("a --in x", "unrecognized arguments: --in x"),
        ("a --entrypoint bash", "invalid choice: 'bash'"),
        ("a --registry-password canary", "unrecognized arguments: --registry-password"),
    ],
)
def test_a_mistake_for_an_image_is_one_sentence(line: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_image_line(line)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_reads_a_variable_or_a_callback_out_of_the_options() -> None:
    options = parse_image_line("a --env A=canary --callback https://e.org/canary")
    assert "canary" not in repr(options)


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
    for parse in (parse_cell_line, parse_image_line, parse_compose_line):
        with contextlib.suppress(OptionError):
            parse(line)


@pytest.mark.parametrize(
    ("line", "members"),
    [
        ("", {"command": None}),
        ("list --all", {"command": "list", "all": True}),
        ("logs", {"command": "logs", "id": "last", "grep": None}),
        ("logs abc --grep 'two words'", {"id": "abc", "grep": "two words"}),
        ("attach", {"command": "attach", "id": "last"}),
        ("secrets", {"command": "secrets", "action": None}),
        ("secrets set A", {"action": "set", "name": "A"}),
        ("session", {"command": "session", "action": "list"}),
        ("session show train 3", {"action": "show", "which": ["train", "3"]}),
        ("session diff 1 train:2", {"action": "diff", "a": "1", "b": "train:2"}),
        ("session keep --off", {"action": "keep", "which": [], "off": True}),
        ("session branch try", {"action": "branch", "branch": "try", "name": None}),
        ("session rm train try", {"action": "rm", "name": "train", "branch": "try"}),
        ("offload on -m gpu", {"command": "offload", "action": "on", "machine": "gpu"}),
        ("offload", {"command": "offload", "action": None}),
        ("storage ls", {"command": "storage", "action": "ls", "prefix": ""}),
        ("storage put a b", {"action": "put", "path": "a", "key": "b"}),
        ("storage get a --yes", {"action": "get", "key": "a", "path": None, "yes": True}),
        ("callbacks", {"command": "callbacks", "action": "list", "id": None}),
        ("callbacks last", {"action": "list", "id": "last"}),
        ("callbacks test https://h/", {"action": "test", "url": "https://h/"}),
        ("callbacks redeliver msg_1", {"action": "redeliver", "id": "msg_1"}),
        ("callbacks rm 0a1b", {"action": "rm", "id": "0a1b"}),
        ("callbacks secret --rotate", {"action": "secret", "rotate": True, "show": False}),
        ("metrics", {"command": "metrics", "id": "last"}),
        ("forget a b", {"command": "forget", "id": ["a", "b"]}),
        ("forget --older-than 1.5", {"older_than": 1.5, "id": []}),
    ],
)
def test_subcommands_are_understood(line: str, members: dict[str, object]) -> None:
    parsed = vars(parse_line(line))
    assert {name: parsed[name] for name in members} == members


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "invalid choice: 'nonsense'"),
        ("abort", "required: id"),
        ("list --nonsense", "unrecognized arguments: --nonsense"),
        ("secrets set", "required: NAME"),
        ("secrets set A canary", "unrecognized arguments: canary"),
        ("session rm", "required: NAME"),
        ("session diff 1", "required: B"),
        ("offload sideways", "invalid choice: 'sideways'"),
        ("storage", "required: ls|put|get|rm"),
        ("storage mv a b", "invalid choice: 'mv'"),
        ("callbacks test", "required: URL"),
        ("callbacks redeliver", "required: ID"),
        ("callbacks rm", "required: ID"),
        ("callbacks a b", "unrecognized arguments: b"),
        ("callbacks --rotate", "unrecognized arguments: --rotate"),
        ("login key", "unrecognized arguments: key"),
        ("forget --older-than soon", "invalid float value: 'soon'"),
    ],
)
def test_a_mistake_in_a_subcommand_is_one_sentence(line: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_line(line)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("-t 5  # as short as can be", "-t 5"),
        ("# nothing", ""),
        ("-t 5 #don't", "-t 5"),
        (
            "--name 'a # b' --label \"c #d\" --meta k=v#w",
            "--name='a # b' --label 'c #d' --meta k=v#w",
        ),
        ("--name a\\'b # 'c", '--name "a\'b"'),
        ("-i a, b -o c ,d , e", "-i a,b -o c,d,e"),
        ("-r rich, 'numpy>=1,<2', needs.txt", "-r rich 'numpy>=1,<2' needs.txt"),
        ("-i a b -i c --out d e", "-i a,b,c -o d,e"),
        ("\u2013t 5 \u2014out x \u2013-detach", "-t 5 --out x --detach"),
        ("\u2212t 5 \u2014name=\u2013x", "-t 5 --name=\u2013x"),
        ("-t\u00a05\u00a0--detach", "-t 5 --detach"),
        ("--name '\u2013 a\u00a0b'", "--name '\u2013 a\u00a0b'"),
    ],
)
def test_what_is_meant_is_understood(line: str, same: str) -> None:
    assert parse_cell_line(line) == parse_cell_line(same)


def test_a_command_of_an_image_keeps_its_dashes() -> None:
    options = parse_image_line("alpine \u2013t 5 --cmd echo \u2013t '#' # said")
    assert (options.timeout_s, options.words) == (5, ["echo", "\u2013t", "#"])
    assert parse_line("list \u2014all # of them").all


@pytest.mark.parametrize(
    "line",
    [
        "--name \u201cmy run\u201d",
        "-i \u2018a\u2019",
        "--name=\u201erun\u201c",
        "-t 5 \u201d-m\u201d cpu",
    ],
)
def test_quotes_of_a_word_processor_are_named(line: str) -> None:
    with pytest.raises(OptionError, match="is no quote in such a line; write \" or ' in its place"):
        parse_cell_line(line)


def test_quotes_of_a_word_processor_inside_a_word_are_text() -> None:
    assert parse_cell_line("--name Ann\u2019s").name == "Ann\u2019s"
    assert parse_cell_line("--name '\u201crun\u201d' # \u201c").name == "\u201crun\u201d"
    assert parse_image_line("alpine --cmd echo \u201chi\u201d").words == [
        "echo", "\u201chi\u201d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "session"),
    [
        ("", None),
        ("--session", "notebook"),
        ("--session train", "train"),
        ("--session -m gpu", "notebook"),
        ("--no-session", ""),
        ("--session a.b-c_1", "a.b-c_1"),
    ],
)
def test_a_session_has_a_name_or_is_the_notebooks_own(line: str, session: str | None) -> None:
    assert parse_cell_line(line).session == session
    assert parse_image_line(f"python:3.12 --python {line}").session == session


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--session Train", "--session takes a name of a-z"),
        ("--session ../x", "not '../x'"),
        ("--session train --raw", "--session cannot go with it"),
    ],
)
def test_what_is_no_session_is_refused(line: str, said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        parse_cell_line(line)


def test_only_python_has_a_session_in_an_image() -> None:
    with pytest.raises(OptionError, match="add --python"):
        parse_image_line("python:3.12 --session")
