"""A transfer shows a bar where it can, and one line at its end everywhere."""

from __future__ import annotations

import io
import sys

import pytest

from lyceum_magic.display import progress
from lyceum_magic.display.progress import ProgressBar, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (1234, "1.23 kB"),
     (999_499, "999 kB"), (999_500, "1 MB"), (8.2e9, "8.2 GB"), (5e15, "5e+03 TB")],
)  # fmt: skip
def test_sizes_have_few_digits(count: float, words: str) -> None:
    assert size(count) == words


def test_where_there_is_no_terminal_one_line_comes_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0)
    bar = ProgressBar("put x", 100)
    bar.done = 50
    bar.show()
    bar.finish("done")
    assert capsys.readouterr().out == "done\n"


def test_a_terminal_has_a_line_that_rewrites_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    bar = ProgressBar("put x", 2000)
    bar.done = 500
    bar.show()
    bar.done = 2000
    bar.show()
    bar.finish("done")
    first, second, last = terminal.getvalue().split("\r")[1:]
    assert first == f"put x  {'█' * 7}{'░' * 23} 500 bytes of 2 kB"
    assert second == f"put x  {'█' * 30} 2 kB of 2 kB"
    assert last == "\x1b[Kdone\n"


def test_a_short_transfer_shows_its_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 1e9)
    monkeypatch.setattr(sys, "stdout", terminal)
    bar = ProgressBar("put x")
    bar.show()
    bar.finish("done")
    assert terminal.getvalue() == "done\n"


def test_a_size_that_nobody_knows_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0)
    monkeypatch.setattr(sys, "stdout", terminal)
    bar = ProgressBar("get x")
    bar.done = 5
    bar.show()
    bar.leave()
    assert terminal.getvalue() == "\rget x  5 bytes\n"
