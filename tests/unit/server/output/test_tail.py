"""The end of a run's output, as text and as lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyceum_magic.server.output.spool import encode_record
from lyceum_magic.server.output.tail import read_lines, read_tail


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_nothing_was_written() -> None:
    tail = read_tail(None, max_bytes=10)
    assert (tail.combined, tail.is_truncated) == ("", False)
    assert read_lines(None, limit=10, since=0) == []


@pytest.mark.parametrize("max_bytes", range(1, 12))
def test_a_cut_leaves_no_broken_character(spool: Path, max_bytes: int) -> None:
    text = "aé€😀"  # 1 + 2 + 3 + 4 bytes
    spool.write_bytes(encode_record("stdout", 1.0, text.encode()))
    tail = read_tail(spool, max_bytes=max_bytes)
    assert text.endswith(tail.stdout)
    assert len(tail.stdout.encode()) <= max_bytes
    assert tail.is_truncated == (max_bytes < 10)


def test_each_stream_has_an_end_of_its_own(spool: Path) -> None:
    pieces = [("stderr", b"warning")] + [("stdout", b"x" * 10)] * 50
    spool.write_bytes(
        b"".join(
            encode_record("stderr" if stream == "stderr" else "stdout", 1.0, data)
            for stream, data in pieces
        )
    )
    tail = read_tail(spool, max_bytes=25)
    assert (tail.stderr, tail.stdout, tail.combined) == ("warning", "x" * 25, "x" * 25)
    assert tail.is_truncated


@pytest.mark.parametrize("limit", [1, 2, 5, 999, 1000, 2000])
def test_the_last_lines_are_whole_however_they_were_written(spool: Path, limit: int) -> None:
    text = b"".join(b"line %d\n" % number for number in range(1000))
    pieces = [text[start : start + 7] for start in range(0, len(text), 7)]
    spool.write_bytes(b"".join(encode_record("stdout", 1.0, piece) for piece in pieces))
    lines = read_lines(spool, limit=limit, since=0)
    assert [line.text for line in lines] == [f"line {n}" for n in range(1000)][-limit:]


def test_lines_before_the_given_time_are_left_out(spool: Path) -> None:
    spool.write_bytes(
        encode_record("stdout", 10.0, b"old\n") + encode_record("stderr", 20.0, b"new")
    )
    (line,) = read_lines(spool, limit=10, since=15.0)
    assert (line.text, line.stream, line.timestamp) == ("new", "stderr", 20.0)
