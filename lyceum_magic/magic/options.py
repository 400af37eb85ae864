"""The line of a cell magic -> the spec of its run, by a parser made from the spec's class."""

from __future__ import annotations

import argparse
from functools import cache
from typing import Any, TypeVar

from ..submission.option import Option, options_of, own_first
from ..submission.specs import ComposeSpec, ImageSpec, PythonSpec, RunSpec
from .parsing import Parser, split

SpecT = TypeVar("SpecT", bound=RunSpec)

#: The spec of each cell magic, by the magic's name.
KINDS: dict[str, type[RunSpec]] = {
    kind.magic: kind for kind in (PythonSpec, ImageSpec, ComposeSpec)
}

#: The help begins with these.
_FIRST = ("machine", "timeout_s")


def read_line(kind: type[SpecT], line: str, **configured: Any) -> SpecT:
    """Return the spec of a run.

    Args:
        kind: a spec's class.
        line: the rest of the magic's first line.
        configured: values that stand where the line names none, and the cell's text; callback URLs
            are told as well as those of the line.

    Raises:
        OptionError: in one sentence, what was expected, what came and what to do.
    """
    said: dict[str, Any] = {
        **vars(parser_of(kind.magic).parse_args(split(line, f"%%{kind.magic}")))
    }
    for one, declared in options_of(kind):
        if one.name in said and declared.read is not None:
            said[one.name] = declared.read(declared.label, said[one.name])
    said["callback_urls"] = [*configured.get("callback_urls", ()), *said.get("callback_urls", ())]
    return kind.of_cell(**{**configured, **said})


@cache
def parser_of(magic: str) -> Parser:
    """Return the parser of a magic's line; its result holds only what the line says."""
    kind = KINDS[magic]
    parser = Parser(prog=f"%%{kind.magic}", description=kind.about)
    for one, declared in sorted(own_first(kind), key=lambda found: found[0].name not in _FIRST):
        _add(parser, one.name, declared)
    return parser


def _add(parser: Parser, name: str, declared: Option) -> None:
    suppressed: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
    if declared.switches:
        group = parser.add_mutually_exclusive_group()
        for flag, (value, text) in declared.switches.items():
            group.add_argument(flag, action="store_const", const=value, help=text, **suppressed)
    if not declared.flags:
        return
    argument = {**declared.argument, "help": declared.help}
    if argument.get("action") == "boolean":
        argument["action"] = argparse.BooleanOptionalAction
    if declared.flags[0].startswith("-"):
        argument |= suppressed
    action = parser.add_argument(*declared.flags, **argument)
    parser.offers[action.dest] = declared.offers or tuple(action.choices or ())
