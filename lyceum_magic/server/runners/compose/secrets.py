"""The secrets and configs of a stack: a model and the account's secrets in, a model with all of
their contents out.

Compose takes no content for a secret, so what comes from the account becomes a config, which
appears in the same place of the container.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from typing import Any

from ..base import Refusal
from .model import Model, bind_paths, escaped

#: The kinds of files that a model gives to its services.
FILE_KINDS = ("configs", "secrets")


def file_path(entry: Mapping[str, Any] | None) -> str | None:
    """Return the path on this machine that a secret or config is read from; None if it is not a
    file.
    """
    found = (entry or {}).get("file")
    return os.path.normpath(str(found).replace("$$", "$")) if found else None


def file_paths(model: Model) -> Iterator[str]:
    """Yield the paths on this machine that the secrets and configs of a model are read from."""
    for _, _, entry in _entries(model):
        if path := file_path(entry):
            yield path


def with_account_files(model: Model, secrets: Mapping[str, str], folder: str) -> Model:
    """Return the model with the account's secrets as files, if it asks for them.

    It asks by `environment: NAME`, by `external: true`, and by a `file` of the run's folder that
    has the name of one.

    Args:
        secrets: the account's.
        folder: the run's, as an absolute path. A file in it is made by a service that mounts it.

    Raises:
        Refusal: the account has no such secret, or no service makes the file.
    """
    contents: dict[tuple[str, str], str] = {}
    mounted = set(bind_paths(model))
    for kind, name, entry in _entries(model):
        path = file_path(entry)
        wanted = name if path else _variable(name, entry)
        if wanted in secrets:
            contents[kind, name] = secrets[wanted]
        elif path and path not in mounted and path.startswith(f"{folder}/"):
            raise Refusal(
                f"the Compose file takes `{name}` of its {kind} from "
                f"`./{os.path.relpath(path, folder)}`, and no such file is in the run's folder; "
                f"set its content with `%lyceum secrets set {name}`, or mount the file in a "
                "service that writes it"
            )
        elif wanted and not path:
            raise Refusal(
                f"the Compose file takes `{name}` of its {kind} from {wanted} of the account's "
                f"secrets, which is not there; set it with `%lyceum secrets set {wanted}`"
            )
    if not contents:
        return model
    done = {**model, "services": {
        name: _with_configs(service, contents) for name, service in model["services"].items()
    }}  # fmt: skip
    for kind in FILE_KINDS:
        entries = model.get(kind) or {}
        done[kind] = {name: e for name, e in entries.items() if (kind, name) not in contents}
    for (kind, name), content in contents.items():
        done["configs"][_config_name(kind, name)] = {"content": escaped(content)}
    return done


def _entries(model: Model) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for kind in FILE_KINDS:
        for name, entry in (model.get(kind) or {}).items():
            yield kind, name, entry or {}


def _variable(name: str, entry: Mapping[str, Any]) -> str:
    """Return the account's secret that an entry names; empty if it has a content of its own."""
    if entry.get("external"):
        return str(entry.get("name") or name)
    return str(entry.get("environment") or "")


def _config_name(kind: str, name: str) -> str:
    return f"account.{kind}.{name}"


def _with_configs(service: Model, contents: Mapping[tuple[str, str], str]) -> Model:
    configs: list[Model] = []
    left: dict[str, list[Model]] = {}
    for kind in FILE_KINDS:
        left[kind] = []
        for use in service.get(kind) or ():
            if (kind, use["source"]) not in contents:
                left[kind].append(use)
                continue
            place = "/run/secrets" if kind == "secrets" else "/"
            target = os.path.join(place, use.get("target") or use["source"])
            configs.append({**use, "source": _config_name(kind, use["source"]), "target": target})
    return {**service, "secrets": left["secrets"], "configs": [*left["configs"], *configs]}
