"""Never executed: uses each public name as a user would, so that mypy holds their types."""

import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import lyceum_magic
from lyceum_magic import (
    Client,
    LyceumError,
    Run,
    RunAborted,
    RunFailed,
    RunLost,
    RunTimedOut,
    Session,
    TransferError,
    attach,
    nest_loops,
    on_finish,
    runs,
    signing_secret,
    submit,
    submit_async,
    submit_compose,
    submit_compose_async,
    submit_image,
    submit_image_async,
    testing,
)
from lyceum_magic.callbacks import (
    MAX_BODY_BYTES,
    CallbackEvent,
    InvalidCallback,
    Seen,
    SqliteSeen,
    read,
    verify,
    verify_shared,
)
from lyceum_magic.protocol.states import State


def in_a_script() -> None:
    run = submit(
        "print(1)",
        "gpu.a100",
        timeout_s=60,
        requirements=["numpy>=2"],
        auto_requirements=False,
        name="one",
        labels=("a", "b"),
        metadata={"sweep": "1"},
        callback_urls="https://example.org/done",
        raw=False,
        check=True,
        place="local",
        budget=0.5,
        inputs={"a": 1},
        outputs=["b", "c"],
        allow_pickle=False,
        files="data.csv",
        save=["*.png"],
    )
    assert_type(run, Run)
    assert_type(submit(code="print(1)", machine="cpu"), Run)
    submit("print(1)", detach=True)  # type: ignore[call-arg]  # for cells alone
    submit("print(1)", timeout_s="60")  # type: ignore[arg-type]
    submit("print(1)", "cpu", 60)  # type: ignore[call-arg]
    assert_type(run.id, str)
    assert_type(run.machine, str)
    assert_type(run.name, str)
    assert_type(run.text, str)
    assert_type(run.return_code, int | None)
    assert_type(run.reason, str)
    assert_type(run.elapsed_s, float)
    assert_type(run.cost, float | None)
    assert_type(run.price_per_hour, float | None)
    assert_type(run.billed, float | None)
    assert_type(run.result(timeout_s=10.0), Run)
    assert_type(dict(run.values), dict[str, Any])
    assert_type(dict(run.files), dict[str, bytes])
    assert_type(run.logs(), list[str])
    print(f"{run.wait()} after {run.elapsed_s:.1f} s")
    if run.wait_callback(5) == "completed" and run.callback is not None:
        print(run.callback["execution_id"])
    if run.wait(5).is_final and run.state == "completed":
        print([o["text"] for o in run.outputs if o["output_type"] == "stream"])
    print(run.abort(), run.stop(), run.failure())


def in_containers() -> None:
    image = submit_image(
        "python:3.12-slim",
        ["python3", "-V"],
        "gpu.a100",
        timeout_s=60,
        env={"A": "1"},
        user="1000",
        entrypoint="keep",
        init=False,
        s3=True,
        s3_path="/mnt/s3",
        registry="basic",
        registry_user="me",
        registry_password="from a vault",
        aws_region=None,
        graceful_timeout_s=30,
        name="one",
        labels=["a"],
        metadata={"sweep": "1"},
        callback_urls=["https://example.org/done"],
        place="local",
        budget=0.5,
    )
    assert_type(image, Run)
    assert_type(image.metrics(), dict[str, Any])
    assert_type(submit_image("alpine", "echo hi"), Run)
    assert_type(submit_image(image="hello-world"), Run)
    submit_image("alpine", entrypoint="bash")  # type: ignore[arg-type]
    submit_image("alpine", requirements="numpy")  # type: ignore[call-arg]
    assert_type(submit_compose("services: {}", s3=True, registry="aws", aws_region="eu"), Run)
    assert_type(submit_compose(Path("compose.yaml"), "gpu.a100", graceful_timeout_s=9), Run)


def look_back() -> None:
    assert_type(attach(), Run)
    assert_type(attach("3f2a"), Run)
    for entry in runs():
        assert_type(entry.run_id, str | None)
        assert_type(entry.state, str)


def handle_failures(run: Run) -> None:
    try:
        run.result()
    except RunTimedOut:
        print("give it more time")
    except (RunAborted, RunLost) as failure:
        print(failure.run_id)
    except RunFailed as failure:
        assert_type(failure.state, str)
        assert_type(failure.return_code, int | None)
        assert_type(failure.reason, str)
        assert_type(failure.ename, str)
        assert_type(failure.evalue, str)
    except TransferError:
        print("a value did not come home")
    except LyceumError as error:
        print(error)


async def in_a_coroutine() -> None:
    run = submit("print(1)")
    assert_type(await run, Run)
    assert_type(await submit_async("print(1)", "gpu.a100", inputs={"a": 1}), Run)
    assert_type(await submit_image_async("busybox", ["true"], env={"A": "1"}), Run)
    assert_type(await submit_compose_async(Path("compose.yaml"), s3=True), Run)
    await submit_async("print(1)", machines="cpu")  # type: ignore[call-arg]
    nest_loops()
    run.wait()


async def with_the_client() -> None:
    async with Client() as client:
        assert_type(await client.available_hardware(), frozenset[str])
        assert_type(await client.machine_types(), dict[str, float | None])
        for record in await client.active():
            print(await client.abort(record["execution_id"]))
            for delivery in await client.callbacks.deliveries(record["execution_id"]):
                print(await client.callbacks.redeliver(delivery["delivery_id"]))


class RedisSeen:
    def once(self, event: CallbackEvent) -> AbstractContextManager[bool]:
        raise NotImplementedError


def receive(body: bytes, headers: Mapping[str, str], token: str | None, seen: Seen) -> int:
    try:
        event = verify(body, headers, ["whsec_new", "whsec_old"], tolerance_s=60)
        event = verify(body, {b"webhook-id": b"1"}, "whsec_new")
        event = verify_shared(body, token, "of the URL", headers)
        event = read(body[:MAX_BODY_BYTES])
    except InvalidCallback as refusal:
        error: LyceumError = refusal
        print(error)
        return 400
    assert_type(event.id, str)
    assert_type(event.run_id, str | None)
    assert_type(event.state, State | None)
    assert_type(event.return_code, int | None)
    assert_type(event.labels, tuple[str, ...])
    assert_type(event.metadata["fold"], str)
    assert_type(event.finished_at, datetime | None)
    assert_type(event.sent_at, datetime | None)
    with seen.once(event) as is_new:
        assert_type(is_new, bool)
    return 204


def remember() -> None:
    receive(b"", {}, None, SqliteSeen("callbacks.db"))
    receive(b"", {}, None, SqliteSeen(Path("callbacks.db"), wait_s=5))
    receive(b"", {}, None, RedisSeen())
    assert_type(signing_secret("local").reveal(), str)
    assert_type(SqliteSeen(sqlite3.connect("jobs.db")).forget(older_than_s=30 * 86400), int)


def by_module() -> None:
    assert_type(lyceum_magic.submit("print(1)"), Run)
    assert_type(lyceum_magic.__version__, str)


def sessions() -> None:
    session = Session("train", machine="gpu.a100", timeout_s=60)
    assert_type(session.run("x = 1", outputs="x"), Run)
    assert_type(session.start("x += 1", machine="cpu"), Run)
    assert_type(session.set("x", 2), Run)
    assert_type(session.variables["x"].size, int)
    assert_type(session.fork("try"), Session)
    session.get("x")
    session.checkout(1)


def played() -> None:
    with testing.played_server([testing.Output("loss 0.1\n")]) as server:
        assert_type(server, testing.PlayedServer)
        assert_type(server.environment, dict[str, str])
        server.play(testing.Finished(testing.State.FAILED, 1, "no GPU"))
        server.on("POST", "/path", testing.answer({"detail": "no"}, status=402))
        assert_type(server.requests, list[testing.Request])


@on_finish
def tell(run: Run) -> None:
    print(run.state)


def stop_telling(run: Run) -> None:
    tell(run)
    tell.off()
    on_finish(lambda run: run.save_files()).off()
