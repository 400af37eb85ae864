"""A run, which is the server's user, learns nothing from its environment, memory and files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lyceum_magic.config import server_folder
from lyceum_magic.embedded import local_server
from lyceum_magic.variables import for_run, for_server, for_uv
from tests.tools.embedded import server_facts, server_process
from tests.tools.waiting import eventually

CANARY = "canary-5d1e"
#: Of a kernel's own, of what the server needs, and of what runs get.
OWN = ["DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "LYCEUM_API_KEY", "JPY_API_TOKEN", "HF_TOKEN"]
NEEDED = ["HTTPS_PROXY", "all_proxy", "UV_INDEX_URL", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "NETRC"]
COMMON = ["LC_NAME", "CUDA_CACHE_PATH", "SSL_CERT_DIR"]

#: Looks at the server from a run: prints what opens, of its environment, memory and descriptors.
LOOK = """
import json, os, sys
pid, opened = int(sys.argv[1]) if len(sys.argv) > 1 else {pid}, {{}}
for name in ("environ", "mem", "maps", "cwd", "fd/0"):
    path = f"/proc/{{pid}}/{{name}}"
    try:
        if name in ("cwd", "fd/0"):
            os.readlink(path)
        else:
            os.open(path, os.O_RDONLY)
        opened[name] = True
    except PermissionError:
        opened[name] = False
print(json.dumps(opened))
"""

#: Starts the server, runs the cell in a file, and prints its text.
KERNEL = """
import sys, lyceum_magic
from lyceum_magic.embedded import local_server
from lyceum_magic.config import server_folder
import json
local_server.ensure()
pid = json.loads((server_folder() / "server.json").read_text())["pid"]
code = open(sys.argv[1]).read().replace("{pid}", str(pid)).replace("{{", "{").replace("}}", "}")
print(lyceum_magic.submit(code, place="local").result().text, end="")
"""


@pytest.fixture(autouse=True)
def full_environment(monkeypatch: pytest.MonkeyPatch, own_machine: Path) -> None:
    """A kernel with a bit of everything."""
    for name in (*OWN, *NEEDED, *COMMON):
        monkeypatch.setenv(name, CANARY)


def test_the_server_has_nothing_of_the_kernels_own() -> None:
    local_server.ensure()
    process = server_process(server_folder())
    assert process is not None
    there = process.environ()
    assert not there.keys() & set(OWN)
    assert {name for name, value in there.items() if value == CANARY} == {*NEEDED, *COMMON}
    assert there.keys() <= for_server().keys()


def test_a_run_has_nothing_of_the_servers_own(tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    cell.write_text("import json, os\nprint(json.dumps(dict(os.environ)))")
    there = json.loads(run_as_kernel(cell))
    assert {name for name, value in there.items() if value == CANARY} == set(COMMON)
    assert not [name for name in there if name.startswith(("LYCEUM_MAGIC_", "DOCKER_", "UV_"))]


def test_each_list_holds_the_one_before() -> None:
    assert for_run().keys() < for_uv().keys() < for_server().keys()
    assert {"HTTPS_PROXY", "all_proxy", "UV_INDEX_URL"} <= for_uv().keys()
    assert "DOCKER_CONFIG" not in for_uv()


def test_a_run_of_the_same_user_cannot_look_into_the_server(tmp_path: Path) -> None:
    """Act as a user without the rights of root, which the kernel of this test has given up."""
    cell = tmp_path / "cell"
    cell.write_text(LOOK)
    assert json.loads(run_as_kernel(cell, *without_tracing())) == dict.fromkeys(
        ("environ", "mem", "maps", "cwd", "fd/0"), False
    )
    # The server is all that is closed: what it starts can be looked after.
    process = server_process(server_folder())
    assert process is not None
    helper = process.children()[0]
    look = [*without_tracing(), sys.executable, "-c", LOOK.format(pid=0), str(helper.pid)]
    seen = subprocess.run(look, capture_output=True, text=True, check=True).stdout
    assert all(json.loads(seen).values())


def test_a_closed_server_still_ends_what_a_dead_supervisor_left(tmp_path: Path) -> None:
    """It finds those processes by their environment."""
    program = """
import lyceum_magic, psutil, sys
run = lyceum_magic.submit(
    "import os, subprocess, sys\\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],\\n"
    "                         start_new_session=True)\\n"
    "print(os.getpid(), child.pid, flush=True)\\n"
    "child.wait()", place="local"
)
while not run.text.endswith("\\n"):
    pass
program, child = map(int, run.text.split())
psutil.Process(program).parent().kill()
try:
    run.result()
except lyceum_magic.RunLost:
    print(child)
"""
    command = [*without_tracing(), sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    child = int(done.stdout)
    eventually(lambda: not psutil.pid_exists(child), "the end of the run's child")
    assert server_facts(server_folder())


def without_tracing() -> list[str]:
    """A prefix for commands: root without the right to look into others, or nothing for others."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None and not os.environ.get("CI"):
        pytest.skip("setpriv is missing")
    assert setpriv is not None, "CI must have setpriv (util-linux)"
    rights = "-sys_ptrace,-perfmon,-sys_admin"
    return [setpriv, f"--bounding-set={rights}", f"--inh-caps={rights}"]


def run_as_kernel(cell: Path, *prefix: str) -> str:
    command = [*prefix, sys.executable, "-c", KERNEL, str(cell)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
