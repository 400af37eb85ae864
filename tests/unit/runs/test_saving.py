"""Files from a run are written whole or not at all, while other threads go on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lyceum_magic.runs import saving
from lyceum_magic.runs.saving import write_files

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX has the limits and the umask")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("before", [None, b"before"])
def test_a_full_disk_leaves_no_torn_file(before: bytes | None, folder: Path) -> None:
    """A limit on the size of files makes a write break off as a full disk does."""
    if before is not None:
        (folder / "f").write_bytes(before)
    program = f"""
import resource, signal
from pathlib import Path
from lyceum_magic.runs.saving import write_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
saved = write_files({{"f": b"x" * 5000}}, Path({str(folder)!r}), overwrite=True)
print(saved.written, saved.refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[] {'f': 'File too large'}\n"
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert left == ({} if before is None else {"f": before})


def test_a_file_has_the_permissions_that_the_umask_leaves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The umask is the whole process's: asking for it would change it for other threads."""
    (folder / "there").write_bytes(b"")
    umask, asked = os.umask(0o027), []
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", asked.append)
            write_files({"new": b"x", "there": b"x"}, folder, overwrite=True)
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE((folder / name).stat().st_mode) for name in ("new", "there")]
    assert (modes, asked) == ([0o640, 0o640], [])


def test_a_file_that_comes_meanwhile_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = saving.name_file

    def late(temporary: Path, place: Path) -> None:
        place.write_bytes(b"another's")
        link(temporary, place)

    monkeypatch.setattr(saving, "name_file", late)
    saved = write_files({"f": b"x"}, folder, overwrite=False)
    assert (saved.kept, saved.written) == (["f"], [])
    assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [("f", b"another's")]


def test_what_was_kept_is_said_with_the_way_out_of_who_asked(folder: Path) -> None:
    (folder / "f").write_bytes(b"before")
    saved = write_files({"f": b"x", "../g": b"x"}, folder, overwrite=False)
    assert saved.problems("overwrite=True would do it") == [
        "../g was not written: it is no path below a folder.",
        "f: already here, and not written over; overwrite=True would do it.",
    ]
