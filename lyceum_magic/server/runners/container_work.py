"""What an image run does in the engine: one container, from its creation to its removal.

See `attendant`, whose process this is.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict, cast

from .attendant import EngineAssignment, Events, attend_one_run
from .base import Refusal
from .engine import connect, explanation, remove_container
from .supervisor import describe_return_code

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.errors import APIError
    from docker.models.containers import Container

#: What a shell, and whatever starts a program in a container, return for one that is not there or
#: cannot be executed.
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127

_NOT_EXECUTED = re.compile(rb"\[FATAL tini[^]]*\] exec (.*) failed: ")
_FIRST_BYTES = 4096


class Mount(TypedDict):
    """A folder of this machine, and where it appears in the container."""

    source: str
    target: str


class ContainerPlan(TypedDict):
    """The container to be.

    Attributes:
        command: None for the image's own.
        environment: `NAME=value`; a name alone takes a variable of the image's away.
    """

    name: str
    image: str
    command: list[str] | None
    environment: list[str]
    user: str | None
    mount: Mount | None
    has_gpus: bool
    labels: dict[str, str]


class ContainerWork:
    """A `Work`."""

    def __init__(self, assignment: EngineAssignment) -> None:
        self._plan = cast(ContainerPlan, assignment["work"])
        # Held while the container starts, so that an order comes either before it or after it.
        self._lock = threading.Lock()
        self._container: Container | None = None  # once it has been started
        self._is_over = False

    def run(self, events: Events) -> tuple[int, str]:
        self.remove()  # what an earlier attempt may have left
        container = self._create()
        # Before the start: nothing is missed. Not its logs: they hold back unfinished lines.
        output = container.attach(stdout=True, stderr=True, stream=True, demux=True)
        with self._lock:
            if self._is_over:
                raise Refusal("the run was ended before its container began")
            if end := self._start(container):
                return end
            self._container = container
        events.started()
        first_errors = b""
        for stdout, stderr in output:
            if stdout:
                events.output("stdout", stdout)
            if stderr:
                events.output("stderr", stderr)
                first_errors += stderr[: _FIRST_BYTES - len(first_errors)]
        code = container.wait()["StatusCode"]
        container.reload()
        return code, self._describe(code, first_errors, container)

    def stop(self, grace_s: float) -> None:
        if container := self._end():
            from docker.errors import NotFound

            with contextlib.suppress(NotFound):  # it ended meanwhile
                # The engine itself keeps the time, also where this process dies meanwhile.
                container.stop(timeout=math.ceil(grace_s))

    def kill(self) -> None:
        if container := self._end():
            from docker.errors import APIError

            try:
                container.kill()
            except APIError as exc:
                if exc.status_code not in (404, 409):  # it ended meanwhile
                    raise

    def remove(self) -> None:
        remove_container(self._client, self._plan["name"])

    @cached_property
    def _client(self) -> DockerClient:
        return connect()

    def _end(self) -> Container | None:
        """The container that is to be ended; None where there never will be one that runs."""
        with self._lock:
            self._is_over = True
            return self._container

    def _create(self) -> Container:
        from docker.errors import APIError
        from docker.types import DeviceRequest, LogConfig
        from docker.types import Mount as BindMount

        plan = self._plan
        mount = plan["mount"]
        gpus = DeviceRequest(count=-1, capabilities=[["gpu"]])
        try:
            return self._client.containers.create(
                plan["image"],
                plan["command"],
                name=plan["name"],
                labels=plan["labels"],
                environment=plan["environment"],
                user=plan["user"],
                mounts=[BindMount(**mount, type="bind")] if mount else [],
                device_requests=[gpus] if plan["has_gpus"] else [],
                # A program that is process 1 itself would ignore SIGTERM, and leave zombies.
                init=True,
                # The output is ours: a second copy would fill the disk, with its secrets in it.
                log_config=LogConfig(type=LogConfig.types.NONE),
            )
        except APIError as exc:
            raise self._refusal(exc) from exc

    def _start(self, container: Container) -> tuple[int, str] | None:
        """Starts it; the end of the run where there is no such program in it."""
        from docker.errors import APIError

        try:
            container.start()
        except APIError as exc:
            said = explanation(exc).lower()
            # Where an engine has no init of its own it finds out itself.
            if "executable file not found" in said or "no such file or directory: unknown" in said:
                return _NOT_FOUND, self._not_executed(_NOT_FOUND)
            if "permission denied: unknown" in said:
                return _NOT_EXECUTABLE, self._not_executed(_NOT_EXECUTABLE)
            raise self._refusal(exc) from exc
        return None

    def _refusal(self, exc: APIError) -> Exception:
        said = explanation(exc)
        plan = self._plan
        match said.lower():
            case text if "no command specified" in text:
                sentence = (
                    f"the image {plan['image']} has no command of its own; give docker_run_cmd"
                )
            case text if "unable to find user" in text or "unable to find group" in text:
                sentence = (
                    f"the image {plan['image']} has no user {plan['user']!r}; give docker_user "
                )
                sentence += "as one that its /etc/passwd names, or as a number"
            case text if "bind source path does not exist" in text:
                sentence = (
                    "the engine does not see this machine's folders, and so not the storage; "
                )
                sentence += "start the run without enable_s3_mount"
            case text if "argument list too long" in text:
                sentence = "docker_run_cmd and docker_run_env are too long together for a program"
            case _ if exc.is_client_error() or "oci runtime" in said.lower():
                sentence = f"the container could not be started: {said}"
            case _:
                return exc
        return Refusal(sentence)

    def _describe(self, code: int, first_errors: bytes, container: Container) -> str:
        if code and container.attrs["State"].get("OOMKilled"):
            limit = container.attrs["HostConfig"].get("Memory")
            return "the container ran out of memory" + (
                f" (its limit is {limit / 2**20:.0f} MiB)" if limit else ""
            )
        if code in (_NOT_FOUND, _NOT_EXECUTABLE) and _NOT_EXECUTED.match(first_errors):
            return self._not_executed(code)
        if code == _NOT_FOUND:
            return f"the program ended with exit code {code}: a command was not found"
        if code == _NOT_EXECUTABLE:
            return f"the program ended with exit code {code}: a command cannot be executed"
        return describe_return_code(code) if code else ""

    def _not_executed(self, code: int) -> str:
        command = self._plan["command"]
        program = f"the command {command[0]!r}" if command else "the image's command"
        if code == _NOT_FOUND:
            return f"{program} was not found in the image {self._plan['image']}"
        return f"{program} cannot be executed in the image {self._plan['image']}"


if __name__ == "__main__":
    attend_one_run(ContainerWork)
