"""The runner of Docker images: a `RunOrder` in, a `RunHandle` out.

The server pulls the image, since the credentials for it must reach no disk; from then on the run
belongs to its supervisor (see `runner` and `container_work`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ....protocol.requests import Start, StartImage
from ....protocol.sessions import FOLDER_IN_CONTAINER, FOLDER_VARIABLE
from ...gpus import has_gpu
from ...output.masking import program_variables
from ...sessions.files import SnapshotFiles
from ..base import InvalidField, ProgressListener, Refusal, RunOrder, Usage
from ..folder import report
from .container_work import ContainerPlan, Mount
from .engine import (
    NEEDS_TOOLKIT,
    RUN_LABEL,
    container_name,
    hands_out_gpus,
    remove_container,
    usage_of,
)  # fmt: skip
from .images import parse_reference, provide
from .registry import check_credentials, sign_in
from .runner import EngineRunner

if TYPE_CHECKING:
    from docker import DockerClient

#: The size that Linux allows one argument or variable, without the zero byte after it.
_MAX_ARGUMENT_BYTES = 128 * 1024 - 1

#: The name of an environment variable as engines take it; a `.` or `-` in it is not rare.
_VARIABLE_NAME = re.compile(r"[^\s=\0]+")

#: Folders that a program needs: nothing is mounted over them, nor inside of those of the kernel.
_SYSTEM_FOLDERS = frozenset(
    f"/{name}"
    for name in (
        *("", "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run"),
        *("sbin", "sys", "usr", "usr/bin", "usr/lib", "usr/lib64", "usr/local", "usr/local/bin"),
        *("usr/local/lib", "usr/sbin", "usr/share", "var", "var/lib", "var/run"),
    )
)
_KERNEL_FOLDERS = ("/dev/", "/proc/", "/sys/")


class ContainerRunner(EngineRunner):
    """A `Runner` that starts each image in a container of the engine that DOCKER_HOST names.

    Args:
        state_dir: marks the containers of this server among others.
        bucket: the folder that is mounted as the account's storage.
    """

    def __init__(self, state_dir: Path, *, bucket: Path) -> None:
        super().__init__(state_dir, bucket=bucket, kind="image", supervisor="engine.container_work")

    async def check(self, request: Start) -> None:
        assert isinstance(request, StartImage)
        check_fields(request)
        check_credentials(request)
        await self._engine.client()

    async def prepare(
        self, run_order: RunOrder, on_progress: ProgressListener
    ) -> Mapping[str, Any]:
        request = run_order.request
        assert isinstance(request, StartImage)
        client = await self._engine.client()
        credentials = await asyncio.to_thread(sign_in, request)
        image = await provide(request.docker_image_ref, client, credentials, on_progress)
        on_progress("starting the container")
        has_gpus = run_order.has_gpu and await asyncio.to_thread(hands_out_gpus, client)
        if run_order.has_gpu and not has_gpus and has_gpu():
            report(run_order, NEEDS_TOOLKIT)
        mounts = []
        if request.enable_s3_mount:
            mounts.append(Mount(source=self.mounted_bucket(), target=request.s3_mount_path))
        if run_order.session_folder is not None:
            SnapshotFiles(run_order.session_folder).make(for_any_user=True)
            mounts.append(Mount(source=str(run_order.session_folder), target=FOLDER_IN_CONTAINER))
        plan = ContainerPlan(
            name=container_name(run_order.run_id),
            image=image,
            # An empty list is no command either.
            command=request.docker_run_cmd or None,
            environment=container_environment(run_order, request),
            user=request.docker_user or None,
            entry_point=request.docker_entrypoint or "keep",
            has_init=request.docker_init is not False,
            mounts=mounts,
            has_gpus=has_gpus,
            labels=self.labels(run_order.run_id),
        )
        return {**plan}

    def usage(self, client: DockerClient, run_id: str) -> Usage | None:
        return usage_of(client.api.stats(container_name(run_id), stream=False, one_shot=True))

    def remove(self, client: DockerClient, run_id: str) -> None:
        remove_container(client, container_name(run_id))

    def found(self, client: DockerClient) -> Iterable[str]:
        for container in client.api.containers(all=True, filters=self.own):
            yield container["Labels"][RUN_LABEL]


# --- what is asked for -----------------------------------------------------------------------


def check_fields(request: StartImage) -> None:
    """Check the fields for which no engine is needed.

    Raises:
        InvalidField: a field cannot be used.
    """
    try:
        parse_reference(request.docker_image_ref)
    except ValueError as exc:
        raise InvalidField(
            "docker_image_ref must be the name of an image such as python:3.12 or "
            f"registry.example.com/team/tool:1.0, in lower case; {exc}.",
            field="docker_image_ref",
        ) from None
    for number, argument in enumerate(request.docker_run_cmd or (), start=1):
        _check_size(argument, f"argument {number}", "docker_run_cmd")
    if request.docker_entrypoint == "skip" and not request.docker_run_cmd:
        raise InvalidField(
            "docker_entrypoint can be `skip` only where there is a command to run instead; give "
            "docker_run_cmd.",
            field="docker_entrypoint",
        )
    decode_environment(request.docker_run_env or "")
    if request.docker_user is not None:
        _check_size(request.docker_user, "the user", "docker_user")
    if request.enable_s3_mount:
        _check_mount_path(request.s3_mount_path)
        if request.session and _plain(request.s3_mount_path) == FOLDER_IN_CONTAINER:
            raise InvalidField(
                f"s3_mount_path must not be {FOLDER_IN_CONTAINER} in a session, whose files are "
                "there; choose another one such as /mnt/s3.",
                field="s3_mount_path",
            )


def decode_environment(text: str) -> dict[str, str | None]:
    """Return the variables in a `docker_run_env` field, lines `NAME=value`.

    A line without `=` gives None, as `docker run -e NAME` does where NAME is not set.

    Raises:
        InvalidField: a line has no name, or is too long; the message does not quote it.
    """
    field = "docker_run_env"
    variables: dict[str, str | None] = {}
    # Not splitlines(): a value may contain what else that takes for the end of a line.
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        _check_size(line, f"line {number}", field)
        name, equals, value = line.partition("=")
        if not _VARIABLE_NAME.fullmatch(name):
            raise InvalidField(
                f"{field} must be lines NAME=value; line {number} has no name that a variable can "
                "have (a value cannot go on in the next line).",
                field=field,
            )
        variables[name] = value if equals else None
    return variables


def _check_size(text: str, what: str, field: str) -> None:
    size = len(text.encode())
    if size > _MAX_ARGUMENT_BYTES:
        raise InvalidField(
            f"{what} of {field} has {size} bytes, and a program takes at most "
            f"{_MAX_ARGUMENT_BYTES}; put it into a file of the storage or of the image.",
            field=field,
        )
    if "\0" in text:
        raise InvalidField(f"{what} of {field} contains a zero byte, which ends it.", field=field)


def _check_mount_path(path: str) -> None:
    field = "s3_mount_path"
    parts = PurePosixPath(path)
    if not parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise InvalidField(
            f"{field} must be an absolute path without `..` such as /mnt/s3; it is {path[:300]!r}.",
            field=field,
        )
    plain = _plain(path)
    if plain in _SYSTEM_FOLDERS or plain.startswith(_KERNEL_FOLDERS):
        raise InvalidField(
            f"{field} must not hide what programs need, as {plain} would; choose another one "
            "such as /mnt/s3.",
            field=field,
        )


def _plain(path: str) -> str:
    return "/" + "/".join(PurePosixPath(path).parts[1:])


def container_environment(run_order: RunOrder, request: StartImage) -> list[str]:
    """Return the account's secrets and the request's variables, which win, as engines take them.

    Raises:
        Refusal: a secret is too long.
    """
    variables: dict[str, str | None] = {
        **program_variables(run_order.environment), "LYCEUM_RUN_ID": run_order.run_id,
    }  # fmt: skip
    for name, value in run_order.environment.items():
        if len(f"{name}={value}".encode()) > _MAX_ARGUMENT_BYTES:
            raise Refusal(
                f"the secret {name} is too long for a variable: with its name it may have "
                f"{_MAX_ARGUMENT_BYTES} bytes"
            )
    for name, asked in decode_environment(request.docker_run_env or "").items():
        # A name alone means the variable around: here that is the account's.
        if asked is not None or name not in variables:
            variables[name] = asked
    if run_order.session_folder is not None:
        variables[FOLDER_VARIABLE] = FOLDER_IN_CONTAINER
    return [name if value is None else f"{name}={value}" for name, value in variables.items()]
