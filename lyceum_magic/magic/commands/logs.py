"""`%lyceum logs [ID]`: all that a run has printed so far, or only the lines that hold a text."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import TextIO, assert_never

from ...outputs import tracebacks
from ...outputs.decoding import (
    ClearOutput,
    Decoded,
    Display,
    Raised,
    SavedFile,
    SessionInterrupted,
    SessionSaved,
    Value,
)
from ...protocol.events import Output
from ...runs.backlog import Backlog
from ...runs.workspace import workspace
from ..parsing import Parser
from . import RUN_ID, Call

#: The pause after which the output of a live run counts as read up to now.
CAUGHT_UP_S = 1.0

#: Characters of output in one message to the notebook. While a kernel is busy printing, it would
#: make a single message of the whole log, and take several times its size for that.
MESSAGE_CHARS = 1_000_000


def add_arguments(parser: Parser) -> None:
    parser.add_argument("id", nargs="?", default="last", help=RUN_ID)
    parser.add_argument("--grep", metavar="TEXT", help="only the lines that hold this text")


def run(call: Call) -> None:
    asked_at = time.time()
    run = workspace().attach(call.options.id)
    before, backlog = run.watch()
    with closing(backlog):
        show = _Printer(call.options.grep)
        for item in chain(before, _until(asked_at, backlog)):
            show(item)
    show.end()


def _until(moment: float, backlog: Backlog) -> Iterator[Decoded]:
    """Yield the outputs that arrive, until one is later than a moment, or no more come for now."""
    while items := backlog.get(CAUGHT_UP_S):
        for item in items:
            if isinstance(item, Output | Display) and (item.timestamp or 0) > moment:
                return
            if isinstance(item, Decoded):
                yield item


class _Printer:
    """A printer of a run's outputs as text: all of it, or the lines that hold a text."""

    def __init__(self, grep: str | None) -> None:
        self._grep = grep
        self._rest = ""
        self._waiting = 0  # characters

    def __call__(self, item: Decoded) -> None:
        match item:
            case Output():
                self._print_text(item.text, item.stream)
            case Raised(error):
                self._print_text(tracebacks.text(error), "stderr")
            case ClearOutput() | Value() | SavedFile() | SessionSaved() | SessionInterrupted():
                pass
            case Display():
                shown = item.data.get("text/plain")
                if isinstance(shown, str):
                    self._print_text(f"{shown}\n", "stdout")
            case _:
                assert_never(item)

    def _print_text(self, text: str, name: str) -> None:
        if self._grep is None:
            self._write(text, sys.stderr if name == "stderr" else sys.stdout)
            return
        *lines, self._rest = (self._rest + text).split("\n")
        self._write("".join(f"{line}\n" for line in lines if self._grep in line), sys.stdout)

    def _write(self, text: str, stream: TextIO) -> None:
        stream.write(text)
        self._waiting += len(text)
        if self._waiting >= MESSAGE_CHARS:
            self._waiting = 0
            stream.flush()

    def end(self) -> None:
        if self._grep is not None and self._rest and self._grep in self._rest:
            sys.stdout.write(f"{self._rest}\n")
        sys.stdout.flush()
