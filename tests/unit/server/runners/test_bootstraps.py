"""The server keeps what makes programs of cells, and loads its own ahead of need."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lyceum_magic import remote as there
from lyceum_magic.protocol.bootstrap import BOOTSTRAP_FILE
from lyceum_magic.remote.loader import PACKAGE
from lyceum_magic.server.runners.base import Refusal
from lyceum_magic.server.runners.process.bootstraps import Bootstraps
from lyceum_magic.server.runners.process.supervisor import BOOTSTRAP, BOOTSTRAP_MODULES
from lyceum_magic.submission.wrapping import _OF_SESSIONS, digest

#: They import what may not be installed, or load the others.
NOT_LOADED = {"__init__", "backend", "loader", *_OF_SESSIONS}


def test_all_of_it_is_loaded_that_needs_nothing_from_elsewhere() -> None:
    modules = {path.stem for path in Path(there.__path__[0]).glob("*.py")}
    assert sorted(modules - NOT_LOADED) == BOOTSTRAP_MODULES
    assert BOOTSTRAP == PACKAGE


@pytest.fixture
def bootstraps(tmp_path: Path) -> Bootstraps:
    found = Bootstraps(tmp_path / "bootstraps")
    found.open()
    return found


def test_a_run_gets_the_one_that_it_names(bootstraps: Bootstraps, tmp_path: Path) -> None:
    assert bootstraps.loaded == digest()
    assert stat.S_IMODE(bootstraps.file.parent.stat().st_mode) == 0o700
    (tmp_path / "run").mkdir()
    for _ in range(2):  # an earlier server may have got this far
        bootstraps.provide(digest(), tmp_path / "run")
    assert (tmp_path / "run" / BOOTSTRAP_FILE).read_bytes() == bootstraps.file.read_bytes()


def test_one_that_is_not_there_is_one_sentence(bootstraps: Bootstraps, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="run the cell again"):
        bootstraps.provide("0" * 64, tmp_path)


def test_those_that_no_server_has_loaded_for_long_go(bootstraps: Bootstraps) -> None:
    folder = bootstraps.file.parent
    for name, age_s in (("0" * 64, 100), ("1" * 64, 0)):
        (folder / f"{name}.py").write_text("")
        since = bootstraps.file.stat().st_mtime - age_s
        os.utime(folder / f"{name}.py", (since, since))
    os.utime(bootstraps.file, (0, 0))
    bootstraps.sweep(unused_since=(folder / f"{'1' * 64}.py").stat().st_mtime - 50)
    assert {path.stem for path in folder.iterdir()} == {digest(), "1" * 64}


def test_a_disk_that_takes_none_leaves_cells_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bootstraps").write_text("a file in its place")
    bootstraps = Bootstraps(tmp_path / "bootstraps")
    bootstraps.open()
    assert bootstraps.loaded == ""
    assert "cannot be written" in caplog.text
