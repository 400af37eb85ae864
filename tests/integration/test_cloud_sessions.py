"""Sessions on a cloud without extensions: real programs, presigned URLs, a real S3 endpoint."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import lyceum_magic
from lyceum_magic import trail
from lyceum_magic.exceptions import OptionError, RequestRefused, RunFailed
from lyceum_magic.magic.cell import run_cell
from lyceum_magic.magic.defaults import Defaults
from lyceum_magic.magic.python_cell import PythonCell
from lyceum_magic.protocol import paths
from lyceum_magic.runs import workspace as workspace_module
from lyceum_magic.runs.workspace import Workspace
from lyceum_magic.sessions.session import Session
from tests.tools.executing_cloud import ExecutingCloud, executing_cloud
from tests.tools.workspaces import only


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[ExecutingCloud]:
    with executing_cloud(tmp_path / "cloud") as cloud:
        yield cloud


@contextmanager
def machine(cloud: ExecutingCloud, home: Path) -> Iterator[Workspace]:
    """A machine of the account's user, with a journal of its own, which this process is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LYCEUM_MAGIC_HOME", str(home))
        for name, value in cloud.environment.items():
            patch.setenv(name, value)
        made = Workspace()
        patch.setattr(workspace_module, "_workspaces", only(made))
        with contextlib.closing(made):
            yield made


@pytest.fixture
def home(cloud: ExecutingCloud, tmp_path: Path) -> Iterator[Path]:
    with machine(cloud, tmp_path / "home"):
        yield tmp_path / "home"


def session(**options: bool) -> Session:
    return Session("a", machine="cpu", place="cloud", requirements=[], **options)


def test_cells_share_their_state_through_presigned_urls_alone(
    cloud: ExecutingCloud, home: Path, tmp_path: Path
) -> None:
    trail.write_to(home / "debug.log")
    mine = session()
    mine.run("x = [1]\ny = x\nbig = b'#' * 300_000")
    mine.run("y.append(2)\ndef total():\n    return sum(x)")
    assert mine.run("print(total(), x is y, len(big))").text == "3 True 300000\n"
    assert mine.head is not None
    assert mine.head.cell == 3
    assert set(mine.variables) == {"x", "y", "big", "total"}
    assert [one.cell for one in mine.snapshots] == [1, 2, 3]
    # What has travelled, and what is kept here.
    for program, start in zip(cloud.programs, cloud.starts, strict=True):
        assert "session" not in {key for key, value in start.items() if value is not None}
        assert cloud.access.secret_key.reveal() not in json.dumps(start)
        assert cloud.key not in json.dumps(start)
        assert "X-Amz-Signature" in program
        assert "X-Amz-Signature" not in json.dumps({**start, "code": ""})
    for file in home.rglob("*"):
        if file.is_file():
            assert b"X-Amz" not in file.read_bytes(), file


def test_a_cell_of_the_magic_takes_part_and_a_dry_run_asks_for_nothing(
    cloud: ExecutingCloud, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(line: str, text: str) -> None:
        defaults = Defaults("cpu", timeout_s=60, max_lines=100, max_bytes=10_000)
        run_cell(PythonCell(line, text, defaults, {}, {}), defaults, lambda name, value: None)

    run("--session a --cloud --dry-run", "x = 1")
    assert not cloud.asked("POST", paths.STORAGE_CREDENTIALS)
    run("--session a --cloud", "x = 1")
    run("--session a --cloud", "print(x + 1)")
    shown = capsys.readouterr()
    assert "nothing was sent" in shown.out
    assert "\n2\n" in shown.out
    assert "X-Amz" not in shown.out + shown.err
    facts = session()._facts()
    assert facts is not None
    assert facts.branches["main"].cell == 2
    assert len(cloud.asked("POST", paths.STORAGE_CREDENTIALS)) == 1


def test_a_cell_that_raises_keeps_what_it_assigned_and_one_that_dies_keeps_nothing(
    cloud: ExecutingCloud, home: Path
) -> None:
    mine = session()
    mine.run("x = 1")
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        mine.run("x = 2\n1 / 0")
    assert mine.run("print(x)").text == "2\n"
    with pytest.raises(RunFailed):
        mine.run("x = 3\nimport os\nos._exit(7)")
    assert mine.run("print(x)").text == "2\n"


def test_another_machine_goes_on_with_consent_and_the_first_one_hears_of_it(
    cloud: ExecutingCloud, home: Path, tmp_path: Path
) -> None:
    session().run("x = 1")
    with machine(cloud, tmp_path / "another"):
        with pytest.raises(OptionError, match="not written from this machine"):
            session().run("x += 1")
        session(trust=True).run("x += 1")
        assert session().run("print(x)").text == "2\n"  # it is known by now
    with pytest.raises(OptionError, match="not written from this machine"):
        session().run("x += 1")
    assert session(trust=True).run("print(x)").text == "2\n"


def test_a_cell_is_undone_by_going_back(cloud: ExecutingCloud, home: Path) -> None:
    mine = session()
    mine.run("x = 1")
    mine.run("x = 2")
    mine.checkout(1)
    assert mine.run("print(x)").text == "1\n"
    other = mine.fork("try")
    other.run("x = 5")
    assert mine.run("print(x)").text == "1\n"
    assert mine.get("x") == 1
    mine.remove()
    assert mine.head is None
    assert mine.run("print('x' in globals())").text == "False\n"


def test_the_second_of_two_kernels_is_refused_before_it_starts(
    cloud: ExecutingCloud, home: Path
) -> None:
    mine = session()
    mine.run("x = 1")
    running = mine.start("import time\ntime.sleep(600)")
    with pytest.raises(RequestRefused, match=f"busy with run {running.id}"):
        session().start("x = 2")
    assert len(cloud.starts) == 2
    cloud.end_all()
    running.wait()
    assert session().run("print(x)").text == "1\n"


def test_a_cell_that_was_left_is_settled_by_the_next_kernel(
    cloud: ExecutingCloud, tmp_path: Path
) -> None:
    with machine(cloud, tmp_path / "home"):
        session().start("x = 7")
    with machine(cloud, tmp_path / "home"):
        lyceum_magic.attach("last").wait()
        assert session().run("print(x)").text == "7\n"


def test_a_cell_whose_urls_would_end_too_soon_is_not_started(
    cloud: ExecutingCloud, home: Path
) -> None:
    cloud.expires_at = datetime.fromtimestamp(time.time() + 600, UTC).isoformat()
    with pytest.raises(OptionError, match=r"keys of the storage end in .* s, and a cell"):
        session().start("x = 1", timeout_s=60)
    assert cloud.starts == []


@pytest.mark.parametrize("what", ["packs", "cells"])
def test_a_state_that_was_removed_is_named_and_an_earlier_cell_goes_on(
    cloud: ExecutingCloud, home: Path, tmp_path: Path, what: str
) -> None:
    mine = session()
    mine.run("x = 1")
    mine.run("y = [2] * 99")
    head = mine.head
    assert head is not None
    (file,) = (tmp_path / "cloud").rglob(f"{what}/{head.id}.*")
    file.unlink()
    refused = RunFailed if what == "packs" else RequestRefused
    with pytest.raises(refused, match="answered 404" if what == "packs" else "not in the storage"):
        mine.run("print(y)")
    mine.checkout(1)
    assert mine.run("print(x)").text == "1\n"
