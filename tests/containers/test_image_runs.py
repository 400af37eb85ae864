"""Image runs on a real engine, through a served server: as a user would have them."""

from __future__ import annotations

import asyncio
import threading
import uuid
from pathlib import Path

import pytest

from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.protocol.requests import StartImage
from lyceum_magic.server.runners.base import RunOrder
from lyceum_magic.server.runners.engine.container import ContainerRunner
from tests.tools.served_process import ServedProcess
from tests.tools.waiting import eventually

from .runs import HOLD, bucket, docker, error_of
from .runs import start_image as start

pytestmark = pytest.mark.usefixtures("nothing_left")


# --- what a container says and how it ends ---------------------------------------------------


def test_output_is_live_without_a_line_break_and_its_streams_are_apart(
    server: ServedProcess, image: str
) -> None:
    run = start(server, image, "sh", "-c", f"printf first; printf worse >&2; {HOLD}; echo last")
    run.said("first")  # while it runs
    run.said("worse")
    run.let_go()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("completed", 0)
    assert (record["stdout"], record["stderr"]) == ("firstlast\n", "worse")


def test_an_end_is_told_with_its_exit_code(server: ServedProcess, image: str) -> None:
    run = start(server, image, "sh", "-c", "exit 7")
    *_, end = run.events()
    assert isinstance(end, Finished)
    record = run.ended()
    assert (end.return_code, record["status"], record["return_code"]) == (7, "failed", 7)


def test_a_signal_is_128_and_its_number(server: ServedProcess, image: str) -> None:
    record = start(server, image, "sh", "-c", "kill -TERM $$").ended()
    assert (record["status"], record["return_code"]) == ("failed", 143)
    assert "SIGTERM" in error_of(record)


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (["nosuch"], 127, "'nosuch' was not found in the image"),
        (["/etc/passwd"], 126, "'/etc/passwd' cannot be executed"),
        (["sh", "-c", "nosuch"], 127, "exit code 127: a command was not found"),
    ],
)
def test_a_command_that_cannot_be_executed_is_named(
    server: ServedProcess, image: str, command: list[str], code: int, sentence: str
) -> None:
    record = start(server, image, *command).ended()
    assert (record["status"], record["return_code"]) == ("failed", code)
    assert sentence in error_of(record)


def test_without_a_command_the_image_s_own_runs(server: ServedProcess, image: str) -> None:
    record = start(server, image).ended()  # a shell without anything to read
    assert (record["status"], record["return_code"]) == ("completed", 0)


def test_running_out_of_memory_is_named_with_the_limit(server: ServedProcess, image: str) -> None:
    greedy = f"echo ready; {HOLD}; exec python3 -c 'b\"x\" * (1 << 30)'"
    run = start(server, image, "sh", "-c", greedy)
    run.said("ready")
    docker("update", "--memory", "64m", "--memory-swap", "64m", run.container)
    run.let_go()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("failed", 137)
    assert error_of(record) == "the container ran out of memory: its limit is 64 MiB"


def test_much_output_arrives_whole(server: ServedProcess, image: str) -> None:
    program = "for number in range(200_000): print(number)"
    run = start(server, image, "python3", "-c", program)
    text = "".join(event.text for event in run.events() if isinstance(event, Output))
    assert text.splitlines() == [str(number) for number in range(200_000)]


# --- what a container is given ---------------------------------------------------------------


def test_variables_arrive_and_a_line_without_a_value_sets_none(
    server: ServedProcess, image: str
) -> None:
    env = "PLAIN=a b\nEQUALS=x=y\nEMPTY=\nNOTHING\n"
    print_them = 'env; echo "<$PLAIN> <$EQUALS> <${EMPTY-unset}> <${NOTHING-unset}>"'
    run = start(server, image, "sh", "-c", print_them, docker_run_env=env)
    record = run.ended()
    assert "<a b> <x=y> <> <unset>\n" in record["stdout"]
    assert f"LYCEUM_RUN_ID={run.id}\n" in record["stdout"]


def test_it_runs_as_the_user_asked_for(server: ServedProcess, image: str) -> None:
    command = "id -u; id -g; echo mine >/mnt/s3/file; cat /mnt/s3/file"
    run = start(server, image, "sh", "-c", command, docker_user="1000:1001")
    assert run.ended()["stdout"] == "1000\n1001\nmine\n"


def test_a_user_that_the_image_does_not_have_is_refused(server: ServedProcess, image: str) -> None:
    record = start(server, image, "sh", docker_user="ghost").ended()
    assert (record["status"], record["return_code"]) == ("failed", None)
    assert "has no user 'ghost'" in error_of(record)


def test_the_storage_is_mounted_both_ways(server: ServedProcess, image: str) -> None:
    start(server, image, "sh", "-c", "echo out >/mnt/s3/theirs").ended()
    assert (bucket(server) / "theirs").read_text() == "out\n"
    (bucket(server) / "ours").write_text("in")
    run = start(server, image, "cat", "/data/in/ours", s3_mount_path="/data/in")
    assert run.ended()["stdout"] == "in"


def test_without_the_storage_there_is_no_such_folder(server: ServedProcess, image: str) -> None:
    record = start(server, image, "ls", "/mnt/s3", enable_s3_mount=False).ended()
    assert record["status"] == "failed"
    assert "No such file" in record["stderr"]


# --- limits, stop and abort ------------------------------------------------------------------


def test_a_time_limit_asks_before_it_kills(server: ServedProcess, image: str) -> None:
    command = f"trap 'echo draining; exit 0' TERM; {HOLD}"
    record = start(server, image, "sh", "-c", command, timeout=1).ended()
    assert (record["status"], record["status_details"]) == ("failed", "timeout")
    assert record["return_code"] is None
    assert record["stdout"] == "draining\n"
    assert "time limit of 1 s" in error_of(record)


def test_a_stop_gives_time_to_finish(server: ServedProcess, image: str) -> None:
    command = f"trap 'echo draining; sleep 1; echo done; exit 0' TERM; echo ready; {HOLD}"
    run = start(server, image, "sh", "-c", command, graceful_timeout=60)
    run.said("ready")
    run.stop()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("cancelled", 0)
    assert record["stdout"] == "ready\ndraining\ndone\n"


def test_a_stop_is_a_kill_after_the_grace(server: ServedProcess, image: str) -> None:
    command = f"trap '' TERM; echo ready; {HOLD}"
    run = start(server, image, "sh", "-c", command, graceful_timeout=1)
    run.said("ready")
    run.stop()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("cancelled", 137)


def test_an_abort_does_not_wait_for_a_stop(server: ServedProcess, image: str) -> None:
    command = f"trap 'echo draining' TERM; echo ready; {HOLD}"
    run = start(server, image, "sh", "-c", command, graceful_timeout=300)
    run.said("ready")
    threading.Thread(target=run.stop).start()
    run.said("draining")
    assert run.abort()["status"] == "aborted"


def test_a_stopped_notebook_is_complete(server: ServedProcess, image: str) -> None:
    command = f"echo ready; {HOLD}"
    run = start(server, image, "sh", "-c", command, job_type="customer_notebook")
    run.said("ready")
    run.stop()
    assert run.ended()["status"] == "completed"


def test_an_abort_gets_a_run_at_every_step(server: ServedProcess, image: str) -> None:
    """Before its supervisor is there, while it makes the container, before and after its start."""
    for _ in range(4):
        run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
        run.abort()
        assert run.ended()["status"] == "aborted"
    run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
    eventually((run.folder / "exit.draft").exists, "its supervisor is there")
    run.abort()
    assert run.ended()["status"] == "aborted"
    run = start(server, image, "sh", "-c", f"echo ready; {HOLD}")
    run.said("ready")
    assert run.abort()["status"] == "aborted"
    assert run.ended()["return_code"] is None


def test_anonymous_volumes_go_with_their_container(server: ServedProcess, image: str) -> None:
    base = docker("create", image)
    docker("commit", "--change", "VOLUME /data", base, "localhost/volume:test")
    docker("rm", base)
    command = f"echo x >/data/x; echo ready; {HOLD}"
    run = start(server, "localhost/volume:test", "sh", "-c", command)
    run.said("ready")
    assert docker("volume", "ls", "--quiet")
    run.let_go()
    assert run.ended()["status"] == "completed"  # `nothing_left` looks for the volume
    docker("rmi", "localhost/volume:test")


# --- what it uses ----------------------------------------------------------------------------


def test_a_run_s_use_is_its_container_s(image: str, tmp_path: Path) -> None:
    async def measure() -> None:
        runner = ContainerRunner(tmp_path, bucket=tmp_path / "bucket")
        request = StartImage(
            docker_image_ref=image,
            docker_run_cmd=["python3", "-c", "b = b'x' * (40 << 20)\nwhile True: pass"],
        )
        await runner.open()
        run_id = str(uuid.uuid4())
        (tmp_path / "runs" / run_id).mkdir(parents=True)
        run_order = RunOrder(run_id, tmp_path / "runs" / run_id, request)
        run = await runner.start(run_order, lambda step: None)
        try:
            assert await run.usage() is None  # it has not begun
            await run.started()
            async with asyncio.timeout(60):
                while True:
                    usage = await run.usage()
                    assert usage is not None
                    if usage.cpu_s > 0.2 and usage.memory_bytes > 40 << 20:
                        break
        finally:
            await run.kill()
            end = await run.ended()
            await runner.close()
        assert end.reason == "aborted"
        assert await run.usage() is None

    asyncio.run(measure())


# --- images by their ids ---------------------------------------------------------------------


@pytest.mark.parametrize("length", [6, 12, 64])
def test_a_local_image_s_id_is_not_pulled(server: ServedProcess, image: str, length: int) -> None:
    whole = docker("inspect", "--format", "{{.Id}}", image)
    for name in (whole.removeprefix("sha256:")[:length], f"sha256:{whole[7:][:length]}"):
        record = start(server, name, "echo", "here").ended()
        assert record["stdout"] == "here\n", record["system_errors"]


def test_a_name_goes_before_an_id(server: ServedProcess, image: str) -> None:
    docker("tag", image, "cafe")
    assert start(server, "cafe", "echo", "here").ended()["stdout"] == "here\n"
    docker("rmi", "cafe")


def test_an_id_that_is_not_here_is_named(server: ServedProcess, image: str) -> None:
    record = start(server, "0123456789ab", "true").ended()
    assert record["status"] == "failed"
    assert error_of(record).startswith("the engine has no image with the id 0123456789ab")
