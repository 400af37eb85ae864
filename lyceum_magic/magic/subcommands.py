"""The parser of `%lyceum`: which subcommands there are, and what each one takes."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import cache

from .parsing import Parser

_ONE = "a run: its id, a unique beginning of it, or `last`"


@cache
def line_parser() -> Parser:
    """The parser of `%lyceum`; `command` is the subcommand's name, None without one."""
    parser = Parser(prog="%lyceum", description="Look at runs, the account and the server.")
    add = parser.subcommand_adder(title="subcommands", dest="command", metavar="SUBCOMMAND")
    add("login", "sign in with an API key, for this and every notebook")
    status = add("status", "where cells run, or how one run is doing")
    status.add_argument("id", nargs="?", help=_ONE)
    add("machines", "the machines and their prices")
    runs = add("list", "the newest 20 runs of this notebook, or the newest 50 of all")
    runs.add_argument("--all", action="store_true", help="those of all notebooks")
    runs.add_argument("--limit", metavar="N", type=_number, help="show up to N")
    logs = add("logs", "all that a run has printed so far")
    logs.add_argument("id", nargs="?", default="last", help=_ONE)
    logs.add_argument("--grep", metavar="TEXT", help="only the lines that hold this text")
    attach = add("attach", "show a run in this cell, and follow it")
    attach.add_argument("id", nargs="?", default="last", help=_ONE)
    add("abort", "kill a run").add_argument("id", help=_ONE)
    add("stop", "end a run gracefully").add_argument("id", help=_ONE)
    metrics = add("metrics", "what a run has used: processor, memory, GPU")
    metrics.add_argument("id", nargs="?", default="last", help=_ONE)
    _add_secrets(add)
    _add_storage(add)
    _add_callbacks(add)
    add("listen", "an address for callbacks from outside, and what comes in there")
    add("server", "the embedded server: where it is")
    forget = add("forget", "remove ended runs and their output from this machine")
    forget.add_argument("id", nargs="*", help=_ONE)
    forget.add_argument("--older-than", metavar="DAYS", type=float, help="all that are older")
    forget.add_argument("--all", action="store_true", help="all that have ended")
    doctor = add("doctor", "look for what could be wrong here")
    doctor.add_argument(
        "--log", metavar="ID", nargs="?", const="", help="the debug trail, of one run or of all"
    )
    return parser


def _number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**63:
        raise ArgumentTypeError(f"a whole number from 1 on is expected, not {text!r}")
    return int(text)


def _add_secrets(add: Callable[[str, str], Parser]) -> None:
    secrets = add("secrets", "variables that every run of this account is given")
    add_action = secrets.subcommand_adder(title="actions", dest="action", metavar="list|set|rm")
    add_action("list", "their names")
    set_ = add_action("set", "keep a value, which is asked for")
    set_.add_argument("name", metavar="NAME", help="such as HF_TOKEN")
    add_action("rm", "remove one").add_argument("name", metavar="NAME")


def _add_storage(add: Callable[[str, str], Parser]) -> None:
    storage = add("storage", "the account's files, which images find in /mnt/s3")
    add_action = storage.subcommand_adder(
        title="actions", dest="action", metavar="ls|put|get|rm", required=True
    )
    add_action("ls", "list files").add_argument(
        "prefix", metavar="PREFIX", nargs="?", default="", help="only keys that begin with it"
    )
    put = add_action("put", "upload a file")
    put.add_argument("path", metavar="PATH", help="of a file here")
    put.add_argument("key", metavar="KEY", nargs="?", help="its name there; else the file's own")
    get = add_action("get", "download a file")
    get.add_argument("key", metavar="KEY")
    get.add_argument("path", metavar="PATH", nargs="?", help="a file or a folder here; else .")
    get.add_argument("--yes", action="store_true", help="write over a file that is here already")
    rm = add_action("rm", "remove a file, or all below a key that ends in /")
    rm.add_argument("key", metavar="KEY")


def _add_callbacks(add: Callable[[str, str], Parser]) -> None:
    callbacks = add(
        "callbacks", "what became of callbacks: [ID]|test URL|redeliver ID|rm ID|secret"
    )
    add_action = callbacks.subcommand_adder(title="actions", dest="action", metavar="ACTION")
    callbacks.default = "list"
    add_action("list", "all deliveries, those of a run, or one with its attempts").add_argument(
        "id", metavar="ID", nargs="?", help=f"{_ONE}; or a delivery"
    )
    add_action("test", "send a test callback").add_argument("url", metavar="URL")
    add_action("redeliver", "send again what was not delivered").add_argument(
        "id", metavar="ID", help=f"a delivery; or {_ONE}"
    )
    add_action("rm", "remove a delivery, or those of a run that were given up").add_argument(
        "id", metavar="ID", help=f"a delivery; or {_ONE}"
    )
    secret = add_action("secret", "what callbacks are signed with")
    secret.add_argument("--show", action="store_true", help="print it whole, into the notebook")
    secret.add_argument("--rotate", action="store_true", help="change it; both sign for a day")
