"""Runs that tell the notebook of their end: the whole way, in kernels, a terminal and a script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.tools.embedded import end_server
from tests.tools.environments import MATRIX
from tests.tools.jupyter_server import running_jupyter_server
from tests.tools.kernel import Cell, Kernel, running_kernel
from tests.tools.waiting import LIMIT_S

pytestmark = pytest.mark.kernel

HOOK = """
import lyceum_magic
@lyceum_magic.on_finish
def done(run):
    print("hook:", run.name, run.state)
    display(f"shown for {run.name}")
    if run.name == "bad":
        raise ValueError("of the hook")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder that all kernels of one user share, with the embedded server."""
    folder = tmp_path_factory.mktemp("user") / "lyceum"
    yield folder
    end_server(folder)


@pytest.fixture(scope="module")
def served(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel that a Jupyter server has started."""
    folder = tmp_path_factory.mktemp("jupyter")
    env = {"LYCEUM_MAGIC_HOME": str(home)}
    with running_jupyter_server(folder, env=env) as server, server.kernel() as kernel:
        kernel.environment["BASE"] = f"http://127.0.0.1:{server.port}{server.base}"
        yield kernel


@pytest.fixture(scope="module")
def alone(home: Path) -> Iterator[Kernel]:
    """A kernel that no Jupyter server has started."""
    with running_kernel({"LYCEUM_MAGIC_HOME": str(home)}) as kernel:
        yield kernel


@pytest.fixture(params=["served", "alone"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    it: Kernel = request.getfixturevalue(request.param)
    it.is_attended = True
    yield it
    # Not the hooks of the test before.
    it.run("from lyceum_magic.runs.workspace import workspace; workspace().hooks._hooks.clear()")


def ok(cell: Cell) -> Cell:
    assert cell.error is None, cell
    return cell


def post(address: str, **body: object) -> int:
    request = urllib.request.Request(address, data=json.dumps(body).encode(), method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=LIMIT_S) as response:
        return int(response.status)


def test_a_run_tells_its_notebook(kernel: Kernel) -> None:
    cell = ok(kernel.run("%%lyceum --callback here --name told\nprint(6 * 7)"))
    assert cell.stdout == "42\n"
    waited = ok(kernel.run("print(_run.wait_callback(60), _run.callback['execution_id'])"))
    assert waited.stdout == f"completed {kernel.value('_run.id')[1:-1]}\n"
    assert kernel.value("_run.callback['run_name']") == "'told'"


def test_the_address_is_the_jupyter_servers_where_there_is_one(served: Kernel, alone: Kernel):
    base = f"{served.environment['BASE']}lyceum/callbacks/"
    assert ok(served.run("%lyceum listen")).summary.startswith(base)
    assert "/user/" not in ok(alone.run("%lyceum listen")).summary


def test_the_address_of_a_run_is_shown_nowhere(kernel: Kernel) -> None:
    dry = ok(kernel.run("%%lyceum --callback here --dry-run\npass"))
    assert "callbacks     here\n" in dry.stdout
    ok(kernel.run("%%lyceum --callback here\npass"))
    ok(kernel.run("_run.wait_callback(60)"))
    shown = ok(kernel.run("%lyceum callbacks"))
    everything = f"{shown.result}{shown.stdout}{shown.summary}{kernel.value('_run')}"
    assert "http://127.0.0.1:" in everything
    assert "lyceum/callbacks/" not in everything


def test_waiting_without_a_callback_is_waiting_for_the_run(kernel: Kernel) -> None:
    ok(kernel.run("%%lyceum\npass"))
    assert ok(kernel.run("print(_run.wait_callback(60), _run.callback)")).stdout == (
        "completed None\n"
    )


def test_python_knows_here_too_and_waits_no_longer_than_it_may(kernel: Kernel) -> None:
    code = """
import lyceum_magic
run = lyceum_magic.submit("import time; time.sleep(60)", callback_urls=["here"], place="local")
try:
    run.wait_callback(0.2)
except TimeoutError as exc:
    print("not yet")
print(run.abort(), run.wait_callback(60), run.callback["status"])
"""
    assert ok(kernel.run(code)).stdout == "not yet\naborted aborted aborted\n"


def test_an_interrupt_of_the_waiting_aborts_the_run(alone: Kernel) -> None:
    ok(alone.run("%%lyceum --callback here --detach --as slow\nimport time; time.sleep(60)"))
    cell = alone.start("print('waiting'); slow.wait_callback()")
    cell.until(lambda cell: "waiting" in cell.stdout)
    alone.interrupt()
    assert cell.done().error is not None
    assert cell.error["ename"] == "KeyboardInterrupt"  # type: ignore[index]
    assert alone.value("str(slow.wait(60))") == "'aborted'"


def test_the_cloud_cannot_reach_a_laptop(alone: Kernel) -> None:
    """The refusal comes before anything is sent."""
    code = """
import os
from lyceum_magic.config import Account, Secret
from lyceum_magic.runs.workspace import workspace
cloud = Account("https://api.lyceum.technology", Secret("lk_x"), "a test")
here = workspace().inbox
try:
    here.address_for("tag", cloud)
except Exception as exc:
    print(type(exc).__name__, exc)
from lyceum_magic.inbox.jupyter_servers import announce
from lyceum_magic.inbox.inbox import callback_folder
receiver = announce(callback_folder(), None)
print(here.address_for("tag", cloud, "https://me.example/user/ann/").rpartition("/")[0])
os.environ["LYCEUM_CALLBACK_BASE_URL"] = "https://tunnel.example"
print(here.address_for("tag", cloud).rpartition("/")[0])
del os.environ["LYCEUM_CALLBACK_BASE_URL"]
receiver.unlink()
"""
    said, public, tunnel = ok(alone.run(code)).stdout.splitlines()
    assert said.startswith("OptionError --callback here: https://api.lyceum.technology cannot")
    assert "run.wait_callback()" in said
    assert public == "https://me.example/user/ann/lyceum/callbacks"
    assert tunnel == "https://tunnel.example/lyceum/callbacks"


def test_hooks_are_called_with_each_run_that_ends_in_the_cell_that_named_them(kernel: Kernel):
    for _ in range(2):  # run again, it is the same hook
        named = ok(kernel.run(HOOK))
    ok(kernel.run("%%lyceum --name one\npass"))
    ok(kernel.run("%%lyceum --name bad --detach\npass"))
    # The kernel is idle, and stays so.
    kernel.pump(lambda: "of the hook" in named.stderr)
    assert named.stdout == "hook: one completed\nhook: bad completed\n"
    assert "'shown for bad'" in named.summary
    assert "ValueError: of the hook" in named.stderr
    assert "lyceum_magic/runs" not in named.stderr
    ok(kernel.run("done.off()"))
    ok(kernel.run("%%lyceum --name two\npass"))
    assert "two" not in ok(kernel.run("pass")).stdout + named.stdout


def test_no_hook_is_called_in_the_middle_of_a_cell(kernel: Kernel) -> None:
    ok(kernel.run("events = []\nimport lyceum_magic, asyncio, time"))
    ok(kernel.run("off = lyceum_magic.on_finish(lambda run: events.append(run.name))"))
    waiting = "run.wait(60); events.append('waited'); {}; events.append('end')"
    for name, pause in (("sync", "time.sleep(0.3)"), ("async", "await asyncio.sleep(0.3)")):
        code = f"run = lyceum_magic.submit('pass', name='{name}', place='local'); "
        ok(kernel.run(code + waiting.format(pause)))
        nested = f"get_ipython().run_cell('1'); events.append('nested {name}')"
        ok(kernel.run(nested))
    assert kernel.value("events") == repr(
        ["waited", "end", "sync", "nested sync", "waited", "end", "async", "nested async"]
    )


def test_the_listening_cell_shows_what_comes(kernel: Kernel) -> None:
    address = ok(kernel.run("%lyceum listen")).summary.splitlines()[0]
    assert ok(kernel.run("%lyceum listen")).summary.splitlines()[0] == address
    ok(kernel.run("%%lyceum\npass"))
    run_id = kernel.value("_run.id")[1:-1]
    assert post(address, execution_id=run_id, status="failed", run_name="<b>mine") == 204
    assert post(address, execution_id="another-users", status="completed") == 204
    kernel.pump(lambda: "unknown run" in kernel.shown)
    [html] = [d["text/html"] for d in kernel.displays.values() if "unknown run" in str(d)]
    assert "&lt;b&gt;mine" in html
    [row] = [line for line in kernel.shown.splitlines() if run_id[:8] in line and "mine" in line]
    assert row.split()[-2:] == ["failed", "completed"]  # what it says, and what is true


def test_hooks_show_their_outputs_in_the_oldest_kernel(home: Path) -> None:
    environment = MATRIX[-1]
    environment.ensure()
    env = {"LYCEUM_MAGIC_HOME": str(home)}
    with running_kernel(env, environment=environment) as kernel:
        kernel.is_attended = True
        named = ok(kernel.run(HOOK))
        ok(kernel.run("%%lyceum --name old --detach --callback here\npass"))
        kernel.pump(lambda: "shown for old" in named.summary)
        assert named.stdout == "hook: old completed\n"
        assert ok(kernel.run("print(_run.wait_callback(60))\n_run.callback['status']")).stdout


def test_an_executed_notebook_keeps_what_hooks_show(home: Path) -> None:
    sources = ["%load_ext lyceum_magic", HOOK, "%%lyceum --name kept --callback here\npass"]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in [*sources, "_run.wait_callback(60)"]]
    )
    env = {**os.environ, "LYCEUM_MAGIC_HOME": str(home)}
    nbclient.NotebookClient(notebook).execute(env=env)
    shown = [output.get("text") for output in notebook.cells[2].outputs]
    assert "hook: kept completed\n" in shown


def run_python(home: Path, *words: str, typed: str = "") -> str:
    """Return what a plain Python prints."""
    done = subprocess.run(
        [sys.executable, *words],
        input=typed, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env={**os.environ, "TERM": "dumb", "LYCEUM_MAGIC_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout


def test_a_script_is_told_when_it_waits(home: Path) -> None:
    code = """
import lyceum_magic
@lyceum_magic.on_finish
def done(run): print("hook:", run.name)
run = lyceum_magic.submit("pass", name="mine", callback_urls="here", place="local")
print(run.wait_callback(60), run.callback["status"])
"""
    assert run_python(home, "-c", code) == "hook: mine\ncompleted completed\n"


def test_a_terminal_is_told_after_the_cell(home: Path) -> None:
    lines = [
        "%load_ext lyceum_magic",
        "import lyceum_magic",
        "hook = lyceum_magic.on_finish(lambda run: print('hook:', run.name))",
        "run = lyceum_magic.submit('pass', name='mine', callback_urls='here', place='local')",
        "print(run.wait_callback(60), run.callback['status']); print('after')",
        "%lyceum listen",
    ]
    words = ("-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor")
    said = run_python(home, *words, typed="\n".join(lines) + "\n")
    assert "completed completed" in said, said
    assert said.index("completed completed") < said.index("after") < said.index("hook: mine")
    assert "http://127.0.0.1:" in said[said.index("hook: mine") :]
