"""The options of the three kinds of run.

This is the one place where an option stands; see `option` for what is made of it. A spec's instance
is what was chosen for one run, by a magic's line or by the arguments of `submit*`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..exceptions import OptionError
from ..protocol.callbacks import HERE
from ..protocol.limits import (
    MARK_CHARACTERS,
    MAX_GRACE_S,
    MAX_LABELS,
    MAX_METADATA,
    MAX_TIMEOUT_S,
    MIN_GRACE_S,
    MIN_TIMEOUT_S,
)
from ..protocol.machines import MACHINES, is_machine_name
from ..protocol.redaction import HiddenText, hidden_urls, origin_of
from ..protocol.session_names import is_session_name
from .option import (
    at_most,
    between,
    dollars,
    line_option,
    one_of,
    option,
    options_of,
    problem_of_budget,
    problem_of_name,
    read_names,
    read_pairs,
    read_requirements,
    spec,
    whole_number,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..protocol.requests import EntryPoint


#: The word for the notebook's own session, as the trait and `%lyceum session` take it too.
OWN_SESSION = "notebook"


def _problem_of_session(value: object) -> str:
    if value in (None, "") or is_session_name(value):
        return ""
    return f"takes a name of a-z, 0-9, '.', '_' and '-', such as train, not {value!r}"


def _session_option() -> Any:
    return line_option(
        "--session", default=None, metavar="NAME", nargs="?", const=OWN_SESSION,
        switches={"--no-session": ("", "keep no variables, whatever is configured")},
        help="go on with the variables of the earlier cells of this session, and keep them for "
        "the next one; without a name it is this notebook's session",
        more="`c.LyceumMagics.session` names one for all cells.", problem=_problem_of_session,
        row="session", text=lambda chosen: chosen.session or "",
    )  # fmt: skip


_NO_CHECK = "do not compile the cell here first: for code of a newer Python"


def _problem_of_machine(value: object) -> str:
    if isinstance(value, str) and is_machine_name(value):
        return ""
    return f"takes a name such as gpu.a100, not {value!r}; `%lyceum machines` lists them"


def _origin(url: str) -> str:
    return url if url == HERE else origin_of(url)


# An option is easier to read with its facts side by side.
# fmt: off


@spec
class RunSpec:
    """The options of every run.

    Attributes:
        is_cell: whether a magic's line has chosen them, rather than the arguments of `submit*`.
        has_line: whether the line is the cell's first; not if `%lyceum offload` has written it.
        tag: the text under which the client finds the run again.
    """

    magic: ClassVar[str]
    about: ClassVar[str]
    #: Options that take a text or several of them; kept as a tuple.
    several: ClassVar[tuple[str, ...]] = ()

    is_cell: bool = field(default=False, init=False, compare=False)
    has_line: bool = field(default=True, init=False, compare=False, repr=False)
    tag: str = field(
        default_factory=lambda: uuid.uuid4().hex, init=False, compare=False, repr=False
    )

    machine: str = option(
        "-m", "--machine", default="cpu", kw_only=False, metavar="NAME",
        help="machine to run on, such as cpu or gpu.a100",
        doc="a name that `%lyceum machines` lists", offers=MACHINES, problem=_problem_of_machine,
        wire="execution_type",
    )
    timeout_s: int = option(
        "-t", "--timeout", default=MAX_TIMEOUT_S, metavar="SECONDS", type=whole_number,
        help=f"time limit, {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S} seconds",
        problem=between(MIN_TIMEOUT_S, MAX_TIMEOUT_S, "; split longer work into several runs"),
        wire="timeout",
    )
    detach: bool = line_option(
        "--detach", default=False, help="return at once; outputs go on arriving under the cell",
    )
    budget: float | None = option(
        "--budget", default=None, metavar="DOLLARS", type=dollars, problem=problem_of_budget,
        help="the most that the run may cost, in dollars; shortens the time limit",
    )
    name: str | None = option(
        "--name", default=None, metavar="TEXT", help="name of the run, shown in lists", row="name",
        wire="run_name",
    )
    labels: Sequence[str] = option(
        "--label", default=(), metavar="TEXT", action="append",
        help="a label, shown in lists; repeat it for more", doc="labels, shown in lists",
        problem=at_most(MAX_LABELS, "labels"), row="labels", wire="labels",
        to_wire=lambda labels: list(labels) or None,
    )
    metadata: Mapping[str, str] | None = option(
        "--meta", default=None, metavar="K=V", action="append", read=read_pairs(),
        help="a fact to keep with the run; repeat it for more", doc="facts to keep with the run",
        # One pair is the tag. Whatever else is put into the metadata counts here.
        problem=at_most(MAX_METADATA - 1, "pairs"), row="metadata",
    )
    callback_urls: str | Sequence[str] = option(
        "--callback", default=(), repr=False, metavar="URL", action="append",
        help="an https URL (http to this machine) that is told of the run's end, or `here`: this "
        "notebook; repeat it for more",
        doc='https URLs that are told of the run\'s end; "here" is this process, see '
        "`Run.wait_callback`",
        more="`c.LyceumMagics.callback_urls` names some for all runs.", row="callbacks",
        text=lambda chosen: "\n".join(map(_origin, chosen.callback_urls)),
    )
    as_name: str | None = line_option(
        "--as", default=None, metavar="NAME", problem=problem_of_name,
        help="bind the run to this name; the last run is always `_run`",
    )
    may_fail: bool = line_option(
        "--no-raise", default=False, help="a failed run does not stop the notebook",
    )
    dry_run: bool = line_option(
        "--dry-run", default=False, help="show what would be sent, and send nothing",
    )
    place: str = option(
        default="auto", problem=one_of("auto", "local", "cloud"),
        switches={
            "--local": ("local", "run on the embedded server, even with an account"),
            "--cloud": ("cloud", "run on the cloud, or fail"),
        },
        help="where to run",
        doc='"local" (embedded server), "cloud", or "auto": the cloud if there is an account',
    )

    def __post_init__(self) -> None:
        self._set(callback_urls=tuple(hidden_urls(self.callback_urls)), labels=tuple(self.labels))
        for name in self.several:
            texts = getattr(self, name)
            if isinstance(texts, str):
                self._set(**{name: (texts,)})
            elif isinstance(texts, Iterable):
                self._set(**{name: tuple(texts)})

    @classmethod
    def of_cell(cls, **chosen: Any) -> Self:
        """Return the spec of a cell.

        Raises:
            OptionError: a value is wrong.
        """
        of_line = {one.name for one in fields(cls) if not one.init} & set(chosen)
        rest = {name: chosen.pop(name) for name in of_line}
        made = cls(**chosen)
        made._set(is_cell=True, **rest)
        made.validate()
        return made

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def mark(self) -> str:
        """The text that tells the run's frames from other output."""
        return self.tag[:MARK_CHARACTERS]

    @property
    def first_line(self) -> int:
        """The number of the first line of the run's text; a cell counts its magic line."""
        return 2 if self.is_cell and self.has_line else 1

    def called(self, name: str, value: str = "") -> str:
        """Return an option as its user writes it: `--registry basic`, or `registry="basic"`."""
        if self.is_cell:
            label = next(known.label for one, known in options_of(self) if one.name == name)
            return f"{label} {value}" if value else label
        return f'{name}="{value}"' if value else name

    def validate(self) -> None:
        """Check the values.

        Raises:
            OptionError: a value is wrong; one sentence names the option as the user wrote it.
        """
        for one, known in options_of(self):
            if known.problem and (problem := known.problem(getattr(self, one.name))):
                raise OptionError(f"{self.called(one.name)} {problem}.")


@spec
class _PythonText:
    """The text of a run of Python."""

    code: str = option(kw_only=False, help="the text of a cell below its `%%lyceum` line")


@spec
class PythonSpec(RunSpec, _PythonText):
    """The options of a run of Python code."""

    magic = "lyceum"
    about = (
        "Run this cell on Lyceum: on the cloud with LYCEUM_API_KEY or a login, else on the server "
        "that comes with lyceum-magic."
    )
    several = ("requirements", "outputs", "files", "save")

    requirements: str | Sequence[str] = option(
        "-r", "--requirements", default=(), metavar="REQ", nargs="+", action="extend",
        read=read_requirements,
        help="requirement lines ('numpy>=2'), or files of them; repeat it for more",
        doc="a requirement line or the path of a requirements file, or several of them",
    )
    auto_requirements: bool = option(
        "--no-auto-requirements", default=True,
        help="do not add what the cell imports to the requirements",
        doc="whether to add what the code imports to the requirements",
    )
    input_names: Sequence[str] = line_option(
        "-i", "--in", default=(), metavar="NAMES", nargs="+", action="extend", read=read_names,
        help="variables to send along, such as a,b; `auto`: those that the cell reads",
    )
    inputs: Mapping[str, object] | None = option(
        default=None, repr=False,
        help="name -> value, for the code's namespace; at most 10 MiB together with `files`",
    )
    outputs: str | Sequence[str] = option(
        "-o", "--out", default=(), metavar="NAMES", nargs="+", action="extend", read=read_names,
        help="variables to bring back, such as c,d",
        doc="names of the values to bring back, as `run.values`",
    )
    allow_pickle: bool = option(
        "--pickle", default=False, help="let values travel that only a pickle can carry",
    )
    files: str | Sequence[str] = option(
        "--file", default=(), metavar="PATH", action="append",
        help="a data file or folder to send along; repeat it for more",
        doc="paths of files or folders at or below the current folder, to send along",
    )
    save: str | Sequence[str] = option(
        "--save", default=(), metavar="GLOB", action="append",
        help="files that the cell writes, to be brought back beside the notebook",
        doc="patterns of the files that the code writes, to bring back as `run.files`",
    )
    session: str | None = _session_option()
    yes: bool = line_option(
        "--yes", default=False,
        help="send more than 1 MiB, write over files, go on with the state of a session that "
        "another machine has written",
    )
    raw: bool = option(
        "--raw", default=False,
        help="send the cell as it is, without what shows its last value and its own line numbers",
        doc="send the code as it is",
    )
    check: bool = option(
        "--no-check", default=True, help=_NO_CHECK, doc="whether to compile the code here first",
    )

    def validate(self) -> None:
        super().validate()
        # Only the wrapping of a cell could carry these.
        carried = ("input_names", "inputs", "outputs", "files", "save", "session")
        for name in carried if self.raw else ():
            if getattr(self, name):
                raise OptionError(
                    f"A cell that is sent raw goes as it is: {self.called(name)} cannot go with "
                    "it; leave out one of them."
                )
        for name in self.several:
            for text in getattr(self, name):
                if not isinstance(text, str):
                    raise OptionError(f"{self.called(name)} takes texts, not {text!r:.80}.")
        if not isinstance(self.code, str):
            raise OptionError(f"code takes the text of a cell, not a {type(self.code).__name__}.")


@spec
class ContainerSpec(RunSpec):
    """The options that images and stacks have in common."""

    registry: str | None = option(
        "--registry", default=None, choices=("basic", "aws"),
        help="sign in to the images' registry",
        doc='"basic" signs in with `registry_user` and `registry_password`; "aws" with the keys '
        "that boto3 finds here",
        row="registry", wire="docker_registry_credential_type",
        text=lambda chosen: ", ".join(
            filter(None, (chosen.registry, chosen.registry_user or chosen.aws_region))
        ),
    )
    registry_user: str | None = option(
        "--registry-user", default=None, metavar="NAME", help="the user of a basic registry",
        wire="docker_username",
    )
    registry_password: str | None = option(
        default=None, repr=False, help="the user's password", wire="docker_password",
    )
    registry_password_env: str | None = line_option(
        "--registry-password-env", default=None, metavar="NAME",
        help="the environment variable of this process that holds the user's password; without it "
        "the password is asked for",
    )
    aws_region: str | None = option(
        "--aws-region", default=None, metavar="REGION",
        help="the region of an aws registry; boto3 finds the keys here", wire="aws_region",
    )
    graceful_timeout_s: int | None = option(
        "--graceful-timeout", default=None, metavar="SECONDS", type=whole_number,
        help=f"time to end between SIGTERM and SIGKILL, {MIN_GRACE_S} to {MAX_GRACE_S} seconds",
        more="10 by default. The embedded server asks every program of a shell script. A service's "
        "`stop_grace_period` counts where none is named, or where it is smaller.",
        problem=between(MIN_GRACE_S, MAX_GRACE_S), row="grace",
        text=lambda chosen: (
            "" if chosen.graceful_timeout_s is None else f"{chosen.graceful_timeout_s} s"
        ),
        wire="graceful_timeout",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.registry_password, str):
            self._set(registry_password=HiddenText(self.registry_password))

    def validate(self) -> None:
        super().validate()
        for name, kind in {
            "registry_user": "basic",
            "registry_password": "basic",
            "registry_password_env": "basic",
            "aws_region": "aws",
        }.items():
            if getattr(self, name) is not None and self.registry != kind:
                raise OptionError(
                    f"{self.called(name)} belongs to {self.called('registry', kind)}; add it, or "
                    "leave both out."
                )
        if self.registry != "basic":
            return
        if self.is_cell and not self.registry_user:
            raise OptionError("--registry basic needs --registry-user NAME.")
        if not self.is_cell and not (self.registry_user and self.registry_password):
            raise OptionError('registry="basic" needs registry_user and registry_password.')


@spec
class _ImageText:
    """The image and its command, before the options."""

    image: str = option(
        "image", kw_only=False, metavar="IMAGE",
        help="such as python:3.12-slim or registry.example/team/app:1",
        doc="as `docker run` takes it", wire="docker_image_ref",
    )
    command: str | Sequence[str] | None = option(
        default=None, kw_only=False,
        help="a text is a script for the image's shell, `sh -c`; a list is a program and its "
        "arguments; None is the image's own command",
    )


@spec
class ImageSpec(ContainerSpec, _ImageText):
    """The options of a run of a Docker image."""

    magic = "lyceum_image"
    about = (
        "Run this cell in a Docker image on Lyceum. The cell is a script for the image's shell, "
        "`sh -c`: its last command decides how the run ends, and `set -e` in its first line lets "
        "every command. `%lyceum_image IMAGE`, a line without a cell, runs the image's own "
        "command. An entry point that prepares the container and execs its arguments runs the "
        "script; any other is left out. Other commands are its arguments, as with `docker run`. "
        "--entrypoint chooses."
    )

    python: bool = line_option(
        "--python", default=False, help="the cell is Python, for the image's own python3",
    )
    session: str | None = _session_option()
    check: bool = line_option(
        "--no-check", default=True, help=_NO_CHECK,
    )
    words: Sequence[str] | None = line_option(
        "--cmd", default=None, metavar="WORD", nargs="...",
        help="run no shell: the rest of the line, or else the cell, is a command and its "
        "arguments by shell quoting; comes last",
    )
    env: Mapping[str, str] | None = option(
        "--env", default=None, repr=False, metavar="K=V", action="append",
        read=read_pairs("; `%lyceum secrets set` keeps what is secret"),
        help="a variable of the container; repeat it for more",
        doc="variables of the container; `%lyceum secrets` keeps those that are secret",
        row="variables", text=lambda chosen: ", ".join(chosen.env or ()),
    )
    user: str | None = option(
        "--user", default=None, metavar="USER",
        help="the user who runs the command there: a name, 1000 or 1000:1000", row="user",
        wire="docker_user",
    )
    entrypoint: EntryPoint | None = option(
        "--entrypoint", default=None, choices=("auto", "keep", "skip"),
        help="the image's entry point: give it the command as arguments, leave it out, or (auto, "
        "the default for scripts and --python) leave it out where it would not run the command",
        doc='"keep" gives an entry point of the image the command as its arguments, as `docker '
        'run` does; "skip" leaves it out; "auto" leaves it out where it would not run the '
        'command. None is "auto" for a script, and "keep" for a list',
        more="The cloud may take no notice of it.", row="entry point",
        text=lambda chosen: _ENTRY_POINTS[chosen.entry_point],
    )
    init: bool = option(
        "--no-init", default=True,
        help="the program itself is process 1: for images with an init of their own (s6-overlay)",
        doc="whether a small init is process 1, which passes signals on; images with an init of "
        "their own, such as s6-overlay, need False",
        more="The cloud may take no notice of it.", row="init",
        text=lambda chosen: "" if chosen.init else "none", wire="docker_init",
        to_wire=lambda init: None if init else False,
    )
    s3: bool = option(
        "--s3", default=True, action="boolean",
        help="mount the account's storage; it is mounted by default",
        doc="whether the account's storage is mounted, at `s3_path`",
        more="The services of a stack have it only with --s3.", row="storage",
        text=lambda chosen: chosen.s3_path if chosen.s3 else "not mounted", wire="enable_s3_mount",
    )
    s3_path: str = option(
        "--s3-path", default="/mnt/s3", metavar="PATH", help="where the storage is mounted",
        wire="s3_mount_path",
    )

    @property
    def entry_point(self) -> EntryPoint | None:
        """The treatment of the image's entry point: `auto` by default for a script."""
        is_script = isinstance(self.command, str) and self.words is None
        return self.entrypoint or ("auto" if is_script else None)

    def validate(self) -> None:
        super().validate()
        if self.python and self.words is not None:
            raise OptionError("Use either --python or --cmd, not both.")
        if self.session and not self.python:
            raise OptionError("--session keeps variables of Python: add --python, or leave it out.")


_ENTRY_POINTS: Mapping[str | None, str] = {
    None: "",
    "auto": "left out where it would not run the command",
    "keep": "gets the command as its arguments",
    "skip": "left out",
}


@spec
class _ComposeText:
    """The Compose file, before the options."""

    file: str | Path = option(
        kw_only=False, help="the text of a Compose file, or the `Path` of one"
    )


@spec
class ComposeSpec(ContainerSpec, _ComposeText):
    """The options of a run of a Docker Compose stack."""

    magic = "lyceum_compose"
    about = (
        "Run this cell, a Docker Compose file, as a stack on Lyceum. It ends when every job has "
        "ended that no other service depends on: a service with no restart policy, or with "
        "`on-failure`. The rest is stopped then. It fails with the first exit code that is not 0 "
        "of a service that ended by itself."
    )

    s3: bool = option(
        "--s3", default=False, action="boolean",
        help="mount the account's storage in the services; it is not mounted by default",
        doc="whether the account's storage is mounted in the services", row="storage",
        text=lambda chosen: "mounted" if chosen.s3 else "not mounted", wire="enable_s3_mount",
    )
