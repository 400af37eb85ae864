"""The model of a stack: the output of `docker compose config`, with one spelling for each thing.

Here it is completed, and asked about.

In a model a `$` is written `$$`.
"""

from __future__ import annotations

import os.path
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

#: Where the account's bucket is mounted.
S3_MOUNT_PATH = "/mnt/s3"

#: The condition of a dependency that is a step before the service, not something it uses.
_COMPLETED = "service_completed_successfully"

Model = dict[str, Any]


def complete_model(
    model: Model, *, project: str, labels: Mapping[str, str], bucket: str | None
) -> Model:
    """Return the stack as it will be started: apart from all others, and marked as this server's.

    Args:
        project: the prefix of every name in the engine. Fixed names would collide with those of
            other runs: a `container_name` stays as a name in the stack's networks only.
        labels: for containers, networks and volumes.
        bucket: the folder to mount at `S3_MOUNT_PATH`; None for none.
    """
    services = {
        name: _completed(_without_absent(service, model["services"]), labels, bucket)
        for name, service in model["services"].items()
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


def _without_absent(service: Model, present: Collection[str]) -> Model:
    """Return the service without its optional dependencies on services of other profiles.

    Compose accepts them in a file, and refuses them in the model that it makes of it.
    """
    needed = {
        name: terms
        for name, terms in (service.get("depends_on") or {}).items()
        if name in present or terms.get("required", True)
    }
    return {**service, "depends_on": needed}


def _completed(service: Model, labels: Mapping[str, str], bucket: str | None) -> Model:
    done = {
        # Process 1 ignores SIGTERM unless it handles it; an init passes it on.
        "init": True,
        **service,
        "labels": _labels(service, labels),
        # No user is at a terminal, and it would mix the two streams. No input comes either, so a
        # program that reads gets the end of file at once.
        "tty": False,
        "stdin_open": False,
        # The server has pulled what there is to pull.
        "pull_policy": "never",
        # All output is read from here at the reader's pace: nothing is rotated away, whatever the
        # engine does by default.
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
        mount = {"type": "bind", "source": escaped(bucket), "target": S3_MOUNT_PATH}
        done["volumes"] = [*mounts, mount]
    return done


def _labels(entry: Mapping[str, Any] | None, labels: Mapping[str, str]) -> dict[str, str]:
    return {**((entry or {}).get("labels") or {}), **{k: escaped(v) for k, v in labels.items()}}


def with_environment(model: Model, environment: Mapping[str, str]) -> Model:
    """Return the model with variables for every service; a service's own ones win.

    Compose takes a variable that a service names without a value from its own environment. Here
    its value comes from the account, never from this process.
    """
    added = {name: escaped(value) for name, value in environment.items()}
    services = {}
    for name, service in model["services"].items():
        own = service.get("environment") or {}
        given = {key: value for key, value in own.items() if value is not None}
        services[name] = {**service, "environment": {**added, **given}}
    return {**model, "services": services}


def without_gpus(model: Model) -> Model:
    """Return the model without any request for a GPU; the same object if it has none."""
    services = {name: _without_gpus(service) for name, service in model["services"].items()}
    return model if services == model["services"] else {**model, "services": services}


def _without_gpus(service: Model) -> Model:
    done = {key: value for key, value in service.items() if key != "gpus"}
    deploy = service.get("deploy") or {}
    resources = deploy.get("resources") or {}
    reservations = resources.get("reservations") or {}
    if reservations.get("devices"):
        devices = [each for each in reservations["devices"] if not is_gpu(each)]
        reservations = {**reservations, "devices": devices}
        done["deploy"] = {**deploy, "resources": {**resources, "reservations": reservations}}
    return done


def is_gpu(device: Mapping[str, Any]) -> bool:
    """Return whether a reserved device is a GPU."""
    is_nvidia = device.get("driver", "nvidia") in ("", "nvidia")
    return is_nvidia and "gpu" in (device.get("capabilities") or ["gpu"])


def images(model: Model) -> Sequence[str]:
    """Return the images that the services are made of, each once."""
    named = [service["image"].replace("$$", "$") for service in model["services"].values()]
    mounted = [
        str(mount.get("source", "")).replace("$$", "$")
        for service in model["services"].values()
        for mount in service.get("volumes") or ()
        if mount["type"] == "image"
    ]
    return list(dict.fromkeys([*named, *mounted]))


def awaited(model: Model, jobs: Collection[str]) -> set[str]:
    """Return the services whose end is the end of the stack.

    Those are the jobs that no other service depends on: a database without a restart policy serves
    the others, and never ends by itself. If a service that serves depends on every job, the jobs
    count whose completion it does not wait for. If there is no job at all, as in a stack of
    servers, all services count.

    Args:
        jobs: the services that end by themselves.
    """
    conditions: dict[str, set[str]] = {}
    for service in model["services"].values():
        for needed, terms in (service.get("depends_on") or {}).items():
            conditions.setdefault(needed, set()).add(terms["condition"])
    last = {job for job in jobs if job not in conditions}
    alongside = {job for job in jobs if _COMPLETED not in conditions.get(job, ())}
    return last or alongside or set(model["services"])


def replicas(model: Model) -> dict[str, int]:
    """Return how many containers each service has."""
    return {
        name: int(service.get("scale") or (service.get("deploy") or {}).get("replicas") or 1)
        for name, service in model["services"].items()
    }


def escaped(text: str) -> str:
    """Return a text as it has to stand in a model."""
    return text.replace("$", "$$")


def bind_paths(model: Model) -> Iterator[str]:
    """Yield the host paths that the services of a model mount."""
    for service in model["services"].values():
        for mount in service.get("volumes") or ():
            if mount["type"] == "bind":
                yield host_path(mount)


def host_path(mount: Mapping[str, Any]) -> str:
    """Return the path on this machine that a bind mount names."""
    return os.path.normpath(str(mount.get("source", "")).replace("$$", "$"))
