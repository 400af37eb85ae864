"""The bucket: the files of its keys, and no way out of its folder."""

from __future__ import annotations

import io
import os
import resource
import subprocess
from pathlib import Path

import pytest

from lyceum_magic.server.storage.bucket import Bucket, InvalidKey, KeyConflict, UnknownFile


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    bucket = Bucket(tmp_path / "storage" / "local", drafts=tmp_path / "uploads")
    bucket.open()
    return bucket


@pytest.fixture
def folder(tmp_path: Path, bucket: Bucket) -> Path:
    return tmp_path / "storage" / "local"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the bucket, with one file that must stay out of reach."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    return outside


def put(bucket: Bucket, key: str, data: bytes = b"data") -> None:
    bucket.put(io.BytesIO(data), key)


def read(bucket: Bucket, key: str) -> bytes:
    with os.fdopen(bucket.open_file(key), "rb") as file:
        return file.read()


def keys(bucket: Bucket, prefix: str = "", limit: int = 1000) -> list[str]:
    return [file.key for file in bucket.list(prefix, limit=limit).files]


def test_a_file_comes_back_as_it_was_put_and_may_be_replaced(bucket: Bucket) -> None:
    put(bucket, "a/b/grün.txt", b"one")
    put(bucket, "a/b/grün.txt", b"second")
    assert read(bucket, "a/b/grün.txt") == b"second"
    (file,) = bucket.list(limit=10).files
    assert (file.key, file.size) == ("a/b/grün.txt", 6)


def test_files_are_listed_in_the_order_of_their_keys_up_to_a_limit(bucket: Bucket) -> None:
    for key in ("b", "a/2", "a/1/x", "a.txt", "ab", "a/10"):
        put(bucket, key)
    # As S3 has it: by the bytes of the whole key, in which `.` comes before `/`.
    assert keys(bucket) == ["a.txt", "a/1/x", "a/10", "a/2", "ab", "b"]
    assert keys(bucket, "a/1") == ["a/1/x", "a/10"]
    assert keys(bucket, "a/") == ["a/1/x", "a/10", "a/2"]
    assert keys(bucket, "nothing/here") == []
    assert bucket.list(limit=5).is_truncated
    assert not bucket.list(limit=6).is_truncated


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "..", "../x", "a/../b", "a/./b", "a//b", "a/", "a\\b", "a\0b", "a\nb",
     "\x7f", "x" * 256, "x/" * 513 + "x", "\ud800"],
)  # fmt: skip
def test_what_cannot_be_a_key_is_refused_in_one_sentence(bucket: Bucket, key: str) -> None:
    for use in (bucket.open_file, bucket.delete):
        with pytest.raises(InvalidKey) as refusal:
            use(key)
        assert str(refusal.value).isprintable()
        assert str(refusal.value).endswith((".", "..."))


def test_a_folder_is_no_file_and_a_file_no_folder(bucket: Bucket) -> None:
    put(bucket, "a/b")
    for wrong in ("a", "a/b/c", "missing", "missing/too"):
        with pytest.raises(UnknownFile):
            bucket.open_file(wrong)
    for wrong in ("a", "a/b/c"):
        with pytest.raises(KeyConflict):
            put(bucket, wrong)
    with pytest.raises(KeyConflict, match="delete-folder"):
        bucket.delete("a")
    with pytest.raises(KeyConflict):
        bucket.delete_folder("a/b")
    assert keys(bucket) == ["a/b"]


def test_deleting_leaves_no_empty_folders(bucket: Bucket, folder: Path) -> None:
    put(bucket, "a/b/c/d")
    put(bucket, "a/e")
    bucket.delete("a/b/c/d")
    assert [path.name for path in (folder / "a").iterdir()] == ["e"]
    bucket.delete("a/e")
    assert list(folder.iterdir()) == []
    with pytest.raises(UnknownFile):
        bucket.delete("a/e")


@pytest.mark.parametrize("prefix", ["a", "a/"])
def test_a_folder_goes_with_all_that_is_in_it(bucket: Bucket, prefix: str) -> None:
    for key in ("a/1", "a/b/2", "a/b/c/3", "ab"):
        put(bucket, key)
    assert bucket.delete_folder(prefix) == 3
    assert keys(bucket) == ["ab"]
    with pytest.raises(UnknownFile):
        bucket.delete_folder(prefix)
    with pytest.raises(InvalidKey):
        bucket.delete_folder("")


def test_links_of_a_container_lead_nowhere(bucket: Bucket, folder: Path, outside: Path) -> None:
    (folder / "way").symlink_to(outside)
    (folder / "file").symlink_to(outside / "secret")
    assert keys(bucket) == []
    assert keys(bucket, "way/") == []
    for key in ("way/secret", "file", "way"):
        with pytest.raises(UnknownFile):
            bucket.open_file(key)
    for key in ("way/new", "way/secret"):
        with pytest.raises(KeyConflict):
            put(bucket, key)
        with pytest.raises(KeyConflict):
            bucket.delete(key)
    with pytest.raises(KeyConflict):
        bucket.delete_folder("way")
    put(bucket, "file", b"mine")  # in place of the link, not of what it names
    assert read(bucket, "file") == b"mine"
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("secret", "secret")]


def test_links_are_removed_with_their_folder_and_not_followed(
    bucket: Bucket, folder: Path, outside: Path
) -> None:
    put(bucket, "a/b")
    (folder / "a" / "way").symlink_to(outside)
    assert bucket.delete_folder("a") == 2
    assert (outside / "secret").exists()


def test_a_pipe_of_a_container_holds_nobody_up(bucket: Bucket, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(UnknownFile):
        bucket.open_file("pipe")
    assert keys(bucket) == []


def test_names_that_are_no_keys_are_not_listed(bucket: Bucket, folder: Path) -> None:
    for name in (b"\xff", b"a\nb", b"back\\slash", b"fine"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"")
    assert keys(bucket) == ["fine"]


def test_folders_nested_deeper_than_keys_reach_are_passed_over(
    bucket: Bucket, folder: Path
) -> None:
    put(bucket, "file")
    nest(folder, 1500)
    try:
        assert keys(bucket) == ["file"]
    finally:  # pytest could not remove it
        subprocess.run(["rm", "-rf", folder / "deep"], check=True)


def nest(folder: Path, depth: int, name: str = "deep") -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_folder_goes_however_deep_it_is(bucket: Bucket, folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    nest(folder, 3000)
    put(bucket, "deep/deep/beside")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        assert keys(bucket) == ["deep/deep/beside"]
        assert bucket.delete_folder("deep") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", folder / "deep"], check=True)  # pytest could not
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("moved", [["a/b/c"], ["a/b"], ["a/b/c", "a/b"]])
def test_a_folder_that_moves_under_a_walk_takes_it_nowhere_else(
    bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch, moved: list[str]
) -> None:
    """Its `..` is then another folder, whose files are not part of the walk."""
    put(bucket, "a/b/c/d/file")
    put(bucket, "other/x/file")
    put(bucket, "other/file")
    unlink = os.unlink

    def unlink_and_move(path: str, *, dir_fd: int) -> None:
        unlink(path, dir_fd=dir_fd)
        for name in moved:
            (folder / name).rename(folder / "other" / Path(name).name)

    monkeypatch.setattr(os, "unlink", unlink_and_move)
    assert bucket.delete_folder("a") == 1
    monkeypatch.undo()
    assert keys(bucket) == ["other/file", "other/x/file"]
    assert sorted(path.name for path in (folder / "other").iterdir()) == sorted(
        ["file", "x", *(Path(name).name for name in moved)]
    )
    assert not (folder / "a").exists()


def test_a_link_in_the_place_of_a_new_folder_changes_nothing_outside(
    bucket: Bucket, folder: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def mkdir_and_exchange(path: str, *arguments: object, **options: int) -> None:
        mkdir(path, **options)
        if path == "new":
            (folder / "new").rmdir()
            (folder / "new").symlink_to(outside / "secret")

    (outside / "secret").chmod(0o600)
    monkeypatch.setattr(os, "mkdir", mkdir_and_exchange)
    with pytest.raises(KeyConflict):
        put(bucket, "new/file")
    assert (outside / "secret").stat().st_mode & 0o777 == 0o600


def test_a_bucket_that_was_removed_is_there_again(bucket: Bucket, folder: Path) -> None:
    folder.rmdir()
    assert keys(bucket) == []
    with pytest.raises(UnknownFile):
        bucket.open_file("a/b")
    put(bucket, "a/b")
    assert keys(bucket) == ["a/b"]
    assert folder.stat().st_mode & 0o777 == 0o777


def test_containers_of_any_user_may_write_and_read(bucket: Bucket, folder: Path) -> None:
    old = os.umask(0o077)
    try:
        put(bucket, "a/b")
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o777
    assert (folder / "a").stat().st_mode & 0o777 == 0o777
    assert (folder / "a" / "b").stat().st_mode & 0o666 == 0o666
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_an_upload_that_was_broken_off_is_forgotten(bucket: Bucket, tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        bucket.put(Broken(), "a")
    assert list((tmp_path / "uploads").iterdir()) == []
    (tmp_path / "uploads" / "of a server that was killed").mkdir()
    bucket.open()
    assert list((tmp_path / "uploads").iterdir()) == []
