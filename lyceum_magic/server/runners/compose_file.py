"""What a Compose file may ask for: YAML text in, a stack that `docker compose` can start out.

A file goes through three steps. `read_compose_file` parses it and refuses what would make even the
reading of it read files of this machine. `docker compose config` (see `compose`) then checks it
against Compose's own schema and writes every short form out; what it makes of a file is a *model*.
`check_model` and `complete_model` work on that: one spelling for each thing, whatever the user
wrote. Compose never sees the text itself, but what we understood of it, as JSON: no difference
between two YAML parsers can carry anything past these checks.

In a model a `$` is written `$$`.
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .base import EngineUnavailable, InvalidField

if TYPE_CHECKING:
    import yaml

FIELD = "compose_file_code"

#: Where the account's bucket is mounted.
S3_MOUNT_PATH = "/mnt/s3"

_MAX_CHARACTERS = 1 << 20
_MAX_VALUES = 100_000

Model = dict[str, Any]

# Keys that would read files of this machine, or run programs on it, while a file is only read.
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

_TOP_KEYS = frozenset({"name", "services", "networks", "volumes", "configs", "secrets"})
_SERVICE_KEYS = frozenset({
    "annotations", "attach", "cap_drop", "cgroup", "command", "configs", "container_name",
    "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_shares", "cpus", "cpuset",
    "depends_on", "deploy", "dns", "dns_opt", "dns_search", "domainname", "entrypoint",
    "environment", "expose", "extra_hosts", "gpus", "group_add", "healthcheck", "hostname",
    "image", "init", "ipc", "labels", "links", "logging", "mac_address", "mem_limit",
    "mem_reservation", "mem_swappiness", "memswap_limit", "network_mode", "networks",
    "oom_score_adj", "pid", "pids_limit", "platform", "ports", "profiles", "pull_policy",
    "read_only", "restart", "scale", "secrets", "security_opt", "shm_size", "stdin_open",
    "stop_grace_period", "stop_signal", "storage_opt", "sysctls", "tmpfs", "tty", "ulimits",
    "user", "userns_mode", "uts", "volumes", "volumes_from", "working_dir",
})  # fmt: skip
# Keys that no value makes harmless, beyond false and nothing.
_PRIVILEGED_SERVICE_KEYS = frozenset({
    "blkio_config", "cap_add", "cgroup_parent", "cpu_rt_period", "cpu_rt_runtime",
    "device_cgroup_rules", "devices", "external_links", "isolation", "oom_kill_disable",
    "privileged", "runtime", "use_api_socket",
})  # fmt: skip
# Keys that say in whose namespace a service lives, and what is its own.
_NAMESPACES: dict[str, set[str]] = {
    "network_mode": {"bridge", "none"},
    "pid": set(),
    "ipc": {"private", "shareable", "none"},
    "uts": set(),
    "cgroup": {"private"},
    "userns_mode": set(),
}
_HARMLESS_SECURITY = {"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}


def read_compose_file(text: str) -> Model:
    """The file as a mapping that is safe to give to `docker compose config`.

    Raises:
        InvalidField: it is not YAML, or not of a Compose file's form, or it needs files of this
            machine. The message is one sentence, with line and column where YAML is at fault.
        EngineUnavailable: PyYAML is not installed.
    """
    if len(text) > _MAX_CHARACTERS:
        refuse(f"should have at most {_MAX_CHARACTERS} characters, and has {len(text)}")
    content = _parse(text)
    if not isinstance(content, dict):
        refuse(
            "should be a mapping with the key `services`, as every Compose file is, and is "
            f"{_kind(content)}"
        )
    _check_size(content)
    services = content.get("services")
    if not services:
        refuse("names no services; it should have at least one, under the key `services`")
    if not isinstance(services, dict):
        refuse(f"should have a mapping name -> service under `services`, not {_kind(services)}")
    for key, advice in _LOCAL_KEYS.items():
        if content.get(key) is not None:
            refuse(f"uses `{key}`, which stacks cannot have here: {advice}")
    for name, service in services.items():
        if isinstance(service, dict):  # else Compose says what it should be
            _check_local_keys(str(name), service)
    for kind in ("configs", "secrets"):
        entries = content.get(kind)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            _check_source(kind, str(name), entry)
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as exc:
        refuse(f"holds a value that a Compose file cannot have ({exc})")
    return content


def refuse(what: str) -> NoReturn:
    """Raises InvalidField with a sentence about the file."""
    raise InvalidField(f"{FIELD} {what}.", field=FIELD)


def _check_local_keys(name: str, service: Mapping[str, Any]) -> None:
    for key, advice in _LOCAL_SERVICE_KEYS.items():
        if service.get(key) is not None:
            refuse(f"uses `{key}` in service `{name}`, which stacks cannot have here: {advice}")
    extended = service.get("extends")
    if isinstance(extended, dict) and extended.get("file") is not None:
        refuse(
            f"extends service `{name}` from a file, which is not there: "
            "put both services into this one file"
        )


def _check_source(kind: str, name: str, entry: object) -> None:
    if not isinstance(entry, dict):
        return
    for key in ("file", "environment"):
        if entry.get(key) is not None:
            refuse(
                f"takes `{name}` of its {kind} from {_ARTICLES[key]} of this machine; give it as "
                "`content`, or set it as a secret of the account"
            )
    if entry.get("external"):
        refuse(f"calls `{name}` of its {kind} external, and nothing is there; give its `content`")


_ARTICLES = {"file": "a file", "environment": "a variable"}


# --- YAML ------------------------------------------------------------------------------------


def _parse(text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as exc:
        raise EngineUnavailable(
            "Stacks need the extra `containers`: pip install 'lyceum-magic[containers]'."
        ) from exc
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join((exc.problem or exc.context or "it cannot be read").split())
        refuse(f"is not valid YAML: {problem}{where}")
    except yaml.reader.ReaderError as exc:
        before = text[: exc.position]
        line, column = before.count("\n") + 1, exc.position - before.rfind("\n")
        refuse(f"is not valid YAML: {exc.reason} in line {line}, column {column}")
    except RecursionError:
        refuse("is nested too deeply")
    except ValueError as exc:  # an integer of thousands of digits
        refuse(f"is not valid YAML: {exc}")


def _loader() -> type[yaml.SafeLoader]:
    """A loader that reads scalars as Compose does: `22:22`, `yes` and dates are texts."""
    import yaml

    class Loader(yaml.SafeLoader):
        # Not those of YAML 1.1, which the class above has.
        yaml_implicit_resolvers = {}  # noqa: RUF012 - add_implicit_resolver() fills it

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key `{key.value}` is there twice", key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    for name, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)", list("-+0123456789")),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
            list("-+.0123456789"),
        ),
        ("merge", r"<<", ["<"]),
    ):
        Loader.add_implicit_resolver(
            f"tag:yaml.org,2002:{name}", re.compile(rf"(?:{pattern})\Z"), first
        )
    return Loader


def _check_size(content: object) -> None:
    """Refuses a small file that aliases make large, or endless."""
    left = [content]
    for _ in range(_MAX_VALUES):
        if not left:
            return
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    refuse(f"holds more than {_MAX_VALUES} values once its aliases are written out")


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


# --- the model -------------------------------------------------------------------------------


def check_model(model: Model, folder: str, *, allow_privileged: bool) -> None:
    """Lets only stacks pass that keep to themselves.

    Args:
        folder: the absolute path that relative paths of the file were resolved against.
        allow_privileged: whether services may have more of this machine than containers have.

    Raises:
        InvalidField: the stack asks for more; one sentence says for what.
    """
    if not model.get("services"):
        refuse("starts no services: all that it names have a profile, and none is chosen here")
    for key in model:
        if key not in _TOP_KEYS and not key.startswith("x-"):
            refuse(f"uses `{key}`, which stacks cannot have here")
    for name, service in model["services"].items():
        for key in service:
            if (
                key not in _SERVICE_KEYS | _PRIVILEGED_SERVICE_KEYS
                and not key.startswith("x-")
                and service[key]
            ):
                refuse(f"uses `{key}` in service `{name}`, which stacks cannot have here")
    wish = next(_privileges(model, folder), None)
    if wish is not None and not allow_privileged:
        refuse(
            f"asks for {wish}, and a stack may have nothing of the machine it runs on; leave it "
            "out, or serve with `--allow-privileged`"
        )
    _check_nesting(model, folder)


def _privileges(model: Model, folder: str) -> Iterator[str]:
    """What a stack asks of this machine beyond containers, as phrases."""
    for name, service in model["services"].items():
        for wish in _service_privileges(service, folder):
            yield f"{wish} in service `{name}`"
    for name, network in (model.get("networks") or {}).items():
        if network and network.get("external"):
            yield f"the external network `{name}`"
        elif network and (
            network.get("driver", "bridge") != "bridge" or network.get("driver_opts")
        ):
            yield f"a driver or its options for network `{name}`"
    for name, volume in (model.get("volumes") or {}).items():
        if volume and volume.get("external"):
            yield f"the external volume `{name}`"
        elif volume and (volume.get("driver", "local") != "local" or volume.get("driver_opts")):
            yield f"a driver or its options for volume `{name}`"


def _service_privileges(service: Mapping[str, Any], folder: str) -> Iterator[str]:
    for key in _PRIVILEGED_SERVICE_KEYS:
        if service.get(key) not in (None, False, [], {}, ""):
            yield f"`{key}`"
    for key, own in _NAMESPACES.items():
        value = service.get(key)
        if value and value not in own and not value.startswith("service:"):
            yield f"`{key}: {value}`"
    for option in service.get("security_opt") or ():
        if option not in _HARMLESS_SECURITY:
            yield f"`security_opt: {option}`"
    for origin in service.get("volumes_from") or ():
        if origin.startswith("container:"):
            yield f"the volumes of `{origin}`"
    for mount in service.get("volumes") or ():
        if mount["type"] == "bind":
            if not _is_below(_path(mount), folder):
                yield f"the host path `{_path(mount)}`"
            if (mount.get("bind") or {}).get("propagation"):
                yield "the propagation of a mount"
        elif mount["type"] not in ("volume", "tmpfs", "image"):
            yield f"a mount of type `{mount['type']}`"
    if _reservations_of_other_devices(service):
        yield "devices other than GPUs"


def _reservations_of_other_devices(service: Mapping[str, Any]) -> bool:
    resources = (service.get("deploy") or {}).get("resources") or {}
    devices = (resources.get("reservations") or {}).get("devices") or ()
    return any(
        device.get("driver", "nvidia") not in ("", "nvidia")
        or "gpu" not in (device.get("capabilities") or ["gpu"])
        for device in [*devices, *(service.get("gpus") or ())]
    )


def _check_nesting(model: Model, folder: str) -> None:
    """No service may get what another one can put a link in the place of.

    The engine follows links in the path that it mounts. A service that can write to `./data`
    could make `./data/x` a link to anywhere, and another one, started later, mount it.
    """
    paths = {path for path in bind_paths(model) if _is_below(path, folder)}
    for path in sorted(paths):
        for other in paths - {path}:
            if _is_below(path, other):
                refuse(
                    f"mounts the path `{os.path.relpath(path, folder)}`, which lies in "
                    f"`{os.path.relpath(other, folder)}`, mounted as well; mount them side by side"
                )


def bind_paths(model: Model) -> Iterator[str]:
    """The host paths that the services of a model mount."""
    for service in model["services"].values():
        for mount in service.get("volumes") or ():
            if mount["type"] == "bind":
                yield _path(mount)


def _path(mount: Mapping[str, Any]) -> str:
    return os.path.normpath(str(mount.get("source", "")).replace("$$", "$"))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def complete_model(
    model: Model, *, project: str, labels: Mapping[str, str], bucket: str | None
) -> Model:
    """The stack as it will be started: apart from all others, and marked as ours.

    Args:
        project: the prefix of every name in the engine. Fixed names would collide with those of
            other runs: a `container_name` stays as a name in the stack's networks only.
        labels: for containers, networks and volumes.
        bucket: the folder to mount at `S3_MOUNT_PATH`; None for none.
    """
    services = {
        name: _completed(service, labels, bucket) for name, service in model["services"].items()
    }
    complete = {
        **{key: model[key] for key in ("configs", "secrets") if model.get(key)},
        "name": project,
        "services": services,
    }
    for kind in ("networks", "volumes"):
        complete[kind] = {
            name: entry
            if entry and entry.get("external")
            else {**(entry or {}), "name": f"{project}_{name}", "labels": _labels(entry, labels)}
            for name, entry in (model.get(kind) or {}).items()
        }
    return complete


def _completed(service: Model, labels: Mapping[str, str], bucket: str | None) -> Model:
    done = {
        # Whoever is process 1 ignores SIGTERM unless it handles it; an init passes it on.
        "init": True,
        **service,
        "labels": _labels(service, labels),
        # There is nobody at a terminal, and it would mix the two streams.
        "tty": False,
        # The server has pulled what there is to pull.
        "pull_policy": "never",
        # Output is read from here, all of it, at the pace of the reader: nothing is rotated away,
        # whatever the engine does by default.
        "logging": {
            "driver": "json-file",
            "options": {"max-size": "1t", "max-file": "1", "compress": "false"},
        },
    }
    if done["init"] is None:
        done["init"] = True
    own_name = done.pop("container_name", None)
    if own_name and done.get("networks"):
        done["networks"] = {
            network: {**(options or {}), "aliases": [*(options or {}).get("aliases", ()), own_name]}
            for network, options in done["networks"].items()
        }
    if done.get("ports"):
        # As the server itself, a stack's ports are this machine's alone unless it says otherwise.
        done["ports"] = [{"host_ip": "127.0.0.1", **port} for port in done["ports"]]
    mounts = done.get("volumes") or []
    targets = {os.path.normpath(str(mount.get("target", ""))) for mount in mounts}
    if bucket is not None and S3_MOUNT_PATH not in targets:
        mount = {"type": "bind", "source": _escaped(bucket), "target": S3_MOUNT_PATH}
        done["volumes"] = [*mounts, mount]
    return done


def _labels(entry: Mapping[str, Any] | None, labels: Mapping[str, str]) -> dict[str, str]:
    return {**((entry or {}).get("labels") or {}), **{k: _escaped(v) for k, v in labels.items()}}


def with_environment(model: Model, environment: Mapping[str, str]) -> Model:
    """The model with variables for every service; its own ones win.

    A variable that a service names without a value would have come from the environment of
    whoever starts it. That is the account here, never this process.
    """
    added = {name: _escaped(value) for name, value in environment.items()}
    services = {}
    for name, service in model["services"].items():
        own = service.get("environment") or {}
        given = {key: value for key, value in own.items() if value is not None}
        services[name] = {**service, "environment": {**added, **given}}
    return {**model, "services": services}


def images(model: Model) -> Sequence[str]:
    """The images that its services are made of, each once."""
    named = [service["image"].replace("$$", "$") for service in model["services"].values()]
    mounted = [
        str(mount.get("source", "")).replace("$$", "$")
        for service in model["services"].values()
        for mount in service.get("volumes") or ()
        if mount["type"] == "image"
    ]
    return list(dict.fromkeys([*named, *mounted]))


def replicas(model: Model) -> dict[str, int]:
    """How many containers each service has."""
    return {
        name: int(service.get("scale") or (service.get("deploy") or {}).get("replicas") or 1)
        for name, service in model["services"].items()
    }


def _escaped(text: str) -> str:
    return text.replace("$", "$$")
