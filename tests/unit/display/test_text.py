"""Text comes through whole and in order, in few batches, and a flood does not."""

from __future__ import annotations

import io
import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic import trail
from lyceum_magic.display.text import TextFeed, write_to_stream
from lyceum_magic.protocol.events import Output
from tests.tools.clocks import Clock

from .test_carriage import screen


class Cell:
    """A cell with a feed, and all that the feed has written."""

    def __init__(self, **limits):
        self.clock = Clock()
        self.written = []
        self.feed = TextFeed(
            "3f2a9c1e-rest", write=lambda *write: self.written.append(write), clock=self.clock,
            **limits,
        )  # fmt: skip

    def text(self, stream=None):
        return "".join(text for name, text in self.written if stream in (None, name))


PIECES = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(min_size=1, max_size=30)), max_size=20
)
NO_RETURNS = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1),
    ),
    max_size=20,
)


@given(pieces=NO_RETURNS, publish_after=st.sets(st.integers(0, 30)))
def test_below_the_cap_the_text_is_the_input_and_its_order_is_kept(pieces, publish_after):
    cell = Cell()
    for index, (stream, text) in enumerate(pieces):
        cell.feed.add(Output(text, stream))
        if index in publish_after:
            cell.feed.publish()
    cell.feed.close()
    assert cell.text() == "".join(text for _, text in pieces)
    for stream in ("stdout", "stderr"):
        assert cell.text(stream) == "".join(text for name, text in pieces if name == stream)


@given(
    text=st.text("ab█ \r\n", max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=10),
    publish_after=st.sets(st.integers(0, 10)),
)
def test_however_the_text_is_cut_the_screen_shows_the_same(text, cuts, publish_after):
    cell = Cell()
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    for index, (start, end) in enumerate(itertools.pairwise(edges)):
        cell.feed.add(Output(text[start:end]))
        if index in publish_after:
            cell.feed.publish()
    cell.feed.close()
    assert screen(cell.text()) == screen(text)


@given(pieces=PIECES, max_lines=st.integers(1, 10), max_bytes=st.integers(1, 60))
def test_past_the_cap_what_is_shown_is_a_start_and_an_end_within_their_limits(
    pieces, max_lines, max_bytes
):
    cell = Cell(max_lines=max_lines, max_bytes=max_bytes, tail_lines=3, tail_bytes=20)
    for stream, text in pieces:
        cell.feed.add(Output(text.replace("\r", ""), stream)) if text.replace("\r", "") else None
    cell.feed.publish()
    head = cell.text()
    whole = "".join(text.replace("\r", "") for _, text in pieces)
    whole = whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert whole.startswith(head)
    assert head.count("\n") <= max_lines
    assert len(head.encode()) <= max_bytes
    cell.written.clear()
    cell.feed.close()
    notices = [text for _, text in cell.written if "left out here" in text]
    tail = "".join(text for _, text in cell.written if text not in notices)
    assert whole.endswith(tail)
    assert tail.count("\n") <= 3
    assert len(tail.encode()) <= 20
    assert len(notices) == (len(head) + len(tail) < len(whole))


def test_the_first_text_after_a_silence_is_due_at_once_and_the_next_is_not():
    cell = Cell()
    assert cell.feed.due_in_s() is None
    cell.feed.add(Output("a"))
    assert cell.feed.due_in_s() == 0
    cell.feed.publish()
    assert cell.feed.due_in_s() is None
    cell.feed.add(Output("b"))
    assert cell.feed.due_in_s() == pytest.approx(0.2, rel=0.01)
    cell.clock.now += 0.5
    assert cell.feed.due_in_s() == 0


def test_batches_become_rarer_as_the_cell_fills():
    cell = Cell(max_lines=100)
    intervals = []
    for _ in range(4):
        cell.feed.add(Output("line\n" * 25))
        cell.feed.publish()
        cell.feed.add(Output("."))
        intervals.append(cell.feed.due_in_s())
    assert intervals == sorted(set(intervals))
    assert intervals[-1] == pytest.approx(1.0)


def test_neighbours_of_one_stream_become_one_write():
    cell = Cell()
    for stream, text in [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")]:
        cell.feed.add(Output(text, stream))
    cell.feed.publish()
    assert cell.written == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]


def test_streams_that_take_turns_too_often_are_published_each_by_itself():
    cell = Cell()
    for number in range(50):
        cell.feed.add(Output(f"{number} "))
        cell.feed.add(Output(".", "stderr"))
    cell.feed.publish()
    assert cell.written == [
        ("stdout", "".join(f"{number} " for number in range(50))),
        ("stderr", "." * 50),
    ]


def test_many_tiny_pieces_that_nobody_publishes_do_not_pile_up():
    cell = Cell()
    for _ in range(20_000):
        cell.feed.add(Output("o"))
        cell.feed.add(Output("e", "stderr"))
        assert len(cell.feed._pending) <= 10_000
    cell.feed.close()
    assert len(cell.text()) == 40_000


def test_a_flood_keeps_head_and_tail_and_says_what_is_missing_and_where_it_is():
    cell = Cell()
    for number in range(200_000):
        cell.feed.add(Output(f"{number}\n"))
    assert cell.feed.is_full
    cell.feed.close()
    lines = cell.text("stdout").splitlines()
    assert lines == [str(number) for number in [*range(10_000), *range(199_800, 200_000)]]
    assert cell.text("stderr") == (
        "[lyceum] 189,800 lines (1.2 MB) left out here; all of it: %lyceum logs 3f2a9c1e\n"
    )


def test_one_line_of_exactly_the_cap_arrives_whole():
    cell = Cell()
    for _ in range(10):
        cell.feed.add(Output("x" * 100_000))
    cell.feed.close()
    assert cell.text() == "x" * 1_000_000


def test_one_longer_line_is_cut_at_the_cap_and_the_notice_gets_its_own_line():
    cell = Cell()
    cell.feed.add(Output("é" * 1_000_000))
    cell.feed.close()
    head, notice, tail = (text for _, text in cell.written)
    assert len(head.encode()) == 1_000_000
    assert notice.startswith("\n[lyceum] 950.0 kB left out")
    assert len(tail.encode()) == 50_000


def test_a_little_more_than_the_cap_is_shown_whole_at_the_end():
    cell = Cell()
    cell.feed.add(Output("line\n" * 10_100))
    cell.feed.close()
    assert cell.text() == "line\n" * 10_100


@pytest.mark.parametrize("update", ["\r {:7} it", "{:7} it\r", "\r\x1b[K {:7} it"])
def test_a_progress_bar_counts_with_what_is_left_of_it(update):
    published = 0
    cell = Cell(max_bytes=20_000)
    for number in range(100_000):
        cell.feed.add(Output(update.format(number), "stderr"))
        if number % 100 == 0:
            cell.feed.publish()
            published += 1
    cell.feed.publish()
    # An escape could do anything, so a bar that uses one counts in full.
    assert cell.feed.is_full is ("\x1b" in update)
    assert cell.feed.is_full or published == len(cell.written) - 1


def test_memory_stays_bounded_whatever_comes():
    cell = Cell(max_bytes=10_000, max_lines=100)
    for _ in range(1000):
        cell.feed.add(Output("y" * 100_000))
        cell.feed.add(Output("z", "stderr"))
    tail = cell.feed._tail
    assert tail is not None
    assert sum(len(text) for _, text, _ in tail._pieces) <= 2 * 50_000


def test_halves_of_characters_are_joined_or_replaced():
    cell = Cell()
    cell.feed.add(Output("\ud83d\ude00 \ud83d"))
    cell.feed.publish()
    assert cell.text() == "😀 �"


def test_an_interrupt_while_text_goes_out_costs_none_of_the_rest():
    written = []

    def write(stream, text):
        written.append(text)
        if len(written) == 1:
            raise KeyboardInterrupt

    feed = TextFeed("", write=write, max_lines=2)
    feed.add(Output("a\n"))
    feed.add(Output("b\n", "stderr"))
    feed.add(Output("c\n"))
    with pytest.raises(KeyboardInterrupt):
        feed.publish()
    feed.close()
    assert written == ["a\n", "b\n", "c\n"]


def test_a_cap_of_nothing_shows_the_tail():
    cell = Cell(max_lines=0, max_bytes=0)
    cell.feed.add(Output("a\n"))
    cell.feed.add(Output("b\n"))
    assert cell.feed.due_in_s() is not None or cell.feed.is_full
    cell.feed.close()
    assert cell.text() == "a\nb\n"


def test_closing_twice_says_nothing_twice():
    cell = Cell(max_lines=1, tail_lines=1)
    cell.feed.add(Output("a\nb\nc\n"))
    cell.feed.close()
    count = len(cell.written)
    cell.feed.close()
    assert len(cell.written) == count


def test_text_goes_where_a_print_would_go(capsys):
    write_to_stream("stdout", "\x1b[31mred\x1b[0m\r")
    write_to_stream("stderr", "err")
    assert capsys.readouterr() == ("\x1b[31mred\x1b[0m\r", "err")


def test_a_terminal_that_cannot_show_a_character_shows_another(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    write_to_stream("stdout", "naïve")
    assert raw.getvalue() == b"na?ve"


def test_the_trail_tells_how_much_text_was_displayed_and_how_much_was_left_out(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(trail, "is_on", True)
    monkeypatch.setattr(trail, "_descriptor", trail._descriptor)  # put back at the end
    trail.write_to(tmp_path / "trail")
    cell = Cell(max_lines=1, tail_lines=1)
    cell.feed.add(Output("aé\nb\nc\n"))
    cell.feed.close()
    assert [line.split(" ", 3)[3] for line in trail.run_lines([tmp_path / "trail"])] == [
        "displayed stream=stdout bytes=4",
        "left-out bytes=2",
        "displayed stream=stdout bytes=2",
    ]
