"""The spool: what is appended comes back, however reader and writer meet."""

import os
from pathlib import Path

import pytest

from lyceum_magic.server.output.spool import (
    DamagedSpool,
    SpoolWriter,
    encode_record,
    read_spool,
    whole_characters,
)


def test_records_come_back_with_their_end_offsets(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    first, second = encode_record("stdout", 1.5, b"one"), encode_record("stderr", 2.25, b"\xff")
    spool.write_bytes(first + second)
    records = read_spool(spool, 0)
    assert [(r.stream, r.timestamp, r.data, r.end) for r in records] == [
        ("stdout", 1.5, b"one", len(first)),
        ("stderr", 2.25, b"\xff", len(first + second)),
    ]
    assert read_spool(spool, records[0].end) == records[1:]
    assert read_spool(spool, records[1].end) == []


def test_a_record_that_is_not_whole_yet_is_not_there_yet(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    first, second = encode_record("stdout", 1, b"one"), encode_record("stdout", 2, b"two")
    for cut in range(len(first + second)):
        spool.write_bytes((first + second)[:cut])
        assert [r.data for r in read_spool(spool, 0)] == [b"one"][: cut >= len(first)]


def test_a_record_longer_than_a_read_is_read_whole(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(encode_record("stdout", 1, b"x" * 1000) + encode_record("stdout", 1, b"y"))
    [record] = read_spool(spool, 0, max_bytes=20)
    assert record.data == b"x" * 1000
    assert [r.data for r in read_spool(spool, record.end, max_bytes=20)] == [b"y"]


def test_a_spool_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert read_spool(tmp_path / "spool", 0) == []
    assert read_spool(tmp_path / "spool", 1) == []


def test_an_offset_after_the_end_is_refused(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(encode_record("stdout", 1, b"one"))
    with pytest.raises(DamagedSpool, match="ends before 1000"):
        read_spool(spool, 1000)


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff" * 40,
        b"\0" * 40,
        # A record that would be longer than any.
        b"\0" * 9 + b"\xff" * 4 + b"x" * 40,
    ],
)
def test_what_is_whole_before_damage_is_read_and_then_it_is_told(
    tmp_path: Path, junk: bytes
) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(encode_record("stdout", 1, b"one") + encode_record("stderr", 1, b"2") + junk)
    records = read_spool(spool, 0)
    assert [record.data for record in records] == [b"one", b"2"]
    with pytest.raises(DamagedSpool, match="no record begins"):
        read_spool(spool, records[-1].end)


def test_what_is_no_file_is_damaged(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "folder", "loop"):
        with pytest.raises(DamagedSpool):
            read_spool(tmp_path / name, 0)


@pytest.mark.parametrize("text", ["é", "€", "😀", "a😀b€cé"])
def test_a_character_is_never_split_wherever_it_is_cut(tmp_path: Path, text: str) -> None:
    data = text.encode()
    for cut in range(len(data) + 1):
        path = tmp_path / f"{cut}"
        spool = SpoolWriter(path)
        spool.append("stdout", 1, data[:cut])
        spool.append("stdout", 1, data[cut:])
        spool.close()
        assert "".join(r.data.decode() for r in read_spool(path, 0)) == text


def test_each_stream_holds_back_its_own_character(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path / "spool")
    euro = "€".encode()
    assert not spool.append("stdout", 1, euro[:1])
    assert not spool.append("stderr", 1, euro[:2])
    assert spool.append("stderr", 1, euro[2:])
    assert spool.append("stdout", 1, euro[1:])
    spool.close()
    records = read_spool(tmp_path / "spool", 0)
    assert [(r.stream, r.data) for r in records] == [("stderr", euro), ("stdout", euro)]


def test_flush_adds_what_was_held_back(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path / "spool")
    assert not spool.append("stdout", 1, b"\xe2\x82")
    spool.flush(2)
    spool.flush(3)
    spool.close()
    assert [r.data for r in read_spool(tmp_path / "spool", 0)] == [b"\xe2\x82"]


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"", 0),
        (b"a", 1),
        (b"a\xc3", 1),
        (b"a\xe2\x82", 1),
        (b"a\xf0\x9f\x98", 1),
        (b"\x82\x82\x82\x82", 4),  # continues nothing
        (b"a\xff", 2),  # begins nothing
        (b"a\xc0", 2),
        ("é".encode(), 2),
    ],
)
def test_only_a_possible_character_is_held_back(data: bytes, whole: int) -> None:
    assert whole_characters(data) == whole


def test_a_full_disk_raises(tmp_path: Path) -> None:
    (tmp_path / "spool").symlink_to("/dev/full")
    spool = SpoolWriter(tmp_path / "spool")
    with pytest.raises(OSError, match=os.strerror(28)):
        spool.append("stdout", 1, b"one")
    spool.close()
