"""The start requests of images and stacks: what runs there, and what cannot travel."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lyceum_magic
from lyceum_magic.exceptions import OptionError
from lyceum_magic.outputs.decoding import Display, Raised, decode
from lyceum_magic.protocol.events import Output
from lyceum_magic.protocol.limits import TAG_KEY
from lyceum_magic.submission.compose_request import compose_request
from lyceum_magic.submission.image_request import (
    MAX_ARGUMENT_BYTES,
    image_request,
    shell_command,
    words_command,
)
from lyceum_magic.submission.image_request import python_command as command_for
from lyceum_magic.submission.registry import aws_account
from lyceum_magic.submission.specs import ComposeSpec, ImageSpec
from tests.unit.remote.interpreters import INTERPRETERS


def spec_for(code: str) -> ImageSpec:
    return ImageSpec.of_cell(image="python", command=code, python=True)


def python_command(code: str) -> list[str]:
    return command_for(spec_for(code))


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_every_choice_is_in_the_request() -> None:
    spec = ImageSpec(
        "registry.example/team/app:1",
        ["app", "--fast"],
        "gpu.a100",
        timeout_s=5,
        name="n",
        labels=["l"],
        metadata={"k": "v"},
        callback_urls=["https://e.org/x"],
        env={"A": "1", "some.name": "x=y z"},
        user="1000:1000",
        s3=False,
        s3_path="/data",
        graceful_timeout_s=30,
        registry="basic",
        registry_user="me",
        registry_password="canary",
    )
    request = image_request(spec, ["app", "--fast"])
    assert request.to_wire() == {
        "docker_image_ref": "registry.example/team/app:1",
        "docker_run_cmd": ["app", "--fast"],
        "docker_run_env": "A=1\nsome.name=x=y z",
        "docker_user": "1000:1000",
        "enable_s3_mount": False,
        "s3_mount_path": "/data",
        "graceful_timeout": 30,
        "docker_registry_credential_type": "basic",
        "docker_username": "me",
        "docker_password": "canary",
        "aws_region": "us-east-1",
        "timeout": 5,
        "execution_type": "gpu.a100",
        "run_name": "n",
        "labels": ["l"],
        "metadata": {"k": "v", TAG_KEY: (request.metadata or {})[TAG_KEY]},
        "user_callback_urls": ["https://e.org/x"],
    }
    assert "canary" not in repr(request)
    assert "canary" not in repr(spec)


def test_an_image_alone_runs_its_own_command_with_the_storage() -> None:
    wire = image_request(ImageSpec("hello-world"), None).to_wire()
    assert "docker_run_cmd" not in wire
    assert (wire["enable_s3_mount"], wire["s3_mount_path"]) == (True, "/mnt/s3")


def test_a_compose_file_travels_as_it_is() -> None:
    text = "services:\n  a: {image: 'x:${TAG}'}\n\n"
    wire = compose_request(ComposeSpec(text, s3=True, graceful_timeout_s=5)).to_wire()
    assert wire["compose_file_code"] == text
    assert (wire["file_name"], wire["enable_s3_mount"]) == ("compose.yaml", True)
    assert wire["graceful_timeout"] == 5


@pytest.mark.parametrize(
    ("script", "code", "out"),
    [
        ("echo one; false; echo two", 0, "one\ntwo\n"),
        ("false", 1, ""),
        ("set -e\nfalse\necho never", 1, ""),
        ("exit 7", 7, ""),
        ("echo \"$0 {x} %d 'ä'\"", 0, "sh {x} %d 'ä'\n"),
    ],
)
def test_the_last_command_of_a_script_decides(script: str, code: int, out: str) -> None:
    done = run(shell_command(script, 1))
    assert (done.returncode, done.stdout) == (code, out)


def test_a_shell_counts_lines_as_the_notebook_does() -> None:
    done = run(shell_command("true\nno_such_command_", 2))
    assert re.search(r"\b3\b.*no_such_command_", done.stderr)


def test_words_are_arguments_as_they_are() -> None:
    assert words_command("a 'b c' $D `e` \\\n  *.py #f\n") == [
        "a", "b c", "$D", "`e`", "*.py", "#f",
    ]  # fmt: skip
    for text, said in (("", "empty"), (" \n", "empty"), ("a 'b", "split")):
        with pytest.raises(OptionError, match=said):
            words_command(text)


@pytest.mark.parametrize("python", INTERPRETERS.values(), ids=INTERPRETERS)
def test_python_in_an_image_behaves_as_in_a_cell(python: str, tmp_path: Path) -> None:
    spec = spec_for("print('ü', __name__)\n'a' + 'b'")
    command = command_for(spec)
    assert command[0] == "python3"
    folder = tmp_path / "folder"
    folder.mkdir()
    done = run([python, *command[1:]], cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    text, shown = decode([Output(done.stdout)], spec.mark)
    assert text == Output("ü __main__\n")
    assert isinstance(shown, Display)
    assert shown.data["text/plain"] == "'ab'"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("python", INTERPRETERS.values(), ids=INTERPRETERS)
def test_python_in_an_image_raises_as_a_cell_does(python: str) -> None:
    spec = spec_for("x = 1\n\nx / 0")
    command = command_for(spec)
    done = run([python, *command[1:]])
    (raised,) = [item for item in decode([Output(done.stderr, "stderr")], spec.mark)
                 if isinstance(item, Raised)]  # fmt: skip
    (described,) = raised.error["exceptions"]
    assert described["builtin"] == "ZeroDivisionError"
    assert done.returncode == 1


def test_python_in_an_image_leaves_nothing_of_its_own_in_the_cell() -> None:
    command = python_command("print(sorted(globals()), len(__import__('sys').argv))")
    done = run([sys.executable, *command[1:]])
    expected = "['__annotations__', '__builtins__', '__doc__', '__file__', '__loader__', "
    assert done.stdout.startswith(expected)
    assert "__lyceum" not in done.stdout
    assert done.stdout.endswith(" 1\n")


def test_processes_that_a_cell_spawns_find_its_functions() -> None:
    cell = (
        "import multiprocessing\ndef double(n): return 2 * n\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(double, [21]))\n"
    )
    done = run([sys.executable, *python_command(cell)[1:]])
    assert (done.stdout, done.stderr) == ("[42]\n", "")


def test_where_no_file_can_be_written_python_runs_all_the_same() -> None:
    limited = 'ulimit -f 0; exec "$@"'
    command = ["sh", "-c", limited, "sh", sys.executable, *python_command("6 * 7")[1:]]
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert "42" in done.stdout


def test_python_of_any_length_travels_in_pieces_that_fit() -> None:
    code = f"x = {'ü' * 200_000!r}\nprint(len(x))"
    command = python_command(code)
    image_request(ImageSpec("python"), command)
    assert max(len(word.encode()) for word in command) <= MAX_ARGUMENT_BYTES
    assert run([sys.executable, *command[1:]]).stdout == "200000\n"


@pytest.mark.parametrize(
    ("image", "members", "said"),
    [
        ("", {}, "An image is named as in"),
        ("two words", {}, "An image is named as in"),
        ("-v", {}, "An image is named as in"),
        (7, {}, "An image is named as in"),
        ("x", {"command": ["canary" * 30_000]}, "has 180,000 bytes"),
        ("x", {"command": ["canary" * 20_000] * 10}, "1,048,576 together"),
        ("x", {"command": ["a\0canary"]}, "zero byte"),
        ("x", {"command": [7]}, "a list of texts"),
        ("x", {"env": {"A B": "canary"}}, "not 'A B'"),
        ("x", {"env": {"A=": "canary"}}, "not 'A='"),
        ("x", {"env": {"A": "canary\nB=1"}}, "variable A takes a text of one line"),
        ("x", {"env": {"A": 7}}, "variable A takes a text of one line"),
        ("x", {"s3_path": "data"}, "such as /mnt/s3, not 'data'"),
        ("x", {"s3_path": "/"}, "such as /mnt/s3, not '/'"),
        ("x", {"s3_path": "/a/../b"}, "such as /mnt/s3"),
        ("x", {"graceful_timeout_s": 0}, "graceful_timeout_s takes 1 to 300 seconds, not 0"),
        ("x", {"graceful_timeout_s": 301}, "graceful_timeout_s takes 1 to 300 seconds, not 301"),
        ("x", {"user": 7}, "user: "),
    ],
)
def test_what_no_engine_could_start_is_one_sentence(
    image: str, members: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        lyceum_magic.submit_image(image, **members)
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"timeout_s": 601}, "timeout_s takes 1 to 600"),
        ({"place": "here"}, "place takes"),
        ({"budget": 0}, "budget takes"),
        ({"registry": "gcp"}, 'registry takes "basic" or "aws", not \'gcp\''),
        ({"registry": "basic"}, "needs registry_user and registry_password"),
        ({"registry": "basic", "registry_user": "canary"}, "needs registry_user and"),
        ({"registry_password": "canary"}, 'registry_password belongs to registry="basic"'),
        (
            {"registry": "aws", "registry_user": "canary"},
            'registry_user belongs to registry="basic"',
        ),
        ({"aws_region": "eu-west-1"}, "aws_region belongs to"),
        ({"callback_urls": "http://e.org/canary"}, "http://e.org/... is not encrypted"),
        ({"machine": "gpu-a100"}, "machine takes a name such as gpu.a100, not 'gpu-a100'"),
    ],
)
def test_from_python_a_wrong_choice_is_one_sentence_and_starts_nothing(
    own_machine: Path, choices: dict[str, Any], said: str
) -> None:
    for submit in (
        lambda: lyceum_magic.submit_image("x", **choices),
        lambda: lyceum_magic.submit_compose("services: {}", **choices),
    ):
        with pytest.raises(OptionError, match=said) as caught:
            submit()
        assert "canary" not in str(caught.value)
    assert not own_machine.exists()


def test_from_python_a_compose_file_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"stack\.yml cannot be read: No such file"):
        lyceum_magic.submit_compose(tmp_path / "stack.yml")
    with pytest.raises(OptionError, match="empty"):
        lyceum_magic.submit_compose(" \n")
    with pytest.raises(OptionError, match="empty"):
        lyceum_magic.submit_image("x", "")


def test_aws_keys_come_from_where_boto3_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(OptionError, match="finds no AWS keys"):
        aws_account()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(OptionError, match="cannot read the AWS keys"):
        aws_account()
    monkeypatch.delenv("AWS_PROFILE")
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = AKIA\naws_secret_access_key = sk\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    fields = aws_account()
    assert fields == {
        "docker_registry_credential_type": "aws",
        "aws_access_key_id": "AKIA",
        "aws_secret_access_key": "sk",
        "aws_session_token": None,
        "aws_region": "eu-north-1",
    }
    assert aws_account("eu-west-1")["aws_region"] == "eu-west-1"
    wire = image_request(ImageSpec("x", registry="aws"), None, **fields).to_wire()
    assert {**fields, **wire} == {**wire, "aws_session_token": None}


def test_without_boto3_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(OptionError, match=r"pip install 'lyceum-magic\[containers\]'"):
        aws_account()
