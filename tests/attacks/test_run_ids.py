"""Run ids: what another user can see of a run, and what he can do with its id."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.server.runners.process import memory
from tests.attacks.stranger import Stranger
from tests.tools.embedded import run_folder
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import eventually

#: Print all that this user can read of the machine's processes: command lines, groups, files.
LOOK = """
import glob, os
for process in glob.glob("/proc/[0-9]*"):
    for name in ("cmdline", "comm", "cgroup", "environ", "mountinfo", "maps", "limits", "status"):
        try:
            print(open(f"{process}/{name}", "rb").read())
        except OSError:
            pass
    for link in ("cwd", "exe", "root", *glob.glob(f"{process}/fd/*")):
        try:
            print(os.readlink(os.path.join(process, link)))
        except OSError:
            pass
for name in ("/proc/net/unix", "/proc/locks", "/proc/mounts"):
    print(open(name, "rb").read())
for folder, names, _ in os.walk("/sys/fs/cgroup"):
    print(folder, names)
"""

#: Start a child from the run's folder, by a path, as `multiprocessing` and build tools do.
PARENT = """
import os, subprocess, sys, time
with open("child.py", "w") as file:
    file.write("import time\\nprint('on', flush=True)\\ntime.sleep(600)")
subprocess.run([sys.executable, os.path.abspath("child.py"), os.getcwd()])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def begun(server: ServedProcess, code: str) -> str:
    run_id = str(server.start(code)["execution_id"])
    eventually(
        lambda: "on" in server.client.get(paths.record(run_id)).json()["stdout"], "it has begun"
    )
    return run_id


def test_no_id_shows_to_another_user(folder: Path, stranger: Stranger) -> None:
    with served(folder, "--memory-limit", "512M") as server:
        run_id = begun(server, PARENT)
        name = run_folder(folder, run_id).name
        seen = stranger.run(LOOK)
        assert name in seen  # it has looked at the child, and at its group where there is one
        assert run_id not in seen
        assert run_id.replace("-", "") not in seen
        server.client.post(paths.abort(run_id))


def test_a_stranger_who_knows_an_id_reads_no_stream(folder: Path, stranger: Stranger) -> None:
    ask = """
        import http.client, sys
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
        try:
            connection.request(sys.argv[2], sys.argv[3])
            print(connection.getresponse().read(9))
        except ConnectionError as exc:
            print("refused")
        """
    with served(folder) as server:
        started = server.start("print('private')")
        server.client.post(started["streaming_url"])
        run_id = started["execution_id"]
        port = server.base_url.rpartition(":")[2]
        for method in ("GET", "POST"):
            assert stranger.run(ask, port, method, paths.stream(run_id)) == "refused\n"
        by_secret = started["streaming_url"].removeprefix(server.base_url)
        assert stranger.run(ask, port, "GET", by_secret) == "refused\n"
        # The official client goes on reading an ended run by its id alone.
        ours = subprocess.run(
            ["curl", "--silent", "--noproxy", "*", "-X", "POST",
             f"{server.base_url}{paths.stream(run_id)}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "private" in ours.stdout


def test_a_run_that_an_earlier_version_began_is_found(folder: Path) -> None:
    """Its folder is named by its id."""
    with served(folder) as server:
        run_id = begun(server, "import time\nprint('on', flush=True)\ntime.sleep(600)")
        server.end()
    run_folder(folder, run_id).rename(folder / "runs" / run_id)
    with served(folder) as server:
        listed = server.client.get(paths.WORKLOADS).json()
        assert [run["execution_id"] for run in listed] == [run_id]
        record = server.client.post(paths.abort(run_id)).json()
        assert record["status"] == "aborted"
        assert (folder / "runs" / run_id / "exit.json").exists()


def test_a_group_is_named_by_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make_group(parent: str, pid: int, limit_bytes: int, name: str) -> str:
        made.append(name)
        raise OSError

    monkeypatch.setattr(memory, "usable_groups", lambda: iter(["/sys/fs/cgroup"]))
    monkeypatch.setattr(memory, "make_group", make_group)
    monkeypatch.setattr("resource.prlimit", lambda *arguments: None)
    memory.limit_memory(os.getpid(), 1 << 30, "the name of a folder")
    assert made == ["the name of a folder"]
