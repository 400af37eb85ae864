"""The bodies of start requests, one frozen type for each kind of run.

The client fills them, the server validates them.

Source: `POST execution/{streaming,image,compose}/start` of Lyceum's API v2, and the fields that the
official client sends beyond it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import to_json

from .limits import (
    DEFAULT_GRACE_S,
    DEFAULT_TIMEOUT_S,
    MAX_GRACE_S,
    MAX_LABELS,
    MAX_METADATA,
    MAX_TIMEOUT_S,
    MIN_GRACE_S,
    MIN_TIMEOUT_S,
)
from .machines import MACHINE_PATTERN
from .sessions import (
    BRANCH_PATTERN,
    GRACE_S,
    ID_PATTERN,
    KEY_PATTERN,
    MAIN_BRANCH,
    MAX_CELL,
    MAX_TITLE,
    SHA256_PATTERN,
)

_MACHINE_NAMES = AliasChoices("execution_type", "machine_type")

#: The first words of a server's sentence about a Compose file that it refuses.
COMPOSE_FILE = "The Compose file"

Kind = Literal["python", "image", "compose"]
EntryPoint = Literal["auto", "keep", "skip"]

#: A comment in place of a program that is not kept; in Python and in YAML.
NOT_KEPT = "# not kept after the end of the run"


class Snapshot(BaseModel):
    """A snapshot of a session: its id, and the SHA-256 of its manifest in hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    sha256: Annotated[str, Field(pattern=SHA256_PATTERN)]


class SessionStep(BaseModel):
    """A run's place in a session: the snapshot that it continues, and the one that it makes.

    Attributes:
        key: The session's name.
        title: The text that users read.
        cell: The number of the new snapshot: that of its parent and 1.
        id: The id of the new snapshot.
        parent: The head of the branch; None for the first cell of a branch.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: Annotated[str, Field(pattern=KEY_PATTERN)]
    title: Annotated[str, Field(max_length=MAX_TITLE)] = ""
    branch: Annotated[str, Field(pattern=BRANCH_PATTERN)] = MAIN_BRANCH
    cell: Annotated[int, Field(ge=1, le=MAX_CELL)]
    id: Annotated[str, Field(pattern=ID_PATTERN)]
    parent: Snapshot | None = None


class Start(BaseModel):
    """The fields of every kind of start request. Times in seconds.

    Class attributes:
        kind: the kind of run that it starts.
        credentials: fields with a user's credentials; they are not kept after the run's end.
        sealed: fields that are only kept encrypted, the credentials among them.
        program: fields that may be long and are not kept after the run's end -> their values then.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    kind: ClassVar[Kind]
    credentials: ClassVar[frozenset[str]] = frozenset()
    sealed: ClassVar[frozenset[str]] = frozenset({"user_callback_urls"})
    program: ClassVar[Mapping[str, object]] = {}

    execution_type: str
    timeout: Annotated[int, Field(ge=MIN_TIMEOUT_S, le=MAX_TIMEOUT_S)] = DEFAULT_TIMEOUT_S
    file_name: str | None = None
    user_callback_urls: list[str] | None = Field(default=None, repr=False)
    run_name: str | None = None
    labels: Annotated[list[str], Field(max_length=MAX_LABELS)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA)] | None = None

    @property
    def grace_s(self) -> float:
        """Maximum seconds from SIGTERM to SIGKILL when the run is stopped or times out."""
        return DEFAULT_GRACE_S

    @property
    def step(self) -> SessionStep | None:
        """The run's place in a session; None outside of one."""
        return None

    @property
    def work_type(self) -> str:
        """The run's `job_type` in its record."""
        return self.kind

    @property
    def cloud_remarks(self) -> list[str]:
        """A sentence for each chosen option that only the embedded server is known to support."""
        return []

    def without_credentials(self) -> Self:
        """Return the request without its credentials, to be kept when they are not needed."""
        return self.model_copy(update=dict.fromkeys(self.credentials))

    def when_over(self) -> Self:
        """Return the request to be kept after the run's end: without program and credentials."""
        return self.without_credentials().model_copy(update=self.program)

    def without_sealed(self) -> Self:
        """Return the request without the fields that are only kept encrypted."""
        return self.model_copy(update=dict.fromkeys(self.sealed))

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON object to send; as in the official client, without fields of None."""
        return self.model_dump(exclude_none=True)

    def may_exceed(self, size: int) -> bool:
        """Return whether the body may have more bytes, without writing it; nearly all are small."""
        values = vars(self).values()
        characters = sum(len(v if isinstance(v, str) else repr(v)) for v in values)
        return 6 * characters + 1000 > size  # `\u0000`, and the names of the fields

    def body(self) -> bytes:
        """Return `to_wire` as JSON, made in one pass, since it may be megabytes."""
        return to_json(self, exclude_none=True)

    def size(self) -> int:
        """Return the number of bytes of the body."""
        return len(self.body())


class StartPython(Start):
    """`POST execution/streaming/start`. Times in seconds.

    Lyceum's own API has no `session`.

    `import_files` is JSON *text* of an object path -> source. `machine_type` and `requirements`
    are older names of `execution_type` and `requirements_content`; the modern name wins.
    """

    kind = "python"
    program = {
        "code": NOT_KEPT, "requirements_content": None, "prior_imports": None, "kernel_state": None,
        "import_files": None,
    }  # fmt: skip

    code: str
    nbcode: int = 0
    requirements_content: str | None = Field(
        None, validation_alias=AliasChoices("requirements_content", "requirements")
    )
    prior_imports: list[str] | None = None
    kernel_state: str | None = None
    import_files: str | None = None
    execution_type: Annotated[str, Field(pattern=MACHINE_PATTERN)] = Field(
        "gpu.l40s", validation_alias=_MACHINE_NAMES
    )

    session: SessionStep | None = None

    @property
    def step(self) -> SessionStep | None:
        return self.session

    @property
    def grace_s(self) -> float:
        return _grace_s(super().grace_s, self.session)

    @field_validator("import_files")
    @classmethod
    def _import_files_is_an_object_of_texts(cls, value: str | None) -> str | None:
        if value is not None:
            decode_import_files(value)
        return value

    @field_validator("prior_imports")
    @classmethod
    def _prior_imports_are_imports(cls, value: list[str] | None) -> list[str] | None:
        import_statements(value or [])
        return value


class _StartContainers(Start):
    """The common fields of images and stacks: a registry to sign in to, and time to end.

    `aws_region` was called `region` once; the modern name wins.
    """

    credentials = frozenset(
        {"docker_password", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
    )
    sealed = Start.sealed | credentials

    docker_registry_credential_type: Literal["aws", "basic"] | None = None
    aws_access_key_id: str | None = Field(default=None, repr=False)
    aws_secret_access_key: str | None = Field(default=None, repr=False)
    aws_session_token: str | None = Field(default=None, repr=False)
    aws_region: str | None = Field(
        "us-east-1", validation_alias=AliasChoices("aws_region", "region")
    )
    docker_username: str | None = None
    docker_password: str | None = Field(default=None, repr=False)
    execution_type: Annotated[str, Field(pattern=MACHINE_PATTERN)] = Field(
        "cpu", validation_alias=_MACHINE_NAMES
    )
    graceful_timeout: Annotated[int, Field(ge=MIN_GRACE_S, le=MAX_GRACE_S)] | None = None

    @property
    def grace_s(self) -> float:
        return DEFAULT_GRACE_S if self.graceful_timeout is None else float(self.graceful_timeout)


class StartImage(_StartContainers):
    """`POST execution/image/start`. Times in seconds.

    `docker_run_env` is lines `KEY=value`; without `docker_run_cmd` the image's own command runs.
    `docker_entrypoint` says whether an entry point of the image gets the command as its arguments
    (`keep`, as without it), is left out (`skip`), or is left out where it would not run the command
    (`auto`). `docker_init` says whether an init is process 1. Lyceum's own API has neither,
    nor `session`.
    """

    kind = "image"
    sealed = _StartContainers.sealed | {"docker_run_env"}
    program = {"docker_run_cmd": None}

    docker_image_ref: Annotated[str, Field(min_length=1)]
    docker_run_cmd: list[str] | None = None
    docker_run_env: str | None = Field(default=None, repr=False)
    docker_user: str | None = None
    docker_entrypoint: EntryPoint | None = None
    docker_init: bool | None = None
    job_type: str | None = None
    enable_s3_mount: bool = True
    s3_mount_path: str = "/mnt/s3"
    session: SessionStep | None = None

    @property
    def step(self) -> SessionStep | None:
        return self.session

    @property
    def grace_s(self) -> float:
        return _grace_s(super().grace_s, self.session)

    @property
    def cloud_remarks(self) -> list[str]:
        options = {
            "--entrypoint skip": self.docker_entrypoint == "skip",
            "--no-init": self.docker_init is False,
        }
        return [
            f"the cloud may take no notice of {option}"
            for option, is_chosen in options.items()
            if is_chosen
        ]

    @property
    def work_type(self) -> str:
        return self.job_type or "customer_image"


class StartCompose(_StartContainers):
    """`POST execution/compose/start`. Times in seconds; `compose_file_code` is YAML text."""

    kind = "compose"
    program = {"compose_file_code": NOT_KEPT}

    compose_file_code: Annotated[str, Field(min_length=1)]
    enable_s3_mount: bool = False

    @property
    def grace_s(self) -> float:
        # A service may have a grace of its own, which only Compose reads from the file.
        return float(MAX_GRACE_S if self.graceful_timeout is None else self.graceful_timeout)

    @property
    def work_type(self) -> str:
        return "customer_compose"


#: The type of each kind of request.
STARTS: dict[Kind, type[Start]] = {
    "python": StartPython, "image": StartImage, "compose": StartCompose,
}  # fmt: skip


def _grace_s(grace_s: float, session: SessionStep | None) -> float:
    """Return the grace of a run, which in a session is interrupted first and then saves."""
    return grace_s if session is None else max(grace_s, GRACE_S)


def decode_import_files(text: str) -> dict[str, str]:
    """Return the files in an `import_files` field: relative path with `/` -> source.

    Raises:
        ValueError: the text is not a JSON object of strings, or a path would leave the run's
            folder.
    """
    try:
        files = json.loads(text)
    except ValueError as exc:
        raise ValueError("import_files must be the JSON text of an object path -> source") from exc
    if not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise ValueError("import_files must be the JSON text of an object path -> source")
    for path in files:
        parts = path.split("/")
        if not path or path.startswith("/") or "\\" in path or "\0" in path or ".." in parts:
            raise ValueError(
                f"import_files: {path!r} is not a relative path below the run's folder"
            )
    return files


def import_statements(items: Sequence[str]) -> list[str]:
    """Return the import statements for `prior_imports`, whose items are names or statements.

    Raises:
        ValueError: an item is neither.
    """
    return [_import_statement(item.strip()) for item in items]


def _import_statement(item: str) -> str:
    statement = f"import {item}" if all(p.isidentifier() for p in item.split(".")) else item
    try:
        body = ast.parse(statement).body
    except (SyntaxError, ValueError):
        body = []
    if not body or not all(isinstance(node, ast.Import | ast.ImportFrom) for node in body):
        raise ValueError(f"prior_imports: {item!r} is neither a module's name nor an import")
    return statement
