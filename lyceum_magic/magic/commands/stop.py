"""`%lyceum stop ID`: end a run gracefully."""

from __future__ import annotations

from ...display.tables import Says
from ...runs.workspace import workspace
from ..parsing import Parser
from . import RUN_ID, Call


def add_arguments(parser: Parser) -> None:
    parser.add_argument("id", help=RUN_ID)


def run(call: Call) -> Says:
    run = workspace().own(call.options.id)
    return Says(f"run {run.id[:8]}: {run.stop()}")
