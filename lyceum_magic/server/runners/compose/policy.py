"""The limits of a stack: it may ask nothing of this machine, unless the server allows it."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .file import refuse
from .model import Model, bind_paths, host_path, is_gpu
from .secrets import FILE_KINDS, file_path, file_paths

_TOP_KEYS = frozenset({"name", "services", "networks", "volumes", "configs", "secrets"})
_SERVICE_KEYS = frozenset({
    "attach", "cap_drop", "cgroup", "command", "configs", "container_name",
    "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_shares", "cpus", "cpuset",
    "depends_on", "deploy", "dns", "dns_opt", "dns_search", "domainname", "entrypoint",
    "environment", "expose", "extra_hosts", "gpus", "group_add", "healthcheck", "hostname",
    "image", "init", "ipc", "labels", "links", "logging", "mac_address", "mem_limit",
    "mem_reservation", "mem_swappiness", "memswap_limit", "network_mode", "networks",
    "pid", "pids_limit", "platform", "ports", "profiles", "pull_policy",
    "read_only", "restart", "scale", "secrets", "security_opt", "shm_size", "stdin_open",
    "stop_grace_period", "stop_signal", "storage_opt", "sysctls", "tmpfs", "tty", "ulimits",
    "user", "userns_mode", "uts", "volumes", "volumes_from", "working_dir",
})  # fmt: skip
# Keys that every value but false and nothing makes dangerous.
_PRIVILEGED_SERVICE_KEYS = frozenset({
    "annotations", "blkio_config", "cap_add", "cgroup_parent", "cpu_rt_period", "cpu_rt_runtime",
    "device_cgroup_rules", "devices", "external_links", "isolation", "oom_kill_disable",
    "oom_score_adj", "privileged", "runtime", "use_api_socket",
})  # fmt: skip
# Keys that choose the namespace of a service -> the values that mean one of its own.
_NAMESPACES: dict[str, set[str]] = {
    "network_mode": {"bridge", "none"},
    "pid": set(),
    "ipc": {"private", "shareable", "none"},
    "uts": set(),
    "cgroup": {"private"},
    "userns_mode": set(),
}
_HARMLESS_SECURITY = {"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}


def check_model(model: Model, folder: str, *, allow_privileged: bool) -> None:
    """Refuse stacks that do not keep to themselves.

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
            refuse(f"uses `{key}`, which stacks cannot have here", key)
    for name, service in model["services"].items():
        for key in service:
            if (
                key not in _SERVICE_KEYS | _PRIVILEGED_SERVICE_KEYS
                and not key.startswith("x-")
                and service[key]
            ):
                refuse(
                    f"uses `{key}` in service `{name}`, which stacks cannot have here",
                    "services", name, key,
                )  # fmt: skip
    wish = next(_privileges(model, folder), None)
    if wish is not None and not allow_privileged:
        refuse(
            f"asks for {wish.phrase}, and a stack may have nothing of the machine it runs on; "
            "leave it out, or serve with `--allow-privileged`",
            *wish.place,
        )
    if not allow_privileged:
        _check_files(model, folder)
    _check_nesting(model, folder)


@dataclass(frozen=True)
class _Wish:
    """Something of this machine that a stack asks for, and the keys that lead to it."""

    phrase: str
    place: tuple[str, ...]


def _privileges(model: Model, folder: str) -> Iterator[_Wish]:
    """Yield what a stack asks of this machine beyond containers."""
    for name, service in model["services"].items():
        for key, wish in _service_privileges(service, folder):
            yield _Wish(f"{wish} in service `{name}`", ("services", name, key))
    for kind, name, wish in _shared_privileges(model):
        yield _Wish(wish, (kind, name))


def _shared_privileges(model: Model) -> Iterator[tuple[str, str, str]]:
    """Yield what networks and volumes ask for: kind, name and phrase."""
    for name, network in (model.get("networks") or {}).items():
        if network and network.get("external"):
            yield "networks", name, f"the external network `{name}`"
        elif network and (
            network.get("driver", "bridge") != "bridge" or network.get("driver_opts")
        ):
            yield "networks", name, f"a driver or its options for network `{name}`"
        elif network and network.get("ipam"):
            # The machine's own route to these addresses would lead into the stack.
            yield "networks", name, f"addresses of its own choice for network `{name}`"
    for name, volume in (model.get("volumes") or {}).items():
        if volume and volume.get("external"):
            yield "volumes", name, f"the external volume `{name}`"
        elif volume and (volume.get("driver", "local") != "local" or volume.get("driver_opts")):
            yield "volumes", name, f"a driver or its options for volume `{name}`"


def _service_privileges(service: Mapping[str, Any], folder: str) -> Iterator[tuple[str, str]]:
    """Yield what a service asks for: the key that does so, and a phrase."""
    for key in _PRIVILEGED_SERVICE_KEYS:
        if service.get(key) not in (None, False, [], {}, ""):
            yield key, f"`{key}`"
    for key, own in _NAMESPACES.items():
        value = service.get(key)
        if value and value not in own and not value.startswith("service:"):
            yield key, f"`{key}: {value}`"
    for option in service.get("security_opt") or ():
        if option not in _HARMLESS_SECURITY:
            yield "security_opt", f"`security_opt: {option}`"
    for origin in service.get("volumes_from") or ():
        if origin.startswith("container:"):
            yield "volumes_from", f"the volumes of `{origin}`"
    for mount in service.get("volumes") or ():
        if mount["type"] == "bind":
            if not _is_below(host_path(mount), folder):
                yield "volumes", f"the host path `{host_path(mount)}`"
            if (mount.get("bind") or {}).get("propagation"):
                yield "volumes", "the propagation of a mount"
        elif mount["type"] not in ("volume", "tmpfs", "image"):
            yield "volumes", f"a mount of type `{mount['type']}`"
    if _reservations_of_other_devices(service):
        yield "deploy", "devices other than GPUs"


def _check_files(model: Model, folder: str) -> None:
    for kind in FILE_KINDS:
        for name, entry in (model.get(kind) or {}).items():
            if (path := file_path(entry)) and not _is_below(path, folder):
                refuse(
                    f"takes `{name}` of its {kind} from the file `{path}`, and a stack reads no "
                    f"file of this machine; set the value with `%lyceum secrets set {name}`, and "
                    f"write `environment: {name}` in place of `file`",
                    kind, name, "file",
                )  # fmt: skip


def _reservations_of_other_devices(service: Mapping[str, Any]) -> bool:
    resources = (service.get("deploy") or {}).get("resources") or {}
    devices = (resources.get("reservations") or {}).get("devices") or ()
    return any(not is_gpu(device) for device in [*devices, *(service.get("gpus") or ())])


def _check_nesting(model: Model, folder: str) -> None:
    """Refuse a service that mounts something below a folder in which another service could put a
    link.

    The engine follows links in the path that it mounts. A service that can write to `./data`
    could make `./data/x` a link to anywhere, and another one, started later, mount it.
    """
    paths = {path for path in [*bind_paths(model), *file_paths(model)] if _is_below(path, folder)}
    for path in sorted(paths):
        for other in paths - {path}:
            if _is_below(path, other):
                refuse(
                    f"mounts the path `{os.path.relpath(path, folder)}`, which lies in "
                    f"`{os.path.relpath(other, folder)}`, mounted as well; mount them side by side"
                )


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
