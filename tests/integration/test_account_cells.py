"""`%lyceum secrets`, `storage` and `metrics` in a real kernel, on the embedded server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.embedded import end_server
from tests.tools.kernel import Kernel, running_kernel
from tests.tools.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

VALUE = "canary-7f3a-value"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def kernel(home: Path) -> Iterator[Kernel]:
    state = home / "lyceum"
    with running_kernel({"HOME": str(home), "LYCEUM_MAGIC_HOME": str(state)}) as kernel:
        yield kernel
    end_server(state)


def test_a_secret_is_set_seen_and_removed_and_never_shown(kernel: Kernel, home: Path) -> None:
    # Backwards, so that the code that types it does not hold it.
    typed = f"import getpass\ngetpass.getpass = lambda prompt: {VALUE[::-1]!r}[::-1]\n"
    cells = [kernel.run(f"{typed}%lyceum secrets set TOKEN"), kernel.run("%lyceum secrets")]
    assert cells[0].result == "TOKEN is set: runs that start from now on have it as a variable."
    assert re.search(r"^TOKEN +\d{4}-", cells[1].result, re.M)
    seen = kernel.run("%%lyceum\nimport os\nprint(len(os.environ['TOKEN']), os.environ['TOKEN'])")
    assert seen.stdout == f"{len(VALUE)} ***\n"
    assert kernel.run("%lyceum secrets rm TOKEN").result == "TOKEN is removed."
    assert kernel.run("%lyceum secrets list").result.startswith("no secrets")
    assert all(VALUE not in str(cell.messages) for cell in [*cells, seen])
    for file in (home / "lyceum").rglob("*"):
        assert not file.is_file() or VALUE.encode() not in file.read_bytes(), file


def test_who_cannot_be_asked_is_told_so(kernel: Kernel) -> None:
    for line, way_out in (
        ("%lyceum secrets set TOKEN", "set it once in a notebook or a terminal"),
        ("%lyceum_image x --registry basic --registry-user me", "--registry-password-env"),
        ("%lyceum login", "set LYCEUM_API_KEY"),
    ):
        cell = kernel.run(line)
        assert cell.error is not None
        (said,) = cell.error["traceback"]
        assert said.startswith("OptionError: ")
        assert "nobody can be asked here" in said
        assert way_out in said


def test_a_file_goes_and_comes_back_with_a_bar(kernel: Kernel) -> None:
    kernel.run(
        "import os\nfrom lyceum_magic.display import progress\nprogress.SHOWN_AFTER_S = 0\n"
        "from lyceum_magic.runs import loop as here\nhere.TICK_S = 0.001\n"
        "content = os.urandom(30_000_000)\nopen('data.bin', 'wb').write(content)"
    )
    put = kernel.run("%lyceum storage put data.bin a/b.bin")
    assert put.error is None, put
    assert re.fullmatch(r"put data\.bin as a/b\.bin: 30 MB in [\d.]+ s", put.summary)
    bars = [
        message["content"]["data"]["text/html"]
        for message in put.messages
        if message["msg_type"] == "update_display_data"
    ]
    assert any('max="30000000"' in bar for bar in bars)
    assert "a/b.bin  30 MB" in kernel.run("%lyceum storage ls a/").result
    got = kernel.run("%lyceum storage get a/b.bin")
    assert got.error is None, got
    assert "got a/b.bin as b.bin: 30 MB" in got.summary
    assert kernel.value("open('b.bin', 'rb').read() == content") == "True"
    again = kernel.run("%lyceum storage get a/b.bin")
    assert again.error is not None
    assert "b.bin is here already" in again.error["evalue"]
    assert kernel.run("%lyceum storage rm a/b.bin").result == "a/b.bin is removed."


def test_a_bar_that_stays_behind_does_not_move(kernel: Kernel) -> None:
    cell = kernel.run(
        "from lyceum_magic.display import progress\nprogress.SHOWN_AFTER_S = 0\n"
        "bar = progress.ProgressBar('get x')\nbar.done = 5\nbar.show()\nbar.leave()"
    )
    assert cell.error is None, cell
    shown = [
        message["content"]["data"].get("text/html", "")
        for message in cell.messages
        if message["msg_type"] in ("display_data", "update_display_data")
    ]
    assert any("<progress>" in html for html in shown)
    assert "progress" not in shown[-1]
    assert "get x  5 bytes" in shown[-1]


def test_what_a_run_has_used_is_drawn(kernel: Kernel, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    busy = "import os\nwhile not os.path.exists({gate!r}): sum(range(999))"
    started = kernel.run("%%lyceum --detach\n" + busy.format(gate=str(gate)))
    assert started.error is None, started
    eventually(lambda: "Processor" in kernel.run("%lyceum metrics").result, "it is measured")
    gate.touch()
    assert kernel.value("_run.result().state.value") == "'completed'"
    cell = kernel.run("%lyceum metrics")
    assert re.search(r"^Processor +[▁-█]+ +mean ", cell.result, re.M)
    assert re.search(r"^Memory +[▁-█]+ ", cell.result, re.M)
    (shown,) = [m["content"]["data"] for m in cell.messages if m["msg_type"] == "execute_result"]
    assert shown["image/svg+xml"].startswith("<svg ")
