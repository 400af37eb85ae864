"""A Compose file as it arrives: YAML text in, what is safe to give to `docker compose config` out.

A file goes through three steps. `read_compose_file` parses it and refuses what would make even the
reading of it read files of this machine. `docker compose config` (see `command`) then
checks it against Compose's own schema and writes every short form out; its output is the model.
`policy` and `model` work on that. Compose never sees the text itself, but its parsed content as
JSON: no difference between two YAML parsers can carry anything past these checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from ....protocol.requests import COMPOSE_FILE
from ..base import InvalidField
from .model import Model
from .yaml_lines import line_of, read_yaml

FIELD = "compose_file_code"

_MAX_CHARACTERS = 1 << 20

# Keys that would read files of this machine, or run programs on it, while a file is being read.
_LOCAL_KEYS = {
    "include": "put all services into this one file",
    "models": "run the model in a service of its own",
}
_LOCAL_SERVICE_KEYS = {
    "build": "build the image where its sources are, push it, and name it with `image`",
    "env_file": "list the variables under `environment`, or set them as secrets of the account",
    "label_file": "list the labels under `labels`",
    "develop": "the sources are not there",
    "provider": "only containers run here",
    "credential_spec": "only Linux containers run here",
    "post_start": "make it part of the service's own command",
    "pre_stop": "let the service act on SIGTERM",
}


def read_compose_file(text: str) -> Model:
    """Return the file as a mapping that is safe to give to `docker compose config`.

    Raises:
        InvalidField: it is not YAML, or not of a Compose file's form, or it needs files of this
            machine. The message is one sentence, with line and column where YAML is at fault.
        EngineUnavailable: PyYAML is not installed.
    """
    if len(text) > _MAX_CHARACTERS:
        refuse(f"should have at most {_MAX_CHARACTERS} characters, and has {len(text)}")
    try:
        content = read_yaml(text)
    except ValueError as exc:
        refuse(str(exc))
    if not isinstance(content, dict):
        refuse(
            "should be a mapping with the key `services`, as every Compose file is, and is "
            f"{_kind(content)}"
        )
    services = content.get("services")
    if not services:
        refuse("names no services; it should have at least one, under the key `services`")
    if not isinstance(services, dict):
        refuse(
            f"should have a mapping name -> service under `services`, not {_kind(services)}",
            "services",
        )
    for key, advice in _LOCAL_KEYS.items():
        if content.get(key) is not None:
            refuse(f"uses `{key}`, which stacks cannot have here: {advice}", key)
    for name, service in services.items():
        if isinstance(service, dict):  # else Compose says what it should be
            _check_local_keys(str(name), service)
    configs = content.get("configs")
    for name, entry in configs.items() if isinstance(configs, dict) else ():
        if isinstance(entry, dict) and entry.get("external"):
            refuse(
                f"calls `{name}` of its configs external, and nothing is there; give its `content`",
                "configs", str(name), "external",
            )  # fmt: skip
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as exc:
        refuse(f"holds a value that a Compose file cannot have ({exc})")
    return content


class InvalidFile(InvalidField):
    """A Compose file that cannot be used: one sentence about it.

    Attributes:
        what: the sentence, from its verb on.
        place: the keys that lead to what it speaks of.
    """

    def __init__(self, what: str, place: Sequence[str] = (), *, line: int | None = None) -> None:
        where = f" (line {line})" if line else ""
        super().__init__(f"{COMPOSE_FILE}{where} {what}.", field=FIELD)
        self.what = what
        self.place = place


def refuse(what: str, *place: str) -> NoReturn:
    """Raise InvalidFile with a sentence about the file.

    Args:
        place: the keys that lead to what it speaks of.
    """
    raise InvalidFile(what, place)


@contextmanager
def naming_lines(text: str) -> Iterator[None]:
    """Add the line number to every InvalidFile that is raised in the block."""
    try:
        yield
    except InvalidFile as exc:
        raise InvalidFile(exc.what, exc.place, line=line_of(text, exc.place)) from None


def _check_local_keys(name: str, service: Mapping[str, Any]) -> None:
    for key, advice in _LOCAL_SERVICE_KEYS.items():
        if service.get(key) is not None:
            refuse(
                f"uses `{key}` in service `{name}`, which stacks cannot have here: {advice}",
                "services", name, key,
            )  # fmt: skip
    extended = service.get("extends")
    if isinstance(extended, dict) and extended.get("file") is not None:
        refuse(
            f"extends service `{name}` from a file, which is not there: "
            "put both services into this one file",
            "services", name, "extends",
        )  # fmt: skip


def _kind(value: object) -> str:
    match value:
        case None:
            return "empty"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "a single value"
