"""The magic's line -> parsed options: a real parser, whose errors are one sentence."""

from __future__ import annotations

import argparse
import keyword
import shlex
from dataclasses import dataclass, field
from functools import cache
from typing import NoReturn

from ..exceptions import OptionError
from ..protocol.limits import MAX_LABELS, MAX_METADATA, MAX_TIMEOUT_S, MIN_TIMEOUT_S
from ..protocol.machines import is_machine_name


@dataclass(frozen=True)
class CellOptions:
    """What the line of a `%%lyceum` cell says. None: not said, so the configuration decides."""

    machine: str | None = None
    timeout_s: int | None = None
    requirements: list[str] = field(default_factory=list)
    auto_requirements: bool = True
    name: str | None = None
    labels: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    raw: bool = False
    check: bool = True
    as_name: str | None = None
    may_fail: bool = False
    dry_run: bool = False
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    pickle: bool = False
    files: list[str] = field(default_factory=list)
    save: list[str] = field(default_factory=list)
    yes: bool = False
    detach: bool = False
    budget: float | None = None
    place: str = "auto"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        magic = self.prog.split()[0]
        raise OptionError(f"{self.prog}: {message}; see `{magic}?` for the options.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise OptionError(message or f"see `{self.prog.split()[0]}?` for the options.")


def parse_cell_line(line: str) -> CellOptions:
    """The options in the line of a `%%lyceum` cell.

    Raises:
        OptionError: in one sentence, what was expected, what came and what to do.
    """
    parsed = cell_parser().parse_args(split(line, "%%lyceum"))
    if parsed.timeout is not None and not MIN_TIMEOUT_S <= parsed.timeout <= MAX_TIMEOUT_S:
        raise OptionError(
            f"-t/--timeout takes {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S} seconds, not {parsed.timeout}; "
            "split longer work into several runs."
        )
    if parsed.machine is not None and not is_machine_name(parsed.machine):
        raise OptionError(
            f"-m/--machine takes a name such as gpu.a100, not {parsed.machine!r}; "
            "`%lyceum machines` lists them."
        )
    if parsed.as_name is not None and (
        not parsed.as_name.isidentifier() or keyword.iskeyword(parsed.as_name)
    ):
        raise OptionError(f"--as takes a Python name, not {parsed.as_name!r}.")
    if len(parsed.label) > MAX_LABELS:
        raise OptionError(f"--label: at most {MAX_LABELS} labels, not {len(parsed.label)}.")
    return CellOptions(
        machine=parsed.machine,
        timeout_s=parsed.timeout,
        requirements=parsed.requirements,
        auto_requirements=not parsed.no_auto_requirements,
        name=parsed.name,
        labels=parsed.label,
        metadata=_metadata(parsed.meta),
        raw=parsed.raw,
        check=not parsed.no_check,
        as_name=parsed.as_name,
        may_fail=parsed.no_raise,
        dry_run=parsed.dry_run,
        inputs=_names("-i/--in", parsed.inputs),
        outputs=_names("-o/--out", parsed.outputs),
        pickle=parsed.pickle,
        files=parsed.files,
        save=parsed.save,
        yes=parsed.yes,
        detach=parsed.detach,
        budget=parsed.budget,
        place="local" if parsed.local else "cloud" if parsed.cloud else "auto",
    )


def _names(option: str, lists: list[str]) -> list[str]:
    """The names in comma-separated lists, each once, in their order."""
    names = [name.strip() for text in lists for name in text.split(",") if name.strip()]
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise OptionError(f"{option} takes names such as a,b, not {name!r}.")
    if lists and not names:
        raise OptionError(f"{option} takes names such as a,b, and none came.")
    return list(dict.fromkeys(names))


def split(line: str, prog: str) -> list[str]:
    """The words of a line by shell rules; nothing is substituted."""
    try:
        return shlex.split(line, comments=False)
    except ValueError as exc:
        raise OptionError(f"{prog}: the line cannot be split into words: {exc}.") from None


def _metadata(pairs: list[str]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"--meta takes KEY=VALUE, not {pair!r}.")
        metadata[key.strip()] = value
    # One is taken by the tag under which the client finds its run again.
    if len(metadata) > MAX_METADATA - 1:
        raise OptionError(f"--meta: at most {MAX_METADATA - 1} pairs, not {len(metadata)}.")
    return metadata


@cache
def cell_parser() -> Parser:
    """The parser of `%%lyceum`."""
    parser = Parser(
        prog="%%lyceum",
        description="Run this cell on Lyceum: on the cloud with LYCEUM_API_KEY or a login, "
        "else on the server that comes with lyceum-magic.",
        allow_abbrev=False,
        add_help=False,
        formatter_class=_Wide,
    )
    add = parser.add_argument
    add("-m", "--machine", metavar="NAME", help="machine to run on, such as cpu or gpu.a100")
    add(
        "-t",
        "--timeout",
        metavar="SECONDS",
        type=_whole_number,
        help="time limit, 1 to 600 seconds",
    )
    add(
        "-r",
        "--requirements",
        metavar="REQ",
        nargs="+",
        action="extend",
        default=[],
        help="requirement lines ('numpy>=2'), or files of them; repeat at will",
    )
    add(
        "--no-auto-requirements",
        action="store_true",
        help="do not add what the cell imports to the requirements",
    )
    add(
        "-i",
        "--in",
        dest="inputs",
        metavar="NAMES",
        action="append",
        default=[],
        help="variables to send along, such as a,b; `auto`: those that the cell reads",
    )
    add(
        "-o",
        "--out",
        dest="outputs",
        metavar="NAMES",
        action="append",
        default=[],
        help="variables to bring back, such as c,d",
    )
    add("--pickle", action="store_true", help="let values travel that only a pickle can carry")
    add(
        "--file",
        dest="files",
        metavar="PATH",
        action="append",
        default=[],
        help="a data file to send along; repeat at will",
    )
    add(
        "--save",
        metavar="GLOB",
        action="append",
        default=[],
        help="files that the cell writes, to be brought back beside the notebook",
    )
    add("--yes", action="store_true", help="send more than 1 MiB, write over files")
    add("--detach", action="store_true", help="return at once; outputs go on arriving here")
    add(
        "--budget",
        metavar="DOLLARS",
        type=_dollars,
        help="the most that the run may cost; shortens the time limit",
    )
    add("--name", metavar="TEXT", help="name of the run, shown in lists")
    add("--label", metavar="TEXT", action="append", default=[], help="a label; repeat at will")
    add("--meta", metavar="K=V", action="append", default=[], help="a fact to keep with the run")
    add(
        "--raw",
        action="store_true",
        help="send the cell as it is, without what shows its last value and its own line numbers",
    )
    add(
        "--no-check",
        action="store_true",
        help="do not compile the cell here first: for code of a newer Python",
    )
    add(
        "--as",
        dest="as_name",
        metavar="NAME",
        help="bind the run to this name; the last one is always _run",
    )
    add("--no-raise", action="store_true", help="a failed run does not stop the notebook")
    add("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--local", action="store_true", help="on the embedded server, key or not")
    place.add_argument("--cloud", action="store_true", help="on the cloud, or not at all")
    return parser


@cache
def line_parser() -> Parser:
    """The parser of `%lyceum`; `command` is the subcommand's name, None without one."""
    parser = Parser(
        prog="%lyceum",
        description="Look at runs and at the server.",
        allow_abbrev=False,
        add_help=False,
        formatter_class=_Wide,
    )
    commands = parser.add_subparsers(dest="command", metavar="SUBCOMMAND", parser_class=Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=text, add_help=False, allow_abbrev=False
        )

    one = "a run: its id, a unique beginning of it, or `last`"
    command("login", "sign in with an API key, for this and every notebook")
    command("status", "where cells run, or how one run is doing").add_argument(
        "id", nargs="?", help=one
    )
    command("machines", "the machines and their prices")
    command("list", "your active runs, or all of them").add_argument(
        "--all", action="store_true", help="those that have ended as well"
    )
    logs = command("logs", "all that a run has printed so far")
    logs.add_argument("id", nargs="?", default="last", help=one)
    logs.add_argument("--grep", metavar="TEXT", help="only the lines that hold this text")
    command("attach", "show a run in this cell, and follow it").add_argument(
        "id", nargs="?", default="last", help=one
    )
    command("abort", "kill a run").add_argument("id", help=one)
    command("stop", "end a run gracefully").add_argument("id", help=one)
    command("server", "the embedded server: where it is")
    forget = command("forget", "remove ended runs and their output from this machine")
    forget.add_argument("id", nargs="*", help=one)
    forget.add_argument("--older-than", metavar="DAYS", type=float, help="all that are older")
    forget.add_argument("--all", action="store_true", help="all that have ended")
    command("doctor", "look for what could be wrong here")
    return parser


class _Wide(argparse.HelpFormatter):
    """Help of one width everywhere: the default asks a terminal, which a kernel has not."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=96, max_help_position=32)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is expected, not {text!r}") from None


def _dollars(text: str) -> float:
    try:
        dollars = float(text.removeprefix("$"))
    except ValueError:
        dollars = float("nan")
    if not 0 < dollars < float("inf"):
        raise argparse.ArgumentTypeError(f"a sum such as 0.50 is expected, not {text!r}")
    return dollars
