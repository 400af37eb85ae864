"""What is chosen for a run of any kind -> the fields that every start request has."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from ..exceptions import OptionError
from ..protocol.limits import DEFAULT_TIMEOUT_S, MARK_CHARACTERS, MAX_METADATA, TAG_KEY
from ..protocol.requests import Start
from ..protocol.surrogates import has_surrogates
from .callback_urls import check_callback_urls

StartT = TypeVar("StartT", bound=Start)

#: What the wire's fields are called by those who choose their values.
_CHOICES = {
    "compose_file_code": "the Compose file",
    "docker_image_ref": "image", "docker_run_cmd": "command", "docker_run_env": "env",
    "docker_user": "user", "docker_entrypoint": "entrypoint", "docker_init": "init",
    "docker_username": "registry_user",
    "docker_password": "registry_password", "enable_s3_mount": "s3", "execution_type": "machine",
    "graceful_timeout": "graceful_timeout_s", "run_name": "name", "s3_mount_path": "s3_path",
    "timeout": "timeout_s", "user_callback_urls": "callback_urls",
}  # fmt: skip


@dataclass(frozen=True)
class Choices:
    """What may be chosen for a run of any kind.

    Attributes:
        timeout_s: its time limit, in seconds.
        metadata: kept with the run.
        callback_urls: who is told of its end.
        tag: under which its client finds it again.
    """

    machine: str
    timeout_s: int = DEFAULT_TIMEOUT_S
    name: str | None = None
    labels: Sequence[str] = ()
    metadata: Mapping[str, str] | None = None
    callback_urls: Sequence[str] = ()
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def mark(self) -> str:
        """What tells the run's frames from other text."""
        return self.tag[:MARK_CHARACTERS]


def build_start(kind: type[StartT], choices: Choices, **fields: object) -> StartT:
    """A request of that kind.

    Args:
        fields: those that the kind has beside the common ones; by the wire's names.

    Raises:
        OptionError: a value that the wire does not take, in one sentence.
    """
    metadata = choices.metadata or {}
    # One is taken by the tag under which the client finds its run again.
    if len(metadata) > MAX_METADATA - 1:
        raise OptionError(f"metadata: at most {MAX_METADATA - 1} pairs, not {len(metadata)}.")
    try:
        request = kind.model_validate({
            "timeout": choices.timeout_s,
            "execution_type": choices.machine,
            "run_name": choices.name,
            "labels": list(choices.labels) or None,
            "metadata": {**metadata, TAG_KEY: choices.tag},
            "user_callback_urls": check_callback_urls(choices.callback_urls, here_too=True)
            or None,
            **fields,
        })  # fmt: skip
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_context=False)[0]
    else:
        for field, value in vars(request).items():
            if has_surrogates(value):
                raise OptionError(
                    f"{_CHOICES.get(field, field)}: it holds half of a surrogate pair, which is no "
                    "text that can travel; take it out."
                )
        return request
    wire_name, *place = map(str, problem["loc"])
    where = ".".join([_CHOICES.get(wire_name, wire_name), *place])
    came = "" if wire_name in kind.sealed else f", not {str(problem['input'])[:80]!r}"
    raise OptionError(f"{where}: {problem['msg']}{came}.")
