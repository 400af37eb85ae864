"""`lyceum-magic doctor` says what is wrong where it is: on a full disk, in a broken journal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lyceum_magic.config import server_folder
from tests.tools.callbacks import receiving
from tests.tools.embedded import run_folder
from tests.tools.waiting import eventually

from .served_process import served


def doctor() -> dict[str, str]:
    """What it looks at -> what it has found, and its advice."""
    done = subprocess.run(
        [sys.executable, "-m", "lyceum_magic.cli", "doctor"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    rows = (line.partition("  ") for line in done.stdout.splitlines())
    return {what: found.strip() for what, _, found in rows}


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 4 MB at a folder."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"no disk can be mounted here: {done.stderr.strip()}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    try:
        yield
    finally:
        # Lazily: what a test started may be ending in it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)


def test_a_full_disk_is_told_with_what_it_holds_up(own_machine: Path, tmp_path: Path) -> None:
    gate, ballast, folder = tmp_path / "gate", own_machine / "ballast", server_folder()
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    with small_disk(own_machine), receiving() as receiver, served(folder) as server:
        found = doctor()
        assert found["callbacks"] == "none waits"
        assert found["callbacks to `here`"] == "received by this kernel, from this machine alone"
        url = f"{receiver.origin}/canary"
        run = server.start(code, user_callback_urls=[url])
        eventually(run_folder(folder, run["execution_id"]).exists, "the run has begun")
        fill(ballast)
        gate.touch()

        def trouble() -> dict[str, str] | None:
            found = doctor()
            return found if found["callbacks"].startswith("in trouble") else None

        found = eventually(trouble, "a full disk is told")
        assert "nobody is called back until they can" in found["callbacks"]
        assert "is full: make room on it" in found["callbacks"]
        assert found["journal"].startswith("cannot be used")
        assert "canary" not in str(found)
        assert receiver.received == []
        ballast.unlink()
        receiver.at("/canary")
        eventually(lambda: doctor()["callbacks"] == "none waits", "all is well again")


def test_a_broken_journal_hides_nothing_else(own_machine: Path) -> None:
    (own_machine / "journal").mkdir(parents=True)
    (own_machine / "journal" / "journal.db").write_bytes(b"no database" * 1000)
    server_folder().mkdir(parents=True)
    (server_folder() / "deliveries.json").write_text(
        '{"pending": 3, "failing": 0, "dead": 0, "next_attempt_at": null}'
    )
    found = doctor()
    assert found["callbacks"].startswith("3 callbacks wait for the next start of the server")
    assert found["embedded server"].startswith("not running")
    assert found["journal"].startswith("cannot be used")
    assert not (server_folder() / "server.json").exists()


def test_a_killed_server_leaves_it_unknown_whether_callbacks_wait() -> None:
    with served(server_folder()) as server:
        assert doctor()["callbacks"] == "none waits"
        server.end(signal.SIGKILL)
    assert doctor()["callbacks"].startswith("not known")
    with served(server_folder()) as server:
        server.end()
    assert doctor()["callbacks"] == "none waits"
