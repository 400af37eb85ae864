"""The line of a cell magic -> parsed options: a real parser, whose errors are one sentence."""

from __future__ import annotations

import argparse
import keyword
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from ..exceptions import OptionError
from ..protocol.limits import (
    MAX_GRACE_S,
    MAX_LABELS,
    MAX_METADATA,
    MAX_TIMEOUT_S,
    MIN_GRACE_S,
    MIN_TIMEOUT_S,
)
from ..protocol.machines import is_machine_name
from .parsing import Parser, dollars, pairs, split, whole_number

if TYPE_CHECKING:
    from ..protocol.requests import EntryPoint


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the line of every cell magic may say. None: not said, so the configuration decides."""

    machine: str | None = None
    timeout_s: int | None = None
    name: str | None = None
    labels: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    callback_urls: list[str] = field(default_factory=list, repr=False)
    detach: bool = False
    as_name: str | None = None
    may_fail: bool = False
    dry_run: bool = False
    budget: float | None = None
    place: str = "auto"


@dataclass(frozen=True, kw_only=True)
class CellOptions(RunOptions):
    """What the line of a `%%lyceum` cell says."""

    requirements: list[str] = field(default_factory=list)
    auto_requirements: bool = True
    raw: bool = False
    check: bool = True
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    pickle: bool = False
    files: list[str] = field(default_factory=list)
    save: list[str] = field(default_factory=list)
    yes: bool = False


@dataclass(frozen=True, kw_only=True)
class RegistryOptions:
    """Who pulls the images.

    Attributes:
        password_env: the variable of this process that holds the password; None asks for it.
    """

    kind: Literal["basic", "aws"]
    user: str = ""
    password_env: str | None = None
    region: str | None = None


@dataclass(frozen=True, kw_only=True)
class ComposeOptions(RunOptions):
    """What the line of a `%%lyceum_compose` cell says."""

    s3: bool = False
    registry: RegistryOptions | None = None
    graceful_timeout_s: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImageOptions(ComposeOptions):
    """What the line of a `%%lyceum_image` cell says.

    Attributes:
        python: the cell is Python.
        check: whether that Python is compiled here first.
        entry_point: None: the usual one for what the cell is.
        words: the line's own command; None where it has none, empty where the cell is one.
    """

    image: str
    env: dict[str, str] = field(default_factory=dict, repr=False)
    user: str | None = None
    entry_point: EntryPoint | None = None
    init: bool = True
    s3: bool = True
    s3_path: str = "/mnt/s3"
    python: bool = False
    check: bool = True
    words: list[str] | None = None


def parse_cell_line(line: str) -> CellOptions:
    """The options in the line of a `%%lyceum` cell.

    Raises:
        OptionError: in one sentence, what was expected, what came and what to do.
    """
    parsed = cell_parser().parse_args(split(line, "%%lyceum"))
    return CellOptions(
        **_run_options(parsed),
        # Between names, a comma; inside of a requirement, it is not the last character.
        requirements=[word.rstrip(",") or word for word in parsed.requirements],
        auto_requirements=not parsed.no_auto_requirements,
        raw=parsed.raw,
        check=not parsed.no_check,
        inputs=_names("-i/--in", parsed.inputs),
        outputs=_names("-o/--out", parsed.outputs),
        pickle=parsed.pickle,
        files=parsed.files,
        save=parsed.save,
        yes=parsed.yes,
    )


def parse_image_line(line: str) -> ImageOptions:
    """The options in the line of a `%%lyceum_image` cell; raises as `parse_cell_line`."""
    parsed = image_parser().parse_args(split(line, "%%lyceum_image"))
    if parsed.python and parsed.cmd is not None:
        raise OptionError("--python and --cmd say both what the cell is: choose one of them.")
    return ImageOptions(
        **_run_options(parsed),
        **_container_options(parsed),
        image=parsed.image,
        env=pairs("--env", parsed.env, "; `%lyceum secrets set` keeps what is secret"),
        user=parsed.user,
        entry_point=parsed.entrypoint,
        init=not parsed.no_init,
        s3_path=parsed.s3_path,
        python=parsed.python,
        check=not parsed.no_check,
        words=parsed.cmd,
    )


def parse_compose_line(line: str) -> ComposeOptions:
    """The options in the line of a `%%lyceum_compose` cell; raises as `parse_cell_line`."""
    parsed = compose_parser().parse_args(split(line, "%%lyceum_compose"))
    return ComposeOptions(**_run_options(parsed), **_container_options(parsed))


def _run_options(parsed: argparse.Namespace) -> dict[str, Any]:
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
    metadata = pairs("--meta", parsed.meta)
    # One is taken by the tag under which the client finds its run again.
    if len(metadata) > MAX_METADATA - 1:
        raise OptionError(f"--meta: at most {MAX_METADATA - 1} pairs, not {len(metadata)}.")
    return {
        "machine": parsed.machine,
        "timeout_s": parsed.timeout,
        "name": parsed.name,
        "labels": parsed.label,
        "metadata": metadata,
        "callback_urls": parsed.callback,
        "detach": parsed.detach,
        "as_name": parsed.as_name,
        "may_fail": parsed.no_raise,
        "dry_run": parsed.dry_run,
        "budget": parsed.budget,
        "place": "local" if parsed.local else "cloud" if parsed.cloud else "auto",
    }


def _container_options(parsed: argparse.Namespace) -> dict[str, Any]:
    grace_s = parsed.graceful_timeout
    if grace_s is not None and not MIN_GRACE_S <= grace_s <= MAX_GRACE_S:
        raise OptionError(
            f"--graceful-timeout takes {MIN_GRACE_S} to {MAX_GRACE_S} seconds, not {grace_s}."
        )
    return {
        "s3": parsed.s3,
        "registry": _registry_options(parsed),
        "graceful_timeout_s": grace_s,
    }


def _registry_options(parsed: argparse.Namespace) -> RegistryOptions | None:
    only_for = {
        "--registry-user": ("basic", parsed.registry_user),
        "--registry-password-env": ("basic", parsed.registry_password_env),
        "--aws-region": ("aws", parsed.aws_region),
    }
    for option, (kind, value) in only_for.items():
        if value is not None and parsed.registry != kind:
            raise OptionError(f"{option} belongs to --registry {kind}; add it, or leave both.")
    if parsed.registry == "basic" and not parsed.registry_user:
        raise OptionError("--registry basic needs --registry-user NAME.")
    if parsed.registry is None:
        return None
    return RegistryOptions(
        kind=parsed.registry,
        user=parsed.registry_user or "",
        password_env=parsed.registry_password_env,
        region=parsed.aws_region,
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


@cache
def cell_parser() -> Parser:
    """The parser of `%%lyceum`."""
    parser = Parser(
        prog="%%lyceum",
        description="Run this cell on Lyceum: on the cloud with LYCEUM_API_KEY or a login, "
        "else on the server that comes with lyceum-magic.",
    )
    add = parser.add_argument
    _add_machine(parser)
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
        nargs="+",
        action="extend",
        default=[],
        help="variables to send along, such as a,b; `auto`: those that the cell reads",
    )
    add(
        "-o",
        "--out",
        dest="outputs",
        metavar="NAMES",
        nargs="+",
        action="extend",
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
    add(
        "--raw",
        action="store_true",
        help="send the cell as it is, without what shows its last value and its own line numbers",
    )
    _add_no_check(parser)
    _add_run(parser)
    return parser


@cache
def image_parser() -> Parser:
    """The parser of `%%lyceum_image`."""
    parser = Parser(
        prog="%%lyceum_image",
        description="Run this cell in a Docker image on Lyceum. The cell is a script for the "
        "image's shell, `sh -c`: its last command decides how the run ends, and `set -e` in its "
        "first line lets every command. `%lyceum_image IMAGE`, a line without a cell, runs "
        "the image's own command. An entry point that prepares the container and execs its "
        "arguments runs the script; any other is left out. Other commands are its arguments, as "
        "with `docker run`. --entrypoint chooses.",
    )
    add = parser.add_argument
    add("image", metavar="IMAGE", help="such as python:3.12-slim or registry.example/team/app:1")
    _add_machine(parser)
    add("--python", action="store_true", help="the cell is Python, for the image's own python3")
    _add_no_check(parser)
    add(
        "--cmd",
        metavar="WORD",
        nargs=argparse.REMAINDER,
        help="run no shell: the rest of the line, or else the cell, is a command and its "
        "arguments by shell quoting; comes last",
    )
    add("--env", metavar="K=V", action="append", default=[], help="a variable; repeat at will")
    add("--user", metavar="USER", help="who runs it there: a name, 1000 or 1000:1000")
    add(
        "--entrypoint",
        choices=["auto", "keep", "skip"],
        help="the image's entry point: give it the command as arguments, leave it out, or (auto, "
        "the default for scripts and --python) leave it out where it would not run the command",
    )
    add(
        "--no-init",
        action="store_true",
        help="the program itself is process 1: for images with an init of their own (s6-overlay)",
    )
    add("--s3-path", metavar="PATH", default="/mnt/s3", help="where the storage is mounted")
    _add_container(parser, s3=True)
    _add_run(parser)
    return parser


@cache
def compose_parser() -> Parser:
    """The parser of `%%lyceum_compose`."""
    parser = Parser(
        prog="%%lyceum_compose",
        description="Run this cell, a Docker Compose file, as a stack on Lyceum. It ends when "
        "every job has ended that no other service depends on: a service with no restart policy, "
        "or with `on-failure`. The rest is stopped then. It fails with the first exit code that is "
        "not 0 of a service that ended by itself.",
    )
    _add_machine(parser)
    _add_container(parser, s3=False)
    _add_run(parser)
    return parser


#: Each cell magic's parser, by the magic's name.
CELL_PARSERS = {
    "lyceum": cell_parser,
    "lyceum_image": image_parser,
    "lyceum_compose": compose_parser,
}


def _add_machine(parser: Parser) -> None:
    add = parser.add_argument
    add("-m", "--machine", metavar="NAME", help="machine to run on, such as cpu or gpu.a100")
    add(
        "-t",
        "--timeout",
        metavar="SECONDS",
        type=whole_number,
        help=f"time limit, {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S} seconds",
    )


def _add_no_check(parser: Parser) -> None:
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="do not compile the cell here first: for code of a newer Python",
    )


def _add_container(parser: Parser, *, s3: bool) -> None:
    add = parser.add_argument
    usual = "" if s3 else "not "
    add(
        "--s3",
        action=argparse.BooleanOptionalAction,
        default=s3,
        help=f"mount the account's storage; it is {usual}mounted where nothing is said",
    )
    add("--registry", choices=["basic", "aws"], help="sign in to the images' registry")
    add("--registry-user", metavar="NAME", help="the user of a basic registry")
    add(
        "--registry-password-env",
        metavar="NAME",
        help="the variable of this process that holds the user's password; else it is asked for",
    )
    add("--aws-region", metavar="REGION", help="of an aws registry; boto3 finds the keys here")
    add(
        "--graceful-timeout",
        metavar="SECONDS",
        type=whole_number,
        help=f"time to end between SIGTERM and SIGKILL, {MIN_GRACE_S} to {MAX_GRACE_S} seconds",
    )


def _add_run(parser: Parser) -> None:
    add = parser.add_argument
    add("--detach", action="store_true", help="return at once; outputs go on arriving here")
    add(
        "--budget",
        metavar="DOLLARS",
        type=dollars,
        help="the most that the run may cost; shortens the time limit",
    )
    add("--name", metavar="TEXT", help="name of the run, shown in lists")
    add("--label", metavar="TEXT", action="append", default=[], help="a label; repeat at will")
    add("--meta", metavar="K=V", action="append", default=[], help="a fact to keep with the run")
    add(
        "--callback",
        metavar="URL",
        action="append",
        default=[],
        help="an https URL that is told of the run's end, or `here`: this notebook; repeat at will",
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
