"""`%lyceum list`: the newest runs of this notebook, or of all."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError

from ...display.summary import duration
from ...display.tables import Table
from ...journal.journal import Entry
from ...protocol import money
from ...runs.workspace import workspace
from ..parsing import Parser
from . import Call

#: Maximum of runs that are shown, of this notebook and of all, unless the line names a limit.
OWN_RUNS, ALL_RUNS = 20, 50


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--all", action="store_true", help="those of all notebooks")
    parser.add_argument("--limit", metavar="N", type=_limit, help="show up to N")


def _limit(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**63:
        raise ArgumentTypeError(f"a whole number of at least 1 is expected, not {text!r}")
    return int(text)


def run(call: Call) -> Table:
    are_all = call.options.all
    limit = call.options.limit or (ALL_RUNS if are_all else OWN_RUNS)
    history = workspace().history
    entries = workspace().runs.as_now((history.entries if are_all else history.of_notebook)(limit))
    now = time.time()
    head = ["run", "state", "machine", "name", "took", "started", "where", "reason"]
    rows = [_row(entry, now) for entry in entries]
    if any(entry.cost(now) is not None for entry in entries):
        head.insert(5, "cost")
        for entry, row in zip(entries, rows, strict=True):
            row.insert(5, _cost(entry, now))
    title = _title(len(entries), history.count(is_of_notebook=not are_all), are_all)
    empty = "no runs" if are_all else "no runs of this notebook; --all shows all others"
    return Table(head, rows, title=title, empty=empty)


def _row(entry: Entry, now: float) -> list[str]:
    return [
        (entry.run_id or "–")[:8],
        entry.state,
        entry.machine,
        entry.name,
        duration((entry.ended_at or now) - entry.created_at),
        f"{duration(now - entry.created_at)} ago",
        "LOCAL" if entry.is_embedded else entry.base_url,
        entry.reason,
    ]


def _cost(entry: Entry, now: float) -> str:
    cost = entry.cost(now)
    return "" if cost is None else money.spent(cost, is_billed=entry.billed is not None)


def _title(shown: int, there_are: int, are_all: bool) -> str:
    """Say which runs a list has; nothing if it is empty."""
    if not shown:
        return ""
    whose = "" if are_all else " of this notebook"
    if shown < there_are:
        said = f"the newest {shown} of {there_are:,} runs{whose}; --limit N shows more"
        return said if are_all else f"{said}, --all those of all notebooks"
    said = f"all {there_are:,} runs" if there_are > 1 else "the only run"
    return f"{said}{whose}" if are_all else f"{said}{whose}; --all shows those of all notebooks"
