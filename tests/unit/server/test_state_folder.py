"""The state folder: the conditions for a server, and the refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.server.state_folder import (
    AlreadyServed,
    ServerFile,
    file_system,
    lock_for_life,
    new_key,
    prepare,
    read_server_file,
    server_file,
    write_server_file,
)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_a_network_file_system_is_refused_with_the_way_out(tmp_path: Path, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/home {tmp_path} {kind} rw 0 0\n")
    with pytest.raises(EmbeddedServerError, match="LYCEUM_MAGIC_HOME"):
        prepare(tmp_path / "state", mounts=mounts)


def test_the_nearest_and_last_mount_decides(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    deep = tmp_path / "a b" / "c"
    deep.mkdir(parents=True)
    escaped = str(tmp_path / "a b").replace(" ", r"\040")
    mounts.write_text(f"x / nfs rw 0 0\nx {escaped} nfs rw 0 0\nx {escaped} ext4 rw 0 0\nodd\n")
    assert file_system(deep, mounts=mounts) == "ext4"
    assert file_system(tmp_path, mounts=mounts) == "nfs"
    assert file_system(tmp_path, mounts=tmp_path / "absent") is None


def test_a_folder_open_to_others_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o755)
    prepare(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_another_user_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(EmbeddedServerError, match=r"belongs to another user.*LYCEUM_MAGIC_HOME"):
        prepare(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="LYCEUM_MAGIC_HOME"):
        prepare(tmp_path / "file" / "state")


PID = str(os.getpid())


def test_one_holder_of_the_lock_at_a_time(tmp_path: Path) -> None:
    with lock_for_life(tmp_path) as lock:
        lock.show_address("http://127.0.0.1:1")
        with pytest.raises(AlreadyServed, match=f"kill {PID}"), lock_for_life(tmp_path):
            pass
        assert (tmp_path / "server.lock").read_text().split() == ["http://127.0.0.1:1", PID]
    with lock_for_life(tmp_path):
        assert (tmp_path / "server.lock").read_text().split() == [PID]


def test_the_lock_tells_a_server_that_was_killed_from_one_that_ended(tmp_path: Path) -> None:
    with lock_for_life(tmp_path) as first:
        assert first.last_end == "in order"
        first.show_address("http://127.0.0.1:1")
    with lock_for_life(tmp_path) as second:
        assert second.last_end == "cut short"
        second.show_address("http://127.0.0.1:1")
        second.take_address_back()
        assert (tmp_path / "server.lock").read_text().split() == [PID]
    with lock_for_life(tmp_path) as third:
        assert third.last_end == "in order"


def content() -> ServerFile:
    return ServerFile("http://127.0.0.1:4", new_key(), 7, "boot", "0.1.0")


def test_what_a_server_writes_comes_back(tmp_path: Path) -> None:
    written = content()
    assert read_server_file(tmp_path) is None
    write_server_file(tmp_path, written)
    assert read_server_file(tmp_path) == written
    assert written.port == 4
    assert server_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert written.api_key.reveal() not in repr(written)


#: A member -> what no server writes there.
BROKEN = {
    "api_key": [None, "", " ", "lk_", 7, "lk_" + "ü" * 40, "lk_a b" + "c" * 40],
    "base_url": [
        None, 1, "", "http://127.0.0.1", "http://127.0.0.1:", "http://127.0.0.1:http",
        "http://127.0.0.1:0", "http://127.0.0.1:65536", "http://192.0.2.1:80", "https://127.0.0.1:1",
    ],
    "pid": [None, "7", 0, -1, True, 7.5],
    "version": [None, 1],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BROKEN.items() for value in values]
)
def test_a_file_with_a_member_that_no_server_writes_counts_as_none(
    tmp_path: Path, name: str, value: object
) -> None:
    write_server_file(tmp_path, content())
    members = json.loads(server_file(tmp_path).read_text())
    server_file(tmp_path).write_text(json.dumps({**members, name: value}))
    assert read_server_file(tmp_path) is None
    members.pop(name)
    server_file(tmp_path).write_text(json.dumps(members))
    assert read_server_file(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", '{"base_url": 1}', "{", '{"api_key": "lk_CANARY", "x'])
def test_a_file_that_no_server_wrote_counts_as_none_and_is_not_quoted(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    server_file(tmp_path).write_text(text)
    server_file(tmp_path).chmod(0o600)
    assert read_server_file(tmp_path) is None
    assert "written again" in caplog.text
    assert "CANARY" not in caplog.text


def test_a_pipe_in_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(server_file(tmp_path), 0o600)
    assert read_server_file(tmp_path) is None


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    write_server_file(tmp_path, content())
    server_file(tmp_path).rename(tmp_path / "elsewhere")
    server_file(tmp_path).symlink_to(tmp_path / "elsewhere")
    assert read_server_file(tmp_path) is None
