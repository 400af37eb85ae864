"""Text from elsewhere is shown, and no terminal or page obeys it."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.protocol.lines import one_line, safe_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本 🙂", "plain é 日本 🙂"),
        ("a\nb\r\nc\td\u2028e\x85f\x0bg", "a b c d e f g"),
        ("\x1b[2Jgone", "�[2Jgone"),
        ("\x1b]0;title\x07", "�]0;title�"),
        ("\x9b2J", "�2J"),
        ("a\u202eb\u2066c\u200ed", "a�b�c�d"),
        ("nul\x00 del\x7f", "nul� del�"),
        ("\udcc3", "�"),
        ("نمی\u200cخواهم 👩\u200d🔬", "نمی\u200cخواهم 👩\u200d🔬"),
        ("", ""),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_a_long_line_ends_with_an_ellipsis() -> None:
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"


def test_lines_keep_their_alignment() -> None:
    assert safe_lines("  a  b\n\tc\x1b\r\nd") == "  a  b\n        c�\nd"


@given(st.text(st.characters(min_codepoint=0, max_codepoint=sys.maxunicode)))
def test_whatever_comes_in_one_printable_line_comes_out(text: str) -> None:
    line = one_line(text)
    assert line.replace("\u200c", "").replace("\u200d", "").isprintable()
    assert one_line(line) == line
    line.encode()
