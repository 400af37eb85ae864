"""`lyceum_magic.testing` as the tests of a user call it."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest

import lyceum_magic
from lyceum_magic import testing
from lyceum_magic.protocol import paths


def test_a_run_says_what_the_test_has_it_say() -> None:
    said = [testing.Progress(testing.State.RUNNING), testing.Output("loss 0.1\n")]
    with testing.played_server(said) as server:
        run = lyceum_magic.submit("import train; train.main()", machine="gpu.a100", name="train")
        assert run.result().text == "loss 0.1\n"
    (start,) = server.starts
    assert (start["execution_type"], start["run_name"]) == ("gpu.a100", "train")


def test_a_run_may_fail() -> None:
    said = [testing.Output("epoch 1\n"), testing.Finished(testing.State.FAILED, 1, "no GPU")]
    with testing.played_server(said), pytest.raises(lyceum_magic.RunFailed, match="no GPU"):
        lyceum_magic.submit("train()").result()


def test_later_runs_may_say_something_else() -> None:
    with testing.played_server([testing.Output("one\n")]) as server:
        assert lyceum_magic.submit("print('one')").result().text == "one\n"
        server.play(testing.Output("two\n"))
        assert lyceum_magic.submit("print('two')").result().text == "two\n"
    assert len(server.starts) == 2


def test_an_image_is_played_as_well() -> None:
    with testing.played_server([testing.Output("hello\n")]) as server:
        run = lyceum_magic.submit_image("docker.io/library/hello-world")
        assert run.result().text == "hello\n"
    assert server.starts[0]["docker_image_ref"] == "docker.io/library/hello-world"


def test_a_route_may_be_scripted() -> None:
    with testing.played_server() as server:
        refusal = testing.answer({"detail": "You are out of credits"}, status=402)
        server.on("POST", paths.START_PYTHON, refusal)
        with pytest.raises(lyceum_magic.LyceumError, match="out of credits"):
            lyceum_magic.submit("train()")


def test_the_environment_is_as_before_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCEUM_API_KEY", "lk_mine")
    before = dict(os.environ)
    with testing.played_server() as server:
        assert os.environ["LYCEUM_BASE_URL"] == server.base_url
        lyceum_magic.submit("1").result()
        assert len(lyceum_magic.runs()) == 1
    assert dict(os.environ) == before


def test_another_process_uses_it_with_its_environment() -> None:
    program = "import lyceum_magic; print(lyceum_magic.submit('1').result().text, end='')"
    with testing.played_server([testing.Output("hello\n")]) as server:
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **server.environment},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert done.stdout == "hello\n"


def test_it_takes_its_own_key_alone() -> None:
    with testing.played_server() as server:
        url = server.base_url + paths.START_PYTHON
        headers = {"Authorization": "Bearer lk_another"}
        assert httpx.post(url, headers=headers, json={}, trust_env=False).status_code == 401
        assert server.asked("POST", paths.START_PYTHON)[0].json == {}


@pytest.mark.anyio
async def test_the_store_keeps_records_in_memory() -> None:
    store = testing.MemoryStore()
    await store.open()
    assert await store.get("unknown") is None
    await store.close()
