"""A line of `%lyceum` in, the result of its subcommand out."""

from __future__ import annotations

from ..display.tables import Says
from .commands import Call, line_parser, subcommand
from .defaults import Bind, Defaults
from .parsing import split


def run_line(line: str, defaults: Defaults, bind: Bind) -> object:
    """Run a line of `%lyceum`, and return what the cell shows as its result.

    Raises:
        OptionError: there is no such subcommand, or its arguments are wrong.
        LyceumError: see `Subcommand.run`.
    """
    words = split(line, "%lyceum")
    parser = line_parser(words)
    if {"-h", "--help"}.isdisjoint(words):
        options = parser.parse_args(words)
        if options.command is not None:
            return subcommand(options.command).run(Call(options, defaults, bind))
    for word in words:
        parser = parser.subcommands.get(word, parser)
    return Says(parser.format_help())
