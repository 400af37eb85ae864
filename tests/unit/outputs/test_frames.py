"""Messages come through whatever a pipe, a server and other processes do to the text."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.outputs.frames import FrameReader, Message
from lyceum_magic.remote import frames
from lyceum_magic.submission.wrapping import wrap_cell

MARK = "0123456789ab"

#: Long ones, of which the seed alone is Hypothesis's: drawing them takes it most of its time.
long_data = st.integers(0, 2**32).map(lambda seed: Random(seed).randbytes(4000 + seed % 5000))
long_texts = st.integers(0, 2**32).map(
    lambda seed: "".join(
        Random(seed).choices("~@lyceum:0 1/ab\n\r\x1b\0é€😀", k=2000 + seed % 3000)
    )
)
heads = st.dictionaries(
    st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())
)
messages = st.builds(
    Message,
    kind=st.sampled_from(["display", "clear", "value"]),
    head=heads,
    data=st.binary() | long_data,
    readable=st.text() | long_texts,
)
#: Texts as programs print them: with line feeds, and with pieces of a frame.
prints = st.text(st.sampled_from("~@lyceum:0 1/ab\n\r€")) | st.text()
programs = st.lists(prints | messages, max_size=6)


def written(program: list[str | Message]) -> list[str]:
    """The lines and prints that a program writes, each by itself."""
    pieces: list[str] = []
    for number, item in enumerate(program):
        if isinstance(item, str):
            pieces.append(item)
        else:
            lines = frames.encode(
                MARK, item.kind, f"1.{number}", item.head, item.data, item.readable
            )
            assert all(len(line) <= frames.MAX_FRAME_BYTES for line in lines)
            pieces += [line.decode() for line in lines]
    return pieces


def read(pieces: list[str]) -> tuple[str, list[Message]]:
    """The text and the messages that arrive."""
    decoder = FrameReader(MARK)
    items = [item for piece in pieces for item in decoder.feed(piece)] + decoder.close()
    text = "".join(item for item in items if isinstance(item, str))
    return text, [item for item in items if isinstance(item, Message)]


def facts(items: list[str | Message] | list[Message]) -> list[tuple[object, ...]]:
    # What a reader of plain text sees is not the same to the letter: it cannot hold the end mark.
    return [(m.kind, m.head, m.data) for m in items if isinstance(m, Message)]


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@given(programs, st.lists(st.integers(0), max_size=30))
def test_every_cut_gives_the_same(program: list[str | Message], places: list[int]) -> None:
    text, found = read(cut("".join(written(program)), places))
    assert facts(found) == facts(program)
    assert text == "".join(item for item in program if isinstance(item, str))


@given(programs)
def test_one_character_at_a_time_gives_the_same(program: list[str | Message]) -> None:
    text, found = read(list("".join(written(program))))
    assert facts(found) == facts(program)
    assert text == "".join(item for item in program if isinstance(item, str))


@given(programs, st.lists(st.integers(0), max_size=30), st.sampled_from(["\n", "\r\n"]))
def test_line_feeds_that_come_in_change_no_message(
    program: list[str | Message], places: list[int], line_feed: str
) -> None:
    text, found = read([line_feed.join(cut("".join(written(program)), places))])
    assert facts(found) == facts(program)
    printed = "".join(item for item in program if isinstance(item, str))
    assert without_line_feeds(text) == without_line_feeds(printed)


@given(programs)
def test_line_feeds_that_go_change_no_message(program: list[str | Message]) -> None:
    text, found = read(["".join(written(program)).replace("\n", "")])
    assert facts(found) == facts(program)
    printed = "".join(item for item in program if isinstance(item, str))
    assert without_line_feeds(text) == without_line_feeds(printed)


def without_line_feeds(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")


@given(st.lists(messages, max_size=3), st.lists(messages, max_size=3), st.randoms())
def test_frames_of_two_processes_may_interleave(
    here: list[str | Message], there: list[str | Message], random: object
) -> None:
    numbered = [*here, *there]
    lines = written(numbered)
    first, second = lines[: len(written(here))], lines[len(written(here)) :]
    merged: list[str] = []
    while first or second:
        take = first if first and (not second or random.random() < 0.5) else second  # type: ignore[attr-defined]
        merged += [take.pop(0), "a print between"]
    text, found = read(["".join(merged)])
    assert sorted(map(repr, facts(found))) == sorted(map(repr, facts(numbered)))
    assert text == "a print between" * len(lines)


@given(st.text(st.sampled_from("~@lyceum:0123456789ab display/\n\rf€")), st.lists(st.integers(0)))
def test_garbage_is_text(garbage: str, places: list[int]) -> None:
    garbage = garbage.replace("lyceum:", f"lyceum:{MARK}:")
    assert read(cut(garbage, places)) == (garbage, [])


@given(messages, st.integers(0), st.characters())
def test_a_damaged_frame_stays_text(message: Message, place: int, wrong: str) -> None:
    """It is shown, and nothing raises."""
    whole = "".join(written([message]))
    place %= len(whole)
    damaged = whole[:place] + wrong + whole[place + 1 :]
    text, found = read([damaged, "after\n"])
    assert "after\n" in text
    if facts(found) == facts([message]):
        return  # in what other readers see, or a line feed
    assert found == []
    at = 0
    for line in written([message]):
        hurt, at = damaged[at : at + len(line)], at + len(line)
        if hurt != line and hurt.endswith("@~\n"):  # else it goes on into the next one
            assert hurt in text


@given(messages, st.integers(1))
def test_a_cut_stream_hides_nothing(message: Message, lost: int) -> None:
    """An incomplete message shows its readable text, and how much is missing."""
    lines = written([message])
    kept = lines[: lost % len(lines)] if len(lines) > 1 else []
    text, found = read(kept)
    assert found == []
    for line in kept:
        assert line.split(":", 7)[7].removesuffix("@~\n") in text
    assert not kept or f"{len(kept)} of {len(lines)} parts" in text


@pytest.mark.parametrize("odd", ["display:1.0:1/1", "display:1.0:2/6", "value:1.0:2/5"])
def test_a_frame_that_does_not_fit_the_others_of_its_message_is_text(odd: str) -> None:
    crc = zlib.crc32(f"{odd}:payload".encode())
    stray = f"~@lyceum:{MARK}:{odd}:{crc:08x}:payload:shown@~\n"
    lines = written([Message("display", {"n": 1}, os.urandom(9000), "")])
    assert len(lines) == 5
    text, found = read([lines[4], stray, *lines[:4]])
    assert text == stray
    assert [message.head for message in found] == [{"n": 1}]


def test_what_waits_for_the_rest_of_its_message_has_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lyceum_magic.outputs.frames._MAX_MESSAGE", 10_000)
    decoder = FrameReader(MARK)
    for number in range(20):
        line = frames.encode(MARK, "display", f"1.{number}", {}, os.urandom(9000), "")[0]
        shown = decoder.feed(line.decode())
        assert bool(shown) == (number >= 3)


def test_frames_of_another_run_are_text() -> None:
    printed = "".join(written([Message("display", {}, b"", "x")])).replace(MARK, "another-mark")
    assert read([printed]) == (printed, [])


def test_without_a_mark_all_is_text() -> None:
    decoder = FrameReader("")
    assert [*decoder.feed("~@lyceum::"), *decoder.feed(""), *decoder.close()] == ["~@lyceum::"]


def test_text_is_held_back_only_where_a_frame_may_begin() -> None:
    decoder = FrameReader(MARK)
    assert decoder.feed("a ~ b ~@ c") == ["a ~ b ~@ c"]
    assert decoder.feed("d ~@lyc") == ["d "]
    assert decoder.feed("ra") == ["~@lycra"]
    assert decoder.feed(f"~@lyceum:{MARK}:display") == []
    assert decoder.feed("x" * 20_000) == [f"~@lyceum:{MARK}:display" + "x" * 20_000]


def test_text_is_not_copied_for_each_of_its_tildes() -> None:
    """Counted, not timed: what is cut out of the text at all."""

    class Counted(str):
        cut = 0

        def __getitem__(self, key: SupportsIndex | slice[Any, Any, Any]) -> str:
            piece = super().__getitem__(key)
            Counted.cut += len(piece)
            return piece

        def __radd__(self, before: str) -> Counted:
            return Counted(before + str(self))

    text = Counted("~ " * 10_000)
    assert FrameReader(MARK).feed(text) == [str(text)]
    assert Counted.cut < 3 * len(text)


def test_a_flood_that_looks_like_frames_is_read_in_linear_time() -> None:
    """Ten times the text makes about ten times the work: counted, not timed."""

    def steps(size: int) -> int:
        decoder, count = FrameReader(MARK), 0

        def trace(frame: object, event: str, arg: object) -> object:
            nonlocal count
            count += 1
            return trace

        pieces = [f"~@lyceum:{MARK}:~@" * 10] * size
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            for piece in pieces:
                decoder.feed(piece)
        finally:
            sys.settrace(None)
        return count

    assert steps(1000) < 15 * steps(100)


def test_processes_that_share_a_pipe_do_not_tear_frames(tmp_path: Path) -> None:
    cell = (
        "import os\n"
        "children = [os.fork() for _ in range(3)]\n"
        "for n in range(50):\n"
        "    display('x' * 4000)\n"
        "    os.write(1, b'print\\n')\n"
        "if all(children):\n"
        "    for child in children: os.waitpid(child, 0)\n"
        "else:\n"
        "    os._exit(0)\n"
    )
    script = tmp_path / "cell.py"
    script.write_text(wrap_cell(cell, mark=MARK))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, timeout=60
    )
    text, found = read([done.stdout])
    forks = 8  # three forks in a row
    assert len(found) == 50 * forks
    assert text == "print\n" * 50 * forks
    assert done.stderr == ""


def test_frames_leave_even_where_the_program_points_stdout_elsewhere(tmp_path: Path) -> None:
    script = tmp_path / "cell.py"
    cell = "import os\nos.dup2(os.open(os.devnull, os.O_WRONLY), 1)\nprint('gone')\ndisplay(1)"
    script.write_text(wrap_cell(cell, mark=MARK))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, timeout=60
    )
    text, found = read([done.stdout])
    assert text == ""
    assert [message.kind for message in found] == ["display"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_frame_is_written_behind_the_text_before_it(tmp_path: Path) -> None:
    script = tmp_path / "cell.py"
    script.write_text(
        wrap_cell("print('a', end='')\ndisplay(1)\nprint('b', end='')\ndisplay(2)", mark=MARK)
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, timeout=60
    )
    decoder = FrameReader(MARK)
    items = [*decoder.feed(done.stdout), *decoder.close()]
    assert [item if isinstance(item, str) else item.kind for item in items] == [
        "a",
        "display",
        "b",
        "display",
    ]
