"""A kernel finds the server that started it, and no other."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from lyceum_magic.inbox.jupyter_servers import announce, is_any_receiving, url_of_mine

URL = "http://127.0.0.1:8888/lyceum/callbacks/"
MINE = {"JPY_PARENT_PID": str(os.getpid())}


def test_a_kernel_finds_its_server(tmp_path: Path) -> None:
    path = announce(tmp_path, URL)
    assert url_of_mine(tmp_path, MINE) == URL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("environ", [{}, {"JPY_PARENT_PID": "1"}, {"JPY_PARENT_PID": "x"}])
def test_a_kernel_of_nobody_finds_none(tmp_path: Path, environ: dict[str, str]) -> None:
    announce(tmp_path, URL)
    assert url_of_mine(tmp_path, environ) is None


def test_what_a_dead_server_left_counts_for_nothing(tmp_path: Path) -> None:
    """The process id in the file may be another process's by now."""
    path = announce(tmp_path, URL)
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "started_at": facts["started_at"] - 60}))
    assert url_of_mine(tmp_path, MINE) is None
    path.write_text("{")
    assert url_of_mine(tmp_path, MINE) is None
    left = path.with_name(path.name.replace(str(os.getpid()), "4194304"))
    left.write_text(json.dumps({**facts, "pid": 4194304}))
    announce(tmp_path, URL)
    assert not left.exists()


def test_what_others_could_have_written_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = announce(tmp_path, URL)
    path.chmod(0o666)
    assert url_of_mine(tmp_path, MINE) is None
    moved = path.rename(tmp_path / "moved")
    moved.chmod(0o600)
    path.symlink_to(moved)
    assert url_of_mine(tmp_path, MINE) is None
    assert announce(tmp_path, URL) == path
    assert url_of_mine(tmp_path, MINE) == URL
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    assert url_of_mine(tmp_path, MINE) is None
    with pytest.raises(PermissionError, match="belongs to another user"):
        announce(tmp_path, URL)


def test_a_server_that_this_machine_does_not_reach_receives_from_elsewhere(tmp_path: Path) -> None:
    assert not is_any_receiving(tmp_path)
    path = announce(tmp_path, None)
    assert announce(tmp_path, None).exists()
    assert is_any_receiving(tmp_path)
    assert url_of_mine(tmp_path, MINE) is None
    path.unlink()
    assert not is_any_receiving(tmp_path)
