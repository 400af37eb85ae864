"""The limits of an image run, checked without an engine; and the lack of one."""

from __future__ import annotations

import asyncio
import base64
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol.requests import SessionStep, StartImage
from lyceum_magic.server.runners.base import EngineUnavailable, InvalidField, RunOrder, Usage
from lyceum_magic.server.runners.engine.container import (
    ContainerRunner,
    check_fields,
    container_environment,
    decode_environment,
    usage_of,
)
from lyceum_magic.server.runners.engine.engine import Engine, connect, engine_environment
from lyceum_magic.server.runners.engine.registry import SignIn, check_credentials, sign_in
from lyceum_magic.server.runners.handle import SupervisedHandle

LONG = "x" * (128 * 1024)

#: The SDK leaves the socket open that could not be connected.
without_engine = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    yield
    gc.collect()  # the sockets


def image(**fields: Any) -> StartImage:
    return StartImage(docker_image_ref="python:3.12", **fields)


def test_lines_are_variables() -> None:
    text = "A=1\n\nB=x=y\r\nC=\nD\nE= padded \nspring.url=z"
    assert decode_environment(text) == {
        "A": "1",
        "B": "x=y",
        "C": "",
        "D": None,
        "E": " padded ",
        "spring.url": "z",
    }


SESSION = SessionStep(key="a", cell=1, id="0" * 32)


@pytest.mark.parametrize("line", ["=s3cret", "two words=1", "-----END KEY line-----", " X=1"])
def test_a_line_without_a_name_is_refused_and_not_quoted(line: str) -> None:
    with pytest.raises(InvalidField, match="line 2 has no name") as caught:
        decode_environment(f"OK=1\n{line}")
    assert caught.value.field == "docker_run_env"
    assert line not in str(caught.value)


def test_the_request_s_variables_win_over_the_account_s_secrets() -> None:
    request = image(docker_run_env="BOTH=mine\nSECRET\nOTHER")
    environment = {"BOTH": "theirs", "SECRET": "s3cret"}
    run_order = RunOrder("id", Path(), request, environment)
    assert sorted(container_environment(run_order, request)) == [
        "BOTH=mine",
        "LYCEUM_RUN_ID=id",
        "LYCEUM_SECRET_NAMES=BOTH,SECRET",
        "OTHER",
        "SECRET=s3cret",
    ]


def test_a_run_of_a_session_finds_its_folder_by_a_variable() -> None:
    request = image(docker_run_env="LYCEUM_SESSION_FOLDER=/elsewhere", session=SESSION)
    run_order = RunOrder("id", Path(), request, session_folder=Path("/state/sessions/a"))
    variables = container_environment(run_order, request)
    assert variables == ["LYCEUM_RUN_ID=id", "LYCEUM_SESSION_FOLDER=/lyceum-session"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"s3_mount_path": "//lyceum-session/", "session": SESSION}, "s3_mount_path", "session"),
        ({"docker_run_cmd": ["echo", LONG]}, "docker_run_cmd", "argument 2 .* 131072 bytes"),
        ({"docker_run_cmd": ["a\0b"]}, "docker_run_cmd", "argument 1 .* zero byte"),
        ({"docker_run_env": f"A={LONG}"}, "docker_run_env", "line 1 .* 131074 bytes"),
        ({"docker_user": "a\0"}, "docker_user", "zero byte"),
        ({"s3_mount_path": "mnt/s3"}, "s3_mount_path", "absolute"),
        ({"s3_mount_path": "/mnt/../etc"}, "s3_mount_path", "absolute"),
        ({"s3_mount_path": ""}, "s3_mount_path", "absolute"),
        ({"s3_mount_path": "/"}, "s3_mount_path", "hide"),
        ({"s3_mount_path": "//usr//"}, "s3_mount_path", "hide"),
        ({"s3_mount_path": "/proc/self"}, "s3_mount_path", "hide"),
    ],
)
def test_what_no_container_can_have_is_refused(
    fields: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidField, match=words) as caught:
        check_fields(image(**fields))
    assert caught.value.field == field
    assert len(str(caught.value)) < 400


def test_what_a_container_can_have_passes() -> None:
    longest = "x" * (128 * 1024 - 1)
    check_fields(image(docker_run_cmd=[longest], docker_user="1000:1000", s3_mount_path="/data/"))
    check_fields(image(enable_s3_mount=False, s3_mount_path="nowhere"))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"docker_registry_credential_type": "basic"}, "docker_username"),
        (
            {"docker_registry_credential_type": "basic", "docker_username": "a"},
            "docker_password",
        ),
        (
            {"docker_registry_credential_type": "basic", "aws_access_key_id": "a"},
            "docker_username",
        ),
        (
            {"docker_registry_credential_type": "aws", "aws_access_key_id": "a"},
            "aws_secret_access_key",
        ),
        ({"docker_password": "s3cret"}, "docker_registry_credential_type"),
    ],
)
def test_credentials_that_do_not_fit_their_type_are_refused(
    fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidField, match=field) as caught:
        check_credentials(image(**fields))
    assert caught.value.field == field
    assert "s3cret" not in str(caught.value)


def test_a_name_and_a_password_are_what_a_registry_asks_for() -> None:
    request = image(
        docker_registry_credential_type="basic", docker_username="ada", docker_password="s3cret"
    )
    check_credentials(request)
    granted = sign_in(request)
    assert granted == SignIn("ada", "s3cret")
    assert "s3cret" not in repr(granted)
    assert sign_in(image()) is None


@without_engine
def test_without_an_engine_it_says_how_to_get_one(no_engine: None) -> None:
    with pytest.raises(EngineUnavailable, match=r"DOCKER_HOST=unix.*install and start Docker"):
        connect()


@without_engine
def test_requests_that_come_together_are_all_told(no_engine: None) -> None:
    async def look() -> None:
        engine = Engine()
        found = await asyncio.gather(*(engine.client() for _ in range(5)), return_exceptions=True)
        assert [type(each) for each in found] == [EngineUnavailable] * 5

    asyncio.run(look())


@without_engine
def test_a_runner_without_an_engine_opens_refuses_and_closes(
    no_engine: None, tmp_path: Path
) -> None:
    (tmp_path / "image.engine").touch()  # there once was one: it is swept, and is not there

    async def use() -> None:
        runner = ContainerRunner(tmp_path, bucket=tmp_path / "bucket")
        await runner.open()
        with pytest.raises(InvalidField):
            await runner.check(image(s3_mount_path="/"))
        with pytest.raises(EngineUnavailable):
            await runner.check(image())
        await runner.close()

    asyncio.run(use())


def test_only_what_leads_to_the_engine_is_handed_on() -> None:
    source = {"DOCKER_HOST": "tcp://engine:2376", "DOCKER_CERT_PATH": "/c", "LYCEUM_API_KEY": "k"}
    assert engine_environment(source) == {
        "DOCKER_HOST": "tcp://engine:2376",
        "DOCKER_CERT_PATH": "/c",
    }


def test_an_order_before_the_first_step_ends_a_run(tmp_path: Path) -> None:
    async def never() -> None:
        raise AssertionError("it was started")

    async def order() -> str:
        ended: list[SupervisedHandle] = []
        run = SupervisedHandle(
            RunOrder("id", tmp_path, image()),
            on_end=ended.append,
            clean_up=lambda folder: None,
            measure=lambda folder: None,
        )
        run.launch(never())
        await run.kill()
        async with asyncio.timeout(60):
            end = await run.ended()
        assert ended == [run]
        return end.reason

    assert asyncio.run(order()) == "aborted"


@pytest.mark.parametrize("cache", ["inactive_file", "total_inactive_file"])
def test_use_is_processor_time_and_memory_without_the_cache(cache: str) -> None:
    counters = {
        "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
        "memory_stats": {"usage": 5000, "stats": {cache: 1000}},
    }
    assert usage_of(counters) == Usage(2.5, 4000)


def test_a_container_that_is_gone_uses_nothing() -> None:
    counters = {"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}
    assert usage_of(counters) is None


def test_a_token_of_amazon_s_is_a_name_and_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from botocore.stub import Stubber

    client = boto3.client(
        "ecr", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    monkeypatch.setattr(boto3, "client", lambda *_, **__: client)
    token = base64.b64encode(b"AWS:pass:word").decode()
    granted = {
        "authorizationToken": token,
        "proxyEndpoint": "https://1.dkr.ecr.us-east-1.amazonaws.com",
    }
    request = image(
        docker_registry_credential_type="aws", aws_access_key_id="a", aws_secret_access_key="b"
    )
    with Stubber(client) as stubber:
        stubber.add_response("get_authorization_token", {"authorizationData": [granted]})
        assert sign_in(request) == SignIn("AWS", "pass:word", "1.dkr.ecr.us-east-1.amazonaws.com")
