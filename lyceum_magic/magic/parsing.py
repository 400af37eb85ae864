"""The parser of all magic lines: words by shell rules, errors of one sentence."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from ..exceptions import OptionError
from ..protocol.redaction import without_password

ActionT = TypeVar("ActionT", bound=argparse.Action)

#: Characters that word processors and web pages put in place of hyphens, quotes and spaces.
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_QUOTES = "\u2018\u2019\u201c\u201d\u201e"
_OTHER_SPACES = "\u00a0\u2007\u202f"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of ending the process, and lists its arguments.

    Attributes:
        options: flag -> its action; an option with several flags stands under each.
        positionals: arguments that stand in the line without a name, in their order.
        offers: an option's name in the result -> values to offer for completion.
        subcommands: name -> the parser of the rest of the line.
        default: the subcommand of a line that names none; None: such a line has none.
    """

    def __init__(self, **members: Any) -> None:
        self.options: dict[str, argparse.Action] = {}
        self.positionals: list[argparse.Action] = []
        self.offers: dict[str, Sequence[str]] = {}
        self.subcommands: dict[str, Parser] = {}
        self.default: str | None = None
        members = {"allow_abbrev": False, "add_help": False, "formatter_class": _Wide, **members}
        super().__init__(**members)

    def _add_action(self, action: ActionT) -> ActionT:
        # Every argument comes through here, those of groups too.
        if not action.option_strings and action.nargs != argparse.PARSER:
            self.positionals.append(action)
        self.options |= dict.fromkeys(action.option_strings, action)
        return super()._add_action(action)

    def subcommand_adder(self, **members: Any) -> Callable[[str, str], Parser]:
        """Let this parser take subcommands, as `add_subparsers` does.

        Returns:
            Adds one, by its name and a sentence of help, and returns its parser.
        """
        commands = self.add_subparsers(parser_class=Parser, **members)

        def add(name: str, text: str) -> Parser:
            parser = commands.add_parser(name, help=text, description=text)
            self.subcommands[name] = parser
            return parser

        return add

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_args(args and self._completed(self._hyphened(args)), namespace)

    def _hyphened(self, words: Sequence[str]) -> list[str]:
        """Return the words, with hyphens where an editor has put another dash before an option."""
        known = self._all_options()
        hyphened: list[str] = []
        for at, word in enumerate(words):
            if word == "--cmd":  # what follows is not ours
                return [*hyphened, *words[at:]]
            option, equals, value = word.partition("=")
            name = option.lstrip(_DASHES)
            meant = f"{'-' if len(name) == 1 else '--'}{name}"
            is_meant = not option.isascii() and option != name and meant in known
            hyphened.append(f"{meant}{equals}{value}" if is_meant else word)
        return hyphened

    def _all_options(self) -> set[str]:
        return {*self.options}.union(*(p._all_options() for p in self.subcommands.values()))

    def _completed(self, words: Sequence[str]) -> list[str]:
        """Return the words, with the subcommands' names that they leave out."""
        if not self.subcommands:
            return [*words]
        if self.default is not None and (not words or words[0] not in self.subcommands):
            words = [self.default, *words]
        below = self.subcommands.get(words[0]) if words else None
        return [*words] if below is None else [words[0], *below._completed(words[1:])]

    def error(self, message: str) -> NoReturn:
        # It may quote the line; the part of a URL after its host is often a secret.
        message = re.sub(r"(://[^/?#\s]*)[/?#]\S*", r"\1/...", without_password(message))
        magic = self.prog.split()[0]
        raise OptionError(f"{self.prog}: {message}; see `{magic}?` for the options.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise OptionError(message or f"see `{self.prog.split()[0]}?` for the options.")


class _Wide(argparse.HelpFormatter):
    """Help of a fixed width: the default asks a terminal, which a kernel does not have."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=96, max_help_position=32)


def split(line: str, prog: str) -> list[str]:
    """Return the words of a line by shell rules, up to a comment; nothing is substituted."""
    line = _without_comment(line)
    if found := _odd_quote(line):
        raise OptionError(
            f"{prog}: {found} is no quote in such a line; write \" or ' in its place."
        )
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split = True
    lexer.whitespace += _OTHER_SPACES
    lexer.commenters = ""  # to shlex, one may begin in the middle of a word
    try:
        return list(lexer)
    except ValueError as exc:
        raise OptionError(f"{prog}: the line cannot be split into words: {exc}.") from None


def _without_comment(line: str) -> str:
    for at, character in _outside_quotes(line):
        if character == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at]
    return line


def _odd_quote(line: str) -> str:
    """Return the typographic quote that begins a word or a value; empty if there is none."""
    for at, character in _outside_quotes(line):
        if re.search(r"\s--cmd[\s=]*$", f" {line[:at]}"):
            break  # what follows is not ours
        if character in _QUOTES and (at == 0 or line[at - 1].isspace() or line[at - 1] == "="):
            return character
    return ""


def _outside_quotes(line: str) -> Iterator[tuple[int, str]]:
    """Yield the characters outside of shell quotes, each after its position."""
    quote = ""
    is_escaped = False
    for at, character in enumerate(line):
        if is_escaped:
            is_escaped = False
        elif character == "\\" and quote != "'":
            is_escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            yield at, character
