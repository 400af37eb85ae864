"""The folders of runs: private names, which the server can take back to ids."""

from __future__ import annotations

import uuid
from pathlib import Path
from unittest.mock import Mock

import pytest

from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.server.run_folders import RunFolders


def test_a_name_says_nothing_of_the_id_and_leads_back_to_it(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path)
    ids = [str(uuid.uuid4()) for _ in range(200)]
    names = [folders.of(run_id).name for run_id in ids]
    assert len(set(names)) == len(ids)
    assert all(len(name) == 32 for name in names)
    assert [folders.run_id_of(name) for name in names] == ids
    for run_id, name in zip(ids, names, strict=True):
        assert not {run_id[:8], run_id[-12:]} & {name[:8], name[-12:]}


def test_ids_that_are_alike_have_names_that_are_not(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path)
    one, other = (folders.of(str(uuid.UUID(int=number))).name for number in (1, 2))
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 16


def test_the_names_are_the_same_in_the_next_server_and_others_elsewhere(tmp_path: Path) -> None:
    run_id = str(uuid.uuid4())
    first = RunFolders(tmp_path / "a").of(run_id).name
    assert RunFolders(tmp_path / "a").of(run_id).name == first
    assert RunFolders(tmp_path / "b").of(run_id).name != first
    assert (tmp_path / "a" / ".key").stat().st_mode & 0o777 == 0o600


def test_a_run_of_an_earlier_version_keeps_its_folder(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path / "runs")
    earlier, later = str(uuid.uuid4()), str(uuid.uuid4())
    (tmp_path / "runs" / earlier).mkdir(parents=True)
    folders.of(later).mkdir()
    assert folders.of(earlier) == tmp_path / "runs" / earlier
    assert sorted(folders.run_ids()) == sorted([earlier, later])


def test_what_is_no_name_of_ours_stands_for_itself(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path / "runs")
    run_id = str(uuid.uuid4())
    name = folders.of(run_id).name
    others = [
        name.upper(),
        name[:-1],
        f"{name}0",
        f"{name[:-1]} ",
        "left behind",
        "\udcff",
        "é" * 32,
    ]
    assert [folders.run_id_of(other) for other in others] == others
    for folder in (name, *others, ".hidden"):
        (tmp_path / "runs" / folder).mkdir()
    assert sorted(folders.run_ids()) == sorted([run_id, *others])


def test_all_names_are_decrypted_at_once(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path / "runs")
    ids = [str(uuid.uuid4()) for _ in range(50)]
    for run_id in ids:
        folders.of(run_id).mkdir(parents=True)
    counted = Mock(wraps=folders._cipher)
    folders.__dict__["_cipher"] = counted
    assert sorted(folders.run_ids()) == sorted(ids)
    assert counted.decryptor.call_count == 1


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_broken_key_is_named_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".key").write_bytes(content)
    with pytest.raises(EmbeddedServerError, match=r"\.key should hold .* Restore it"):
        RunFolders(tmp_path).of(str(uuid.uuid4()))


def test_a_key_that_cannot_be_read_is_named_too(tmp_path: Path) -> None:
    (tmp_path / ".key").mkdir()
    with pytest.raises(EmbeddedServerError, match="Check its disk"):
        RunFolders(tmp_path).make()
