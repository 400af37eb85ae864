"""Disks that lose what was written, and files that were broken: one sentence, and an end."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import lyceum_magic
from lyceum_magic.embedded import local_server
from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.protocol import paths
from lyceum_magic.server.runners.folder import read_facts
from tests.tools.embedded import end_server, run_folder, server_process
from tests.tools.served_process import LIMIT_S, command, served
from tests.tools.small_disks import full, small_disk, use_up_inodes
from tests.tools.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def refused(folder: Path) -> str:
    """The output of a server that is expected not to start."""
    done = subprocess.run(
        command("--state-dir", str(folder)), capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


# --- output that is gone ---------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_run_ends_for_its_notebook_after_a_power_cut(own_machine: Path, kept: float) -> None:
    code = "import time\nfor n in range(500): print('line', n, flush=True)\ntime.sleep(600)"
    run = lyceum_magic.submit(code)
    eventually(lambda: "line 499" in run.text, "all of it is in the journal")
    state = next(path.parent for path in own_machine.rglob("server.json"))
    here = run_folder(state, run.id)
    supervisor = psutil.Process(read_facts(here)["pid"])
    server = server_process(state)
    assert server is not None
    # Stopped until the output is cut: the notebook starts the next server as soon as one has died.
    for process in (server, supervisor):
        process.suspend()
    spool = here / "spool"
    os.truncate(spool, int(spool.stat().st_size * kept))
    for process in (server, supervisor):
        process.kill()
    with pytest.raises(lyceum_magic.RunLost, match="supervisor died"):
        run.result()
    assert run.state == "system_failure"
    assert "line 499" in run.text
    assert "cut off" in run.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda spool: spool.write_bytes(b"\xff" * 500),
        lambda spool: spool.write_bytes(spool.read_bytes() + bytes(500)),
        lambda spool: (spool.unlink(), os.mkfifo(spool)),
    ],
)
def test_every_route_answers_for_a_run_whose_output_is_garbage(
    folder: Path, damage: Callable[[Path], object]
) -> None:
    with served(folder) as server:
        started = server.start("print('hello')")
        run_id = started["execution_id"]
        server.client.post(started["streaming_url"])
        damage(run_folder(folder, run_id) / "spool")
        stream = server.client.post(started["streaming_url"]).text
        assert "is lost" in stream
        assert "jobFinished" in stream
        record = server.client.get(paths.record(run_id)).json()
        assert record["status"] == "completed"
        assert "Run this again" in record["combined_output"]
        logs = server.client.get(paths.logs(run_id)).json()["logs"]
        assert any("is lost" in str(line) for line in logs)
        assert server.client.get(paths.USER_LOGS).status_code == 200


@pytest.mark.parametrize(
    "damage",
    ["os.truncate('../spool', 0)", "os.truncate('../spool', 500)", "os.remove('../spool')"],
)
@pytest.mark.parametrize("more", [0, 1, 2000])
def test_a_run_that_takes_its_own_output_away_is_told_that_it_is_lost(
    folder: Path, damage: str, more: int
) -> None:
    code = (
        "import os, time\nfor n in range(100): print('before', n, 'x' * 50, flush=True)\n"
        "while os.path.getsize('../spool') < 2000: time.sleep(0.01)\n"
        f"{damage}\nfor n in range({more}): print('after', n, flush=True)"
    )
    with served(folder) as server:
        started = server.start(code)
        # Not followed from its beginning: a later follower has only the file.
        status = paths.record(started["execution_id"])
        eventually(lambda: server.client.get(status).json()["status"] == "completed", "its end")
        stream = server.client.post(started["streaming_url"]).text
        assert stream.count("is lost") == 1
        assert "jobFinished" in stream
        assert "is lost" in server.client.get(status).json()["combined_output"]


def test_a_run_that_had_begun_and_whose_folder_is_gone_is_not_begun_again(folder: Path) -> None:
    with served(folder) as server:
        started = server.start("import time\nprint('on', flush=True)\ntime.sleep(600)")
        run_id = started["execution_id"]
        eventually(
            lambda: server.client.get(paths.record(run_id)).json()["status"] == "running", "begun"
        )
        here = run_folder(folder, run_id)
        supervisor = psutil.Process(read_facts(here)["pid"])
        server.end(signal.SIGKILL)
    supervisor.kill()
    psutil.wait_procs([supervisor], timeout=LIMIT_S)
    subprocess.run(["rm", "-rf", here], check=True)
    with served(folder) as server:
        stream = server.client.post(f"{paths.stream(run_id)}")
        assert "its folder is gone" in stream.text
        assert server.client.get(paths.record(run_id)).json()["status"] == "system_failure"


# --- records that are broken -----------------------------------------------------------------


def _with_one_run(folder: Path) -> Path:
    with served(folder) as server:
        server.client.post(server.start("print('hello')")["streaming_url"])
        server.end()
    return folder / "runs.sqlite3"


def test_records_that_are_no_database_are_named_with_a_remedy(folder: Path) -> None:
    records = _with_one_run(folder)
    records.write_bytes(b"this is no database " * 500)
    said = refused(folder)
    assert str(records) in said
    assert "are damaged" in said
    assert "move it away" in said
    records.rename(folder / "broken")
    with served(folder) as server:
        assert server.client.get(paths.WORKLOADS).status_code == 200


def test_records_that_are_broken_inside_are_named_with_a_remedy(folder: Path) -> None:
    records = _with_one_run(folder)
    with sqlite3.connect(records) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(records.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    records.write_bytes(content)
    assert "move it away" in refused(folder)


def test_records_that_are_a_folder_are_named(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "runs.sqlite3").mkdir()
    assert "runs.sqlite3" in refused(folder)


def test_a_notebook_hears_the_same_sentence(own_machine: Path) -> None:
    state = _state_of(own_machine)
    (state / "runs.sqlite3").write_bytes(b"this is no database " * 500)
    with pytest.raises(EmbeddedServerError, match=r"are damaged .* move it away"):
        lyceum_magic.submit("print(1)")


def _state_of(home: Path) -> Path:
    """The state folder of this environment, whose server has ended."""
    local_server.ensure()
    state = next(path.parent for path in home.rglob("server.json"))
    end_server(state)  # in order: what it has in memory is in the file
    return state


# --- no free inodes --------------------------------------------------------------------------


FEW_INODES = "size=64m,nr_inodes=200"


def test_a_server_without_inodes_says_so_at_its_start(folder: Path) -> None:
    with small_disk(folder, FEW_INODES):
        use_up_inodes(folder)
        said = refused(folder)
        assert "has no free inodes" in said
        assert "small files" in said


def test_a_run_without_inodes_says_so_and_ends(folder: Path) -> None:
    with small_disk(folder, FEW_INODES), served(folder) as server:
        server.client.post(server.start("print('hello')")["streaming_url"])
        give_back = use_up_inodes(folder)
        started = server.start("print('hello')")
        stream = server.client.post(started["streaming_url"]).text
        assert "has no free inodes" in stream
        assert "jobFinished" in stream
        give_back()
        again = server.start("print('again')")
        assert "again" in server.client.post(again["streaming_url"]).text


def test_a_full_disk_is_told_apart_from_one_without_inodes(folder: Path) -> None:
    with small_disk(folder), served(folder) as server:
        started = server.start("while True: print('x' * 100_000)")
        stream = server.client.post(started["streaming_url"]).text
        assert "is full: make room on it" in stream
        assert "jobFinished" in stream


@pytest.mark.parametrize("has_served", [False, True])
def test_a_server_that_cannot_even_log_is_explained(own_machine: Path, has_served: bool) -> None:
    """On a full disk its log stays empty."""
    with small_disk(own_machine):
        if has_served:
            local_server.ensure()
            end_server(own_machine)
        refused_here = pytest.raises(EmbeddedServerError, match="is full: make room on it")
        with full(own_machine), refused_here:
            local_server.ensure()
        local_server.ensure()
        end_server(own_machine)
