"""`lyceum-magic doctor` says what is wrong where it is: on a full disk, in a broken journal."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from lyceum_magic.folders import server_folder
from tests.tools.callbacks import receiving
from tests.tools.embedded import run_folder
from tests.tools.served_process import served
from tests.tools.small_disks import full, small_disk
from tests.tools.waiting import eventually


def doctor() -> dict[str, str]:
    """Return its rows: subject -> finding and advice."""
    done = subprocess.run(
        [sys.executable, "-m", "lyceum_magic.cli", "doctor"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    rows = (line.partition("  ") for line in done.stdout.splitlines())
    return {what: found.strip() for what, _, found in rows}


def test_a_full_disk_is_told_with_what_it_holds_up(own_machine: Path, tmp_path: Path) -> None:
    gate, folder = tmp_path / "gate", server_folder()
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    with small_disk(own_machine), receiving() as receiver, served(folder) as server:
        found = doctor()
        assert found["callbacks"] == "none waits"
        assert found["callbacks to `here`"] == "received by this kernel, from this machine alone"
        url = f"{receiver.origin}/canary"
        run = server.start(code, user_callback_urls=[url])
        eventually(run_folder(folder, run["execution_id"]).exists, "the run has begun")
        with full(own_machine):
            gate.touch()

            def trouble() -> dict[str, str] | None:
                found = doctor()
                return found if found["callbacks"].startswith("in trouble") else None

            found = eventually(trouble, "a full disk is told")
            assert "callbacks wait until they can" in found["callbacks"]
            assert "is full: make room on it" in found["callbacks"]
            assert found["journal"].startswith("cannot be used")
            assert "canary" not in str(found)
            assert receiver.received == []
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
