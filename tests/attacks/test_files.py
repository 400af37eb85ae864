"""Folders and files that another user has made, or has put into ours before it was closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyceum_magic.embedded import local_server
from lyceum_magic.exceptions import EmbeddedServerError, JournalUnavailable, LyceumError
from lyceum_magic.folders import journal_folder, server_folder, user_folder
from lyceum_magic.inbox.store import InboxStore
from lyceum_magic.journal.journal import Journal
from lyceum_magic.runs.workspace import Workspace
from tests.attacks.stranger import Stranger
from tests.tools.embedded import end_server

PRECIOUS = "not to be emptied\n"

NOT_OURS = r"belongs to another user|symbolic link"

#: A program that makes folders and links. Its arguments are pairs: a path, and a target for a link;
#: an empty target means a folder.
PLANT = """
    import os, sys
    for path, target in zip(sys.argv[1::2], sys.argv[2::2]):
        os.makedirs(path if not target else os.path.dirname(path), 0o777, exist_ok=True)
        if target:
            os.symlink(target, path)
    """


@pytest.fixture
def victims_file(tmp_path: Path) -> Iterator[Path]:
    """A file of ours that a link leads to; it stays as it is, whatever the test does."""
    file = tmp_path / "precious"
    file.write_text(PRECIOUS)
    yield file
    assert file.read_text() == PRECIOUS


@pytest.fixture
def foreign(common_folder: Path, stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the stranger's, which `LYCEUM_MAGIC_HOME` names."""
    folder = stranger.home / f"trap-{os.urandom(4).hex()}"
    stranger.run(PLANT, str(folder), "")
    monkeypatch.setenv("LYCEUM_MAGIC_HOME", str(folder))
    return folder


@pytest.fixture
def opened(own_machine: Path, common_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ours that everybody could write to once, which `LYCEUM_MAGIC_HOME` names."""
    folder = common_folder / f"open-{os.urandom(4).hex()}"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("LYCEUM_MAGIC_HOME", str(folder))
    return folder


def plant(stranger: Stranger, **links: Path | str) -> None:
    stranger.run(PLANT, *(str(part) for pair in links.items() for part in pair))


def below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


SERVER_FILES = [
    "start.lock", "server.log", "server.lock", "server.json", "runs.sqlite3", "vault.key",
    "interpreter.json", "deliveries.json",
]  # fmt: skip


@pytest.mark.parametrize("name", SERVER_FILES)
def test_nothing_is_opened_in_a_foreign_folder(
    foreign: Path, stranger: Stranger, victims_file: Path, name: str
) -> None:
    stranger.run(PLANT, str(server_folder() / name), str(victims_file))
    there = below(foreign)
    with pytest.raises(EmbeddedServerError, match="belongs to another user") as caught:
        local_server.ensure()
    assert "LYCEUM_MAGIC_HOME" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert below(foreign) == there


def test_a_folder_of_ours_in_a_foreign_one_is_refused(foreign: Path, stranger: Stranger) -> None:
    """Its owner could put another one in its place at any moment."""
    folder = server_folder()
    stranger.run("import os, sys; os.makedirs(sys.argv[1], 0o777)", str(folder.parent))
    stranger.run("import os, sys; os.chmod(sys.argv[1], 0o777)", str(folder.parent))
    folder.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match="belongs to another user"):
        local_server.ensure()
    assert below(folder) == set()


@pytest.mark.parametrize(
    "name", [*SERVER_FILES, "runs", "storage", "requirements", "uploads", "sessions"]
)
def test_links_that_a_stranger_left_in_a_folder_of_ours_are_not_followed(
    opened: Path, stranger: Stranger, victims_file: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = victims_file if "." in name else elsewhere
    folder = server_folder()
    for path in (folder.parent, folder):
        path.mkdir()
        path.chmod(0o777)
    stranger.run(PLANT, str(folder / name), str(target))
    with pytest.raises(EmbeddedServerError, match=NOT_OURS) as caught:
        local_server.ensure()
    assert str(folder / name) in str(caught.value)
    assert below(elsewhere) == set()
    end_server(opened)


@pytest.mark.parametrize("name", ["start.lock", "server.log", "server.lock", "runs.sqlite3"])
def test_they_are_not_followed_where_the_folder_is_closed_by_now(
    opened: Path, stranger: Stranger, victims_file: Path, name: str
) -> None:
    folder = server_folder()
    for path in (folder.parent, folder):
        path.mkdir()
        path.chmod(0o777)
    stranger.run(PLANT, str(folder / name), str(victims_file))
    for path in (folder, folder.parent, opened):
        path.chmod(0o700)
    with pytest.raises(EmbeddedServerError) as caught:
        local_server.ensure()
    assert str(folder / name) in str(caught.value)


def test_a_foreign_server_is_not_asked(foreign: Path, stranger: Stranger) -> None:
    """Neither by the name of its folder nor by a note that leads to it."""
    code = """
        import json, os, sys
        folder, home = sys.argv[1:]
        os.makedirs(folder)
        facts = {"base_url": "http://127.0.0.1:9", "api_key": "lk_trap", "pid": os.getpid(),
                 "version": "99", "boot_id": ""}
        for name, value in [(folder + "/server.json", facts),
                            (home + "/moves.json", [{"at": 9e9, "to": folder}])]:
            os.close(os.open(name, os.O_CREAT, 0o600))
            os.chmod(name, 0o644)
            json.dump(value, open(name, "w"))
        """
    stranger.run(code, str(server_folder()), str(foreign))
    with pytest.raises(EmbeddedServerError, match="belongs to another user"):
        local_server.find()
    with pytest.raises(EmbeddedServerError, match="belongs to another user"):
        local_server.present_folder(foreign, 0.0)


# The journal, and what comes in.


def test_a_foreign_journal_folder_is_refused(foreign: Path, stranger: Stranger) -> None:
    stranger.run(PLANT, str(journal_folder()), "")
    with pytest.raises(LyceumError, match="belongs to another user"):
        Journal(journal_folder())
    assert below(journal_folder()) == set()


def test_a_link_in_place_of_the_journal_folder_is_refused(
    opened: Path, stranger: Stranger, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger.run(PLANT, str(journal_folder()), str(elsewhere))
    with pytest.raises(LyceumError, match="belongs to another user"):
        Journal(journal_folder())
    assert below(elsewhere) == set()


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "journal.db-journal"])
def test_links_in_the_journal_are_not_followed(
    opened: Path, stranger: Stranger, victims_file: Path, name: str
) -> None:
    folder = journal_folder()
    folder.mkdir()
    folder.chmod(0o777)
    stranger.run(PLANT, str(folder / name), str(victims_file))
    with pytest.raises(LyceumError, match=NOT_OURS) as caught:
        Journal(folder)
    assert str(folder / name) in str(caught.value)


def test_a_log_that_is_a_link_is_not_followed(
    opened: Path, stranger: Stranger, victims_file: Path
) -> None:
    folder = journal_folder()
    folder.mkdir()
    folder.chmod(0o777)
    stranger.run(PLANT, str(folder / "tag.jsonl"), str(victims_file))
    for path in (folder, opened):
        path.chmod(0o700)
    journal = Journal(folder)
    with pytest.raises(JournalUnavailable, match="symbolic link"):
        journal.open_log("tag").claim()
    journal.close()


def test_a_foreign_folder_takes_no_callbacks(foreign: Path, stranger: Stranger) -> None:
    stranger.run(PLANT, str(user_folder() / "callbacks"), "")
    with pytest.raises(PermissionError, match="belongs to another user"):
        InboxStore(user_folder() / "callbacks")


def test_the_reader_is_told_in_one_sentence(foreign: Path) -> None:
    workspace = Workspace()
    try:
        for ask in (workspace.client, workspace.history.entries):
            with pytest.raises(LyceumError, match=r"another user.*LYCEUM_MAGIC_HOME") as caught:
                ask()
            assert "\n" not in str(caught.value)
    finally:
        workspace.close()
