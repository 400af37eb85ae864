"""The subcommands of `%lyceum`: one module for each, which is imported when it is used.

To add a subcommand, write its module, named like it, and add its row to `SUBCOMMANDS`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from ..defaults import Bind, Defaults
from ..parsing import Parser

#: Each subcommand with its line of help, in the order in which the help lists them.
SUBCOMMANDS = {
    "login": "sign in with an API key, for this and every notebook",
    "status": "where cells run, or how one run is doing",
    "machines": "the machines and their prices",
    "list": "the newest 20 runs of this notebook, or the newest 50 of all",
    "logs": "all that a run has printed so far",
    "attach": "show a run in this cell, and follow it",
    "abort": "kill a run",
    "stop": "end a run gracefully",
    "metrics": "what a run has used: processor, memory, GPU",
    "session": "variables that last from cell to cell: list|show|diff|checkout|branch|keep|new|rm",
    "adopt": "begin a session with this notebook's variables",
    "offload": "run every following cell on Lyceum, in a session: on|off",
    "secrets": "variables that every run of this account is given",
    "storage": "the account's files, which images find in /mnt/s3",
    "callbacks": "what became of callbacks: [ID]|test URL|redeliver ID|rm ID|secret",
    "listen": "an address for callbacks from outside, and what arrives there",
    "server": "the embedded server: where it is",
    "forget": "remove ended runs and their output from this machine",
    "doctor": "look for what could be wrong here",
}

_DESCRIPTION = (
    "Look at runs, the account and the server. %lyceum SUBCOMMAND --help says what one takes."
)

#: The help of an argument that names a run.
RUN_ID = "a run: its id, the beginning of its id if that is unique, or `last`"


@dataclass(frozen=True)
class Call:
    """A line of `%lyceum`, parsed, and what it may use of the notebook."""

    options: argparse.Namespace
    defaults: Defaults
    bind: Bind


class Subcommand(Protocol):
    """The module of a subcommand."""

    def add_arguments(self, parser: Parser) -> None:
        """Add the subcommand's options and arguments. Optional: without it, there are none."""

    def run(self, call: Call) -> object:
        """Do what the line asks for.

        Returns:
            The cell's result, which the notebook shows; None if there is nothing to show.

        Raises:
            OptionError: the arguments contradict each other, or name something unknown.
            LyceumError: the server, the journal or the disk refuses.
        """


def subcommand(name: str) -> Subcommand:
    """Import the module of a subcommand."""
    return cast(Subcommand, import_module(f"{__name__}.{name}"))


def line_parser(words: Sequence[str] = ()) -> Parser:
    """Return the parser of `%lyceum`, which knows the arguments of the subcommand in `words`.

    Of the other subcommands it knows the names and the lines of help. The name of the subcommand
    becomes the member `command` of what it parses.

    Args:
        words: of the line. The first one without a dash is the subcommand's name.
    """
    parser = Parser(prog="%lyceum", description=_DESCRIPTION)
    add = parser.subcommand_adder(title="subcommands", dest="command", metavar="SUBCOMMAND")
    for name, text in SUBCOMMANDS.items():
        add(name, text)
    name = next((word for word in words if not word.startswith("-")), "")
    if name in SUBCOMMANDS and hasattr(module := subcommand(name), "add_arguments"):
        module.add_arguments(parser.subcommands[name])
    return parser
