"""Collapsing carriage returns never changes what is seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.display.carriage import collapse

SCREEN_TEXT = st.text(alphabet="ab█ \r\n", max_size=40)


def screen(text: str) -> list[str]:
    """Return the rows that a terminal of any width shows after `text`."""
    rows = []
    for line in text.split("\n"):
        row: list[str] = []
        for part in line.split("\r"):
            row[: len(part)] = part
        rows.append("".join(row))
    return rows


@given(before=SCREEN_TEXT, batch=SCREEN_TEXT, after=SCREEN_TEXT)
def test_what_is_seen_stays_the_same_wherever_a_batch_begins_and_ends(before, batch, after):
    assert screen(before + collapse(batch) + after) == screen(before + batch + after)


@given(SCREEN_TEXT)
def test_collapsing_twice_is_collapsing_once(text):
    assert collapse(collapse(text)) == collapse(text)


@pytest.mark.parametrize(
    ("text", "collapsed"),
    [
        ("\r 10%\r 20%\r 30%", "\r 30%"),
        ("\r10%\r20%\n\r30%\r40%", "\r20%\n\r40%"),
        ("\r100 left\r99 left\r98 left", "\r100 left\r98 left"),
        ("10%\r20%\r30%\r", "10%\r30%\r"),
        ("windows\r\nlines\r\n", "windows\r\nlines\r\n"),
    ],
)
def test_what_a_line_overwrites_itself_is_left_out(text, collapsed):
    assert collapse(text) == collapsed


@pytest.mark.parametrize("part", ["\x1b[31mred", "\x1b[A", "a\tb", "ab\b", "日本", "a\x0b"])
def test_a_part_that_does_more_than_overwrite_stays_and_so_does_what_it_may_depend_on(part):
    text = f"\rabc\r{part}\rxxxxxxxxxx"
    assert collapse(text) == text
