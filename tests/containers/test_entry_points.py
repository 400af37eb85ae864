"""Images with an entry point: the script runs, whatever the entry point does with its arguments."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess

from .runs import docker, error_of, start_image
from .stacks import lines, start_stack

pytestmark = pytest.mark.usefixtures("nothing_left")

NAME = "localhost/entry:test"
PREPARES = '#!/bin/sh\n[ "$1" = serve ] && set -- sleep 900\nexport READY=yes\nexec "$@"\n'
#: A stand-in for s6-overlay, which the tests' image lacks.
WANTS_PID_1 = (
    '#!/bin/sh\n[ $$ = 1 ] || { echo "s6-overlay-suexec: fatal: can only run as pid 1" >&2; '
    'exit 100; }\nexec "$@"\n'
)


@contextmanager
def made(image: str, entry_point: list[str], **scripts: str) -> Iterator[str]:
    """The name of an image with that entry point, and with scripts (or links) in its /bin."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in scripts.items():
            entry = tarfile.TarInfo(f"bin/{name}")
            if text.startswith("/"):
                entry.type, entry.linkname = tarfile.SYMTYPE, text
                tar.addfile(entry)
            else:
                entry.mode, entry.size = 0o755, len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
    base = docker("create", image, "sh")
    subprocess.run(["docker", "cp", "-", f"{base}:/"], input=packed.getvalue(), check=True)
    changes = ["--change", f"ENTRYPOINT {json.dumps(entry_point)}", "--change", 'CMD ["-V"]']
    docker("commit", *changes, base, NAME)
    docker("rm", base)
    try:
        yield NAME
    finally:
        docker("rmi", NAME)


SCRIPT = ["sh", "-c", 'echo "ran ${READY:-bare}"; exit 3']


@pytest.mark.parametrize(
    ("entry_point", "said"),
    [
        (["/bin/echo"], "ran bare\n"),
        (["python3"], "ran bare\n"),
        (["sh", "-c"], "ran bare\n"),
        (["prepare"], "ran yes\n"),
        (["/bin/linked"], "ran yes\n"),
        (["/sbin/docker-init", "-s", "--", "/bin/prepare"], "ran yes\n"),
        (["sh", "/bin/prepare"], "ran yes\n"),
        (["sh", "-c", 'READY=inline exec "$@"', "sh"], "ran inline\n"),
        (["/bin/takes"], "ran bare\n"),
        (["/bin/nosuch"], "ran bare\n"),
    ],
    ids=" ".join,
)
def test_a_script_runs_whatever_the_entry_point_is(
    server: ServedProcess, image: str, entry_point: list[str], said: str
) -> None:
    takes = '#!/bin/sh\nexec python3 -c "print(1)" "$@"\n'
    scripts = {"prepare": PREPARES, "linked": "/bin/prepare", "takes": takes}
    with made(image, entry_point, **scripts) as name:
        record = start_image(server, name, *SCRIPT, docker_entrypoint="auto").ended()
    assert (record["stdout"], record["return_code"]) == (said, 3)


#: Run the arguments, unless they begin with a shell.
REFUSES = """#!/bin/sh
case $1 in sh|bash) echo "unknown command: $1" >&2; exit 2 ;; esac
exec "$@"
"""


def test_an_entry_point_that_refuses_the_script_is_named_with_the_way_round_it(
    server: ServedProcess, image: str
) -> None:
    with made(image, ["/bin/refuses"], refuses=REFUSES) as name:
        record = start_image(server, name, *SCRIPT, docker_entrypoint="auto").ended()
        assert record["return_code"] == 2
        assert "entry point 'refuses'" in error_of(record)
        assert "--entrypoint skip" in error_of(record)
        for choice in ("keep", "skip"):  # of the user's own
            record = start_image(server, name, *SCRIPT, docker_entrypoint=choice).ended()
            assert "--entrypoint skip" not in str(record)
    with made(image, ["python3"]) as name:
        record = start_image(server, name, *SCRIPT, docker_entrypoint="auto").ended()
        assert (record["return_code"], "--entrypoint" in str(record)) == (3, False)


def test_the_choice_is_the_user_s(server: ServedProcess, image: str) -> None:
    with made(image, ["/bin/echo"]) as name:
        for choice in ({"docker_entrypoint": "keep"}, {}):  # as `docker run`
            record = start_image(server, name, *SCRIPT, **choice).ended()
            assert (record["stdout"], record["return_code"]) == (f"{' '.join(SCRIPT)}\n", 0)
        record = start_image(server, name, *SCRIPT, docker_entrypoint="skip").ended()
        assert (record["stdout"], record["return_code"]) == ("ran bare\n", 3)
    with made(image, ["prepare"], prepare=PREPARES) as name:
        record = start_image(server, name, *SCRIPT, docker_entrypoint="skip").ended()
        assert record["stdout"] == "ran bare\n"


def test_an_image_s_own_command_has_its_entry_point(server: ServedProcess, image: str) -> None:
    with made(image, ["python3"]) as name:
        record = start_image(server, name, docker_entrypoint="auto").ended()
    assert record["stdout"].startswith("Python 3.")
    body = {"docker_image_ref": name, "docker_entrypoint": "skip"}
    reply = server.client.post(paths.START_IMAGE, json=body)
    assert reply.status_code == 422
    assert "give docker_run_cmd" in reply.text


# --- process 1 -------------------------------------------------------------------------------


def test_an_image_whose_own_init_must_be_process_1(server: ServedProcess, image: str) -> None:
    with made(image, ["/bin/init"], init=WANTS_PID_1) as name:
        fields = {"docker_entrypoint": "auto"}
        record = start_image(server, name, *SCRIPT, **fields).ended()
        assert (record["status"], record["return_code"]) == ("failed", 100)
        assert "run it with --no-init" in error_of(record)
        record = start_image(server, name, *SCRIPT, **fields, docker_init=False).ended()
        assert (record["stdout"], record["return_code"]) == ("ran bare\n", 3)


def test_without_an_init_the_program_is_process_1(server: ServedProcess, image: str) -> None:
    show = ["python3", "-c", "import os; print(os.getpid())"]
    assert start_image(server, image, *show, docker_init=False).ended()["stdout"] == "1\n"
    assert start_image(server, image, *show, docker_init=True).ended()["stdout"] != "1\n"
    # Its failure is its own then, whatever it says.
    script = "echo 'must be run as pid 1' >&2; exit 5"
    record = start_image(server, image, "sh", "-c", script, docker_init=False).ended()
    assert error_of(record) == "the program ended with exit code 5"


def test_a_service_that_must_be_process_1_names_its_own_option(
    server: ServedProcess, image: str
) -> None:
    with made(image, ["/bin/init"], init=WANTS_PID_1) as name:
        service = {"image": name, "command": ["echo", "here"]}
        record = start_stack(server, {"a": service}).ended()
        assert record["return_code"] == 100
        assert "`init: false`" in error_of(record)
        record = start_stack(server, {"a": {**service, "init": False}}).ended()
    assert lines(record, "a") == ["here"]
