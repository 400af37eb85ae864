"""The sources of a stack's images, on a real engine."""

from __future__ import annotations

import json

import pytest

from tests.tools.served_process import ServedProcess

from .registry import Registry, SlowRegistry, basic
from .runs import docker, error_of
from .stacks import service
from .stacks import start_stack as start

pytestmark = pytest.mark.usefixtures("image", "nothing_left")


def test_private_images_run_with_the_right_credentials(
    server: ServedProcess, registry: Registry
) -> None:
    there = f"{registry.address}/team/tool:1"
    record = start(server, {"a": service("echo hello", there)}, **basic()).ended()
    assert record["stdout"] == "a | hello\n"
    # It is here now: the credentials are looked at all the same.
    again = start(server, {"a": service("echo hello", there)}, **basic("wrong-4711")).ended()
    assert again["status"] == "failed"
    assert "does not accept the credentials" in error_of(again)
    assert "wrong-4711" not in json.dumps(again)
    docker("rmi", there)


def test_missing_credentials_and_missing_images_are_told_apart(
    server: ServedProcess, registry: Registry
) -> None:
    private = f"{registry.address}/team/tool:1"
    missing = start(server, {"a": service("exit 0", private)}).ended()
    assert (missing["status"], missing["return_code"]) == ("failed", None)
    assert f"gives {private} only to those who sign in" in error_of(missing)
    nothing = f"{registry.address}/team/tool:2"
    absent = start(server, {"a": service("exit 0", nothing)}, **basic()).ended()
    assert f"has no image {nothing}" in error_of(absent)


def test_a_pull_tells_how_far_it_is_and_ends_with_the_run(
    server: ServedProcess, registry: Registry
) -> None:
    registry.push_bytes(20 << 20, "team/large:1")
    with SlowRegistry(registry.address).serving() as slow:
        image = f"{slow.address}/team/large:1"
        run = start(server, {"a": service("exit 0", image)}, **basic())
        run.is_at(f"pulling {image}")
        assert slow.is_stuck.wait(30)
        assert run.record()["status"] == "starting"
        assert run.abort()["status"] == "aborted"
        assert slow.was_left.wait(30), "the engine goes on pulling"
