"""A journal that cannot be written while a run goes on: all of the run reaches the caller."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lyceum_magic
from lyceum_magic.exceptions import JournalUnavailable, RunFailed
from lyceum_magic.runs import workspace as workspace_module
from lyceum_magic.runs.workspace import Workspace
from tests.tools.small_disks import full, small_disk
from tests.tools.waiting import eventually
from tests.tools.workspaces import only

#: Wait for a gate, then print more than the rest of a page and end.
CODE = """\
import os, time
print('begun', flush=True)
while not os.path.exists({gate!r}): time.sleep(0.01)
for number in range({lines}): print('line', number)
total = 42
{end}
"""


@pytest.fixture(autouse=True)
def own_session(own_machine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    workspace = Workspace()
    monkeypatch.setattr(workspace_module, "_workspaces", only(workspace))
    yield
    workspace.close()


def attached(run_id: str) -> str:
    """Return the state and the text of a run, as another process gets them."""
    code = (
        f"import lyceum_magic; run = lyceum_magic.attach({run_id!r}); run.wait(); "
        "print(run.state, run.text)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("lines", [0, 20_000])
def test_values_and_output_come_home_from_a_run_that_ends_on_a_full_disk(
    own_machine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, lines: int
) -> None:
    gate = tmp_path / "gate"
    code = CODE.format(gate=str(gate), lines=lines, end="")
    with small_disk(own_machine / "journal"):
        run = lyceum_magic.submit(code, outputs="total")
        eventually(lambda: "begun" in run.text, "it has begun")
        with full(own_machine / "journal"):
            gate.touch()
            assert run.result().values["total"] == 42
            text = run.text
            assert text.count("\n") == lines + 1
        warnings = [message for message in caplog.messages if "journal" in message]
        assert len(warnings) <= 1  # a row that fits into what the database has is written
        if lines:
            assert "is full: make room on it" in warnings[0]
        said = attached(run.id)
        assert said.startswith("completed begun\n")
        assert said.count("\n") == lines + 2


def test_what_a_run_raised_on_a_full_disk_is_raised_here(own_machine: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = CODE.format(gate=str(gate), lines=20_000, end="raise KeyError('lost')")
    with small_disk(own_machine / "journal"):
        run = lyceum_magic.submit(code)
        eventually(lambda: "begun" in run.text, "it has begun")
        with full(own_machine / "journal"):
            gate.touch()
            with pytest.raises(RunFailed) as caught:
                run.result()
    assert caught.value.ename == "KeyError"


def test_a_run_that_cannot_be_written_down_is_not_started(own_machine: Path) -> None:
    with small_disk(own_machine / "journal"):
        lyceum_magic.submit("print(1)").result()
        refused = pytest.raises(JournalUnavailable, match="is full: make room on it")
        with full(own_machine / "journal"), refused:
            _start_many()
        lyceum_magic.submit("print(1)").result()


def _start_many() -> None:
    """A database has room of its own for some runs."""
    for _ in range(1000):
        lyceum_magic.submit("pass").result()
