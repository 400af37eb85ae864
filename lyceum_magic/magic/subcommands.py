"""The parser of `%lyceum`: which subcommands there are, and what each one takes."""

from __future__ import annotations

import argparse
from functools import cache
from typing import TypeAlias

from .parsing import Parser

_Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

_ONE = "a run: its id, a unique beginning of it, or `last`"


@cache
def line_parser() -> Parser:
    """The parser of `%lyceum`; `command` is the subcommand's name, None without one."""
    parser = Parser(prog="%lyceum", description="Look at runs and at the server.")
    commands = parser.add_subparsers(dest="command", metavar="SUBCOMMAND", parser_class=Parser)
    _add(commands, "login", "sign in with an API key, for this and every notebook")
    status = _add(commands, "status", "where cells run, or how one run is doing")
    status.add_argument("id", nargs="?", help=_ONE)
    _add(commands, "machines", "the machines and their prices")
    runs = _add(commands, "list", "your active runs, or all of them")
    runs.add_argument("--all", action="store_true", help="those that have ended as well")
    logs = _add(commands, "logs", "all that a run has printed so far")
    logs.add_argument("id", nargs="?", default="last", help=_ONE)
    logs.add_argument("--grep", metavar="TEXT", help="only the lines that hold this text")
    attach = _add(commands, "attach", "show a run in this cell, and follow it")
    attach.add_argument("id", nargs="?", default="last", help=_ONE)
    _add(commands, "abort", "kill a run").add_argument("id", help=_ONE)
    _add(commands, "stop", "end a run gracefully").add_argument("id", help=_ONE)
    metrics = _add(commands, "metrics", "what a run has used: processor, memory, GPU")
    metrics.add_argument("id", nargs="?", default="last", help=_ONE)
    _add_secrets(commands)
    _add_storage(commands)
    _add(commands, "server", "the embedded server: where it is")
    forget = _add(commands, "forget", "remove ended runs and their output from this machine")
    forget.add_argument("id", nargs="*", help=_ONE)
    forget.add_argument("--older-than", metavar="DAYS", type=float, help="all that are older")
    forget.add_argument("--all", action="store_true", help="all that have ended")
    _add(commands, "doctor", "look for what could be wrong here")
    return parser


def _add_secrets(commands: _Commands) -> None:
    secrets = _add(commands, "secrets", "variables that every run of this account is given")
    actions = secrets.add_subparsers(dest="action", metavar="list|set|rm", parser_class=Parser)
    _add(actions, "list", "their names")
    set_ = _add(actions, "set", "keep a value, which is asked for")
    set_.add_argument("name", metavar="NAME", help="such as HF_TOKEN")
    _add(actions, "rm", "remove one").add_argument("name", metavar="NAME")


def _add_storage(commands: _Commands) -> None:
    storage = _add(commands, "storage", "the account's files, which images find in /mnt/s3")
    actions = storage.add_subparsers(
        dest="action", metavar="ls|put|get|rm", parser_class=Parser, required=True
    )
    _add(actions, "ls", "list files").add_argument(
        "prefix", metavar="PREFIX", nargs="?", default="", help="only keys that begin with it"
    )
    put = _add(actions, "put", "upload a file")
    put.add_argument("path", metavar="PATH", help="of a file here")
    put.add_argument("key", metavar="KEY", nargs="?", help="its name there; else the file's own")
    get = _add(actions, "get", "download a file")
    get.add_argument("key", metavar="KEY")
    get.add_argument("path", metavar="PATH", nargs="?", help="a file or a folder here; else .")
    get.add_argument("--yes", action="store_true", help="write over a file that is here already")
    rm = _add(actions, "rm", "remove a file, or all below a key that ends in /")
    rm.add_argument("key", metavar="KEY")


def _add(commands: _Commands, name: str, text: str) -> Parser:
    return commands.add_parser(name, help=text, description=text)
