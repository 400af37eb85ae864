"""The engine's logs become lines with names, each once, however they are cut and read again."""

from __future__ import annotations

import struct

import pytest

from lyceum_magic.server.output.masking import SecretTexts
from lyceum_magic.server.runners.compose.stack_output import (
    FrameDecoder,
    LinePrefixer,
    LogCursor,
)


def frame(number: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", number, len(data)) + data


def moment(second: float) -> bytes:
    return f"2026-01-01T00:00:{second:012.9f}Z".encode()


# --- frames ----------------------------------------------------------------------------------

SENT = frame(1, b"out") + frame(2, b"") + frame(2, b"error\n")
FRAMES = [("stdout", b"out"), ("stderr", b""), ("stderr", b"error\n")]


@pytest.mark.parametrize("cut", range(len(SENT) + 1))
def test_frames_are_whole_at_every_cut(cut: int):
    decoder = FrameDecoder()
    assert [*decoder.decode(SENT[:cut]), *decoder.decode(SENT[cut:])] == FRAMES


def test_frames_are_whole_byte_by_byte():
    decoder = FrameDecoder()
    frames = [each for byte in SENT for each in decoder.decode(bytes([byte]))]
    assert frames == FRAMES


# --- lines -----------------------------------------------------------------------------------

NO_SECRETS = SecretTexts(())

TEXT = b"one\n\ntwo \xe2\x82\xac\nlast"


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_lines_are_whole_at_every_cut(cut: int):
    lines = LinePrefixer("web", NO_SECRETS)
    told = lines.add(TEXT[:cut]) + lines.add(TEXT[cut:])
    assert told == b"web | one\nweb | \nweb | two \xe2\x82\xac\n"
    assert lines.end() == b"web | last\n"
    assert lines.end() == b""


def test_a_line_without_end_is_told_in_pieces():
    lines = LinePrefixer("a", NO_SECRETS)
    told = b"".join(lines.add(b"x" * 1000) for _ in range(3000)) + lines.end()
    assert told.replace(b"a | ", b"").replace(b"\n", b"") == b"x" * 3_000_000
    assert 1 < told.count(b"\n") < 10


KEY = "-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----"
PRINTED = f"before {KEY} behind\nlast\n".encode()


@pytest.mark.parametrize("cut", range(len(PRINTED) + 1))
def test_a_secret_of_several_lines_is_masked_in_all_of_them(cut: int):
    lines = LinePrefixer("web", SecretTexts([KEY]))
    told = lines.add(PRINTED[:cut]) + lines.add(PRINTED[cut:]) + lines.end()
    assert told == b"web | before *** behind\nweb | last\n"


def test_what_only_began_like_a_secret_is_told_at_the_end():
    lines = LinePrefixer("web", SecretTexts([KEY]))
    assert lines.add(b"-----BEGIN KEY-----\n") + lines.end() == b"web | -----BEGIN KEY-----\n"
    assert lines.add(b"again\n") == b"web | again\n"


def test_a_line_without_end_is_not_cut_within_a_secret():
    lines = LinePrefixer("a", SecretTexts(["sesame-4711"]))
    before = b"x" * (2**20 - 2)  # it is cut at 1 MiB
    told = b"".join(lines.add(piece) for piece in (before + b"sesam", b"e-4711", b"behind"))
    assert told + lines.end() == b"a | " + before + b"***\na | behind\n"


# --- a log that is read again ----------------------------------------------------------------

LOG = [
    ("stdout", moment(1), b"1\n"),
    ("stdout", moment(2), b"2\n"),
    ("stdout", moment(2), b"3\n"),  # the same nanosecond
    ("stderr", moment(2), b"4\n"),
    ("stderr", moment(4), b"5\n"),
    ("stdout", moment(3), b"6\n"),  # after a later one of the other stream
    ("stdout", moment(9), b""),
    ("stdout", moment(9), b"7\n"),
]


@pytest.mark.parametrize("first", range(len(LOG) + 1))
@pytest.mark.parametrize("second", range(len(LOG) + 1))
def test_each_message_is_told_once(first: int, second: int):
    """Readings that end after `first` and `second` messages, then one of all."""
    cursor = LogCursor()
    told = []
    for end in (first, second, len(LOG)):
        cursor.resume()
        told += [cursor.take(stream, at + b" " + text) for stream, at, text in LOG[:end]]
    assert sorted(filter(None, told)) == [b"%d\n" % number for number in range(1, 8)]


def test_reading_resumes_shortly_before_the_last_message():
    cursor = LogCursor()
    assert cursor.resume() is None
    cursor.take("stderr", b"2026-01-01T00:00:20.123456789Z x")
    cursor.take("stdout", b"2026-01-01T00:00:10.123456789Z x")
    assert cursor.resume() == "1767225615"  # 2026-01-01 00:00:15 UTC


def test_a_clock_that_is_set_back_loses_nothing_while_the_log_is_followed():
    cursor = LogCursor()
    cursor.resume()
    assert cursor.take("stdout", moment(5) + b" later\n") == b"later\n"
    assert cursor.take("stdout", moment(1) + b" earlier\n") == b"earlier\n"
