"""`%lyceum forget`: remove ended runs and their output from this machine."""

from __future__ import annotations

import time

from ...display.tables import Says
from ...exceptions import OptionError, UnknownRun
from ...runs.workspace import workspace
from ..parsing import Parser
from . import RUN_ID, Call

_DAY_S = 86400


def add_arguments(parser: Parser) -> None:
    parser.add_argument("id", nargs="*", help=RUN_ID)
    parser.add_argument("--older-than", metavar="DAYS", type=float, help="all that are older")
    parser.add_argument("--all", action="store_true", help="all that have ended")


def run(call: Call) -> Says:
    options = call.options
    chosen = [workspace().history.find(run_id) for run_id in options.id]
    if live := [entry for entry in chosen if not entry.is_final]:
        raise UnknownRun(
            f"Run {(live[0].run_id or '')[:8]} has not ended and is not forgotten; abort it first."
        )
    if options.all or options.older_than is not None:
        before = time.time() - (options.older_than or 0) * _DAY_S
        chosen += workspace().history.ended_before(before)
    elif not chosen:
        raise OptionError("Name the runs to forget, or say --older-than DAYS or --all.")
    workspace().forget(chosen)
    return Says(f"{len(chosen)} run{'' if len(chosen) == 1 else 's'} forgotten.")
