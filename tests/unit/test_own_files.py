"""Small files of this user's: whole or not there, whatever the disk says."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from lyceum_magic.config import write_login
from lyceum_magic.exceptions import ConfigError
from lyceum_magic.inbox.jupyter_servers import announce
from lyceum_magic.own_files import own_folder, put_own, read_own
from lyceum_magic.server.runners.control import write_json
from lyceum_magic.server.state_folder import put


def put_json(folder: Path) -> None:
    put(folder / "server.json", {"api_key": "canary" * 100})


def put_login(folder: Path) -> None:
    write_login(api_key="canary" * 100)


def put_receiver(folder: Path) -> None:
    announce(folder, "http://127.0.0.1:8888/" + "canary" * 100)


def put_assignment(folder: Path) -> None:
    write_json(folder / "assignment.json", {"TOKEN": "canary" * 100})


@pytest.mark.parametrize("write", [put_json, put_login, put_receiver, put_assignment])
def test_a_write_that_fails_leaves_nothing(
    own_machine: Path, write: Callable[[Path], None]
) -> None:
    own_folder(own_machine)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        with pytest.raises((OSError, ConfigError), match=r"File too large|cannot be written"):
            write(own_machine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    left = [*own_machine.rglob("*"), *(own_machine.parent / "home").rglob("*")]
    assert [path for path in left if path.is_file()] == []


def test_a_folder_in_the_place_of_a_file_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "kept").touch()
    put_own(tmp_path / "file", "text")
    assert read_own(tmp_path / "file") == b"text"
    (aside,) = tmp_path.glob("file.*")
    assert (aside / "kept").exists()


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "file").symlink_to("elsewhere")
    put_own(tmp_path / "file", "text")
    assert read_own(tmp_path / "file") == b"text"
    assert list((tmp_path / "elsewhere").iterdir()) == []
