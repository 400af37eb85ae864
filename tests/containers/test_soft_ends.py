"""Stop and the time limit reach every program of a shell script, and give it its grace."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from tests.tools.served_process import ServedProcess

from .runs import bucket, docker, start_image
from .stacks import lines, service, start_stack

pytestmark = pytest.mark.usefixtures("nothing_left")

#: A program that needs a while to save its work when it is asked to end, and says so as it goes.
TRAIN = """\
import pathlib, signal, sys, time

def save(*_):
    print("saving", flush=True)
    time.sleep(1)
    print("saved", flush=True)
    pathlib.Path("/mnt/s3/saved").touch()
    sys.exit(0)

signal.signal(signal.SIGTERM, save)
print("training", flush=True)
while True:
    time.sleep(0.05)
"""

WAYS = {
    "between two commands": "echo a; python3 /mnt/s3/train.py; echo b",
    "into a filter": "python3 /mnt/s3/train.py | cat",
    "out of a filter": "cat /dev/zero | python3 /mnt/s3/train.py",
    "in the background": "python3 /mnt/s3/train.py & wait",
    "in a group of its own": "echo a; timeout 500 python3 /mnt/s3/train.py; echo b",
    "in a subshell": "(echo a; python3 /mnt/s3/train.py; echo b) | cat",
    "in a loop": "for each in 1 2; do python3 /mnt/s3/train.py; done",
    "in a script of a script": "sh -c 'echo a; python3 /mnt/s3/train.py; echo b'; echo c",
    "alone": "python3 /mnt/s3/train.py",
}


@pytest.fixture
def training(server: ServedProcess) -> ServedProcess:
    """A server in whose storage the program lies."""
    bucket(server).mkdir(parents=True, exist_ok=True)
    (bucket(server) / "train.py").write_text(TRAIN)
    return server


@pytest.mark.parametrize("script", WAYS.values(), ids=WAYS)
def test_a_program_of_a_script_has_its_grace(
    training: ServedProcess, image: str, script: str
) -> None:
    run = start_image(training, image, "sh", "-c", script, graceful_timeout=60)
    run.said("training\n")
    run.stop()
    record = run.ended()
    assert record["status"] == "cancelled"
    said = record["stdout"].splitlines()
    assert said[said.index("training") :] == ["training", "saving", "saved"]
    assert (bucket(training) / "saved").exists()


def test_the_time_limit_reaches_it_too(training: ServedProcess, image: str) -> None:
    script = WAYS["between two commands"]
    record = start_image(training, image, "sh", "-c", script, timeout=2).ended()
    assert (record["status"], record["status_details"]) == ("failed", "timeout")
    assert record["stdout"].splitlines() == ["a", "training", "saving", "saved"]


def test_a_program_that_takes_too_long_is_killed_after_the_grace(
    training: ServedProcess, image: str
) -> None:
    script = "echo a; trap '' TERM; python3 -c 'import time; print(1, flush=True); time.sleep(900)'"
    run = start_image(training, image, "sh", "-c", script, graceful_timeout=1)
    run.said("1\n")
    run.stop()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("cancelled", 137)


def test_a_script_that_handles_sigterm_does_so_once(training: ServedProcess, image: str) -> None:
    script = "trap 'echo heard; exit 4' TERM; echo ready; while :; do sleep 0.1; done"
    run = start_image(training, image, "sh", "-c", script, graceful_timeout=60)
    run.said("ready\n")
    run.stop()
    record = run.ended()
    assert (record["stdout"], record["return_code"]) == ("ready\nheard\n", 4)


def test_a_program_that_starts_others_is_asked_alone(training: ServedProcess, image: str) -> None:
    program = (
        "import signal, subprocess, sys\n"
        "child = subprocess.Popen(['sh', '-c', 'trap \"echo wrong\" TERM; while :; do :; done'])\n"
        "signal.signal(signal.SIGTERM, lambda *_: (child.kill(), sys.exit(6)))\n"
        "print('ready', flush=True)\n"
        "child.wait()\n"
    )
    run = start_image(training, image, "python3", "-c", program, graceful_timeout=60)
    run.said("ready\n")
    run.stop()
    record = run.ended()
    assert (record["stdout"], record["return_code"]) == ("ready\n", 6)


def test_a_script_below_an_init_of_the_image_s_own(training: ServedProcess, image: str) -> None:
    """`docker-init` twice, for want of another one: as an image whose entry point is tini."""
    run = start_image(
        training, image, "sh", "-c", "exec /sbin/docker-init -s -- sh -c \"$0\"",
        WAYS["between two commands"], graceful_timeout=60,
    )  # fmt: skip
    run.said("training\n")
    run.stop()
    assert run.ended()["stdout"].splitlines() == ["a", "training", "saving", "saved"]


def test_a_script_that_runs_as_another_user(training: ServedProcess, image: str) -> None:
    script = WAYS["between two commands"]
    run = start_image(
        training, image, "sh", "-c", script, docker_user="nobody", graceful_timeout=60
    )
    run.said("training\n")
    run.stop()
    assert run.ended()["stdout"].splitlines() == ["a", "training", "saving", "saved"]


def test_services_of_a_stack_have_their_grace(training: ServedProcess, image: str) -> None:
    services = {
        "shell": service(WAYS["between two commands"]),
        "pipe": service(WAYS["into a filter"]),
        "alone": {"image": image, "command": ["python3", "/mnt/s3/train.py"]},
    }
    run = start_stack(training, services, graceful_timeout=60)
    for name in services:
        run.said(f"{name} | training\n")
    run.stop()
    record = run.ended()
    assert record["status"] == "cancelled"
    for name in services:
        assert lines(record, name)[-3:] == ["training", "saving", "saved"]


def test_an_image_without_a_shell_is_asked_as_it_is(server: ServedProcess, tmp_path: Path) -> None:
    found = shutil.which("busybox")
    assert found is not None
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(Path(found).resolve(), "busybox")
    docker("import", str(archive), "localhost/shellless:test")
    run = start_image(server, "localhost/shellless:test", "/busybox", "yes", graceful_timeout=60)
    run.said("y\n")
    run.stop()
    record = run.ended()
    assert (record["status"], record["return_code"]) == ("cancelled", 143)
    docker("rmi", "localhost/shellless:test")
