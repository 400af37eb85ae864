"""`%lyceum attach [ID]`: show a run in this cell, and follow it to its end."""

from __future__ import annotations

from ...runs.workspace import workspace
from ..cell import run_in_cell
from ..errors import failure_of
from ..parsing import Parser
from . import RUN_ID, Call


def add_arguments(parser: Parser) -> None:
    parser.add_argument("id", nargs="?", default="last", help=RUN_ID)


def run(call: Call) -> None:
    run = workspace().attach(call.options.id)
    call.bind("_run", run)
    run_in_cell(run, call.defaults)
    if (failure := failure_of(run)) is not None:
        raise failure
