"""The work of an image run in the engine: one container, from its creation to its removal.

See `supervisor`, whose process this is.
"""

from __future__ import annotations

import re
import threading
from functools import cached_property, partial
from posixpath import basename
from typing import TYPE_CHECKING, TypedDict, cast

from ..base import Refusal
from ..control import describe_return_code
from ..process.memory import out_of_memory
from .engine import NEEDS_PID_1, connect, explanation, remove_container, unless_over
from .entry_points import hands_over, read_script
from .soft_end import end_softly
from .supervisor import EngineAssignment, Events, supervise_one_run

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.errors import APIError
    from docker.models.containers import Container

    from ....protocol.requests import EntryPoint

#: The exit codes for a program that cannot be executed or does not exist, by shells and engines.
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
_KILLED = 137

#: The words in which a container's init, or without one the engine, says so of the run's command.
_INIT_SAYS = re.compile(rb"\[FATAL tini[^]]*\] exec (.*) failed: ")
_ENGINE_SAYS = re.compile(r'exec: "(.*?)": .*(executable file not found|no such file|denied)')
_FIRST_BYTES = 4096


class Mount(TypedDict):
    """A folder of this machine, and where it appears in the container."""

    source: str
    target: str


class ContainerPlan(TypedDict):
    """The container to create.

    Attributes:
        command: None for the image's own.
        environment: `NAME=value`; a name alone removes a variable of the image.
        entry_point: see `StartImage`.
        has_init: whether an init is process 1, and not the program itself.
    """

    name: str
    image: str
    command: list[str] | None
    environment: list[str]
    user: str | None
    entry_point: EntryPoint
    has_init: bool
    mounts: list[Mount]
    has_gpus: bool
    labels: dict[str, str]


class ContainerWork:
    """A container as a `Work`."""

    def __init__(self, assignment: EngineAssignment) -> None:
        self._plan = cast(ContainerPlan, assignment["work"])
        self._grace_s = assignment["stop_grace_s"]
        # Held while the container starts, so that an order comes either before it or after it.
        self._lock = threading.Lock()
        self._container: Container | None = None  # once it has been started
        self._is_over = False
        self._entry_point: list[str] = []  # that was kept because it hands over its arguments

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
        return self._result(container, first_errors)

    def stop(self) -> None:
        if self._end():
            end_softly(self._client, self._plan["name"], self._grace_s)

    def kill(self) -> None:
        if container := self._end():
            with unless_over():
                container.kill()

    def remove(self) -> None:
        remove_container(self._client, self._plan["name"])

    @cached_property
    def _client(self) -> DockerClient:
        return connect()

    def _end(self) -> Container | None:
        """Return the container to end; None if none runs, and then none will."""
        with self._lock:
            self._is_over = True
            return self._container

    def _create(self) -> Container:
        plan = self._plan
        command, choice = plan["command"], plan["entry_point"]
        if not command:
            return self._create_with(None, None)
        if choice == "skip":
            return self._create_with(command[:1], command[1:])
        container = self._create_with(None, command)
        entry_point = container.attrs["Config"].get("Entrypoint") or []
        if choice == "keep":
            return container
        if hands_over(entry_point, partial(read_script, container)):
            self._entry_point = entry_point
            return container
        container.remove(v=True)
        return self._create_with(command[:1], command[1:])

    def _create_with(self, entry_point: list[str] | None, command: list[str] | None) -> Container:
        """Create the container, with an entry point in place of the image's if one is given."""
        from docker.errors import APIError
        from docker.types import DeviceRequest, LogConfig
        from docker.types import Mount as BindMount

        plan = self._plan
        gpus = DeviceRequest(count=-1, capabilities=[["gpu"]])
        try:
            return self._client.containers.create(
                plan["image"],
                command,
                entrypoint=entry_point,
                name=plan["name"],
                labels=plan["labels"],
                environment=plan["environment"],
                user=plan["user"],
                mounts=[BindMount(**mount, type="bind") for mount in plan["mounts"]],
                device_requests=[gpus] if plan["has_gpus"] else [],
                # A program that is process 1 itself would ignore SIGTERM, and leave zombies.
                init=plan["has_init"],
                # The output is ours: a second copy would fill the disk, with its secrets in it.
                log_config=LogConfig(type=LogConfig.types.NONE),
            )
        except APIError as exc:
            raise self._refusal(exc) from exc

    def _start(self, container: Container) -> tuple[int, str] | None:
        """Start it; return the end of the run if the container has no such program."""
        from docker.errors import APIError

        try:
            container.start()
        except APIError as exc:
            if said := _ENGINE_SAYS.search(explanation(exc)):
                code = _NOT_EXECUTABLE if said[2] == "denied" else _NOT_FOUND
                return code, self._not_executed(code, said[1])
            raise self._refusal(exc) from exc
        return None

    def _refusal(self, exc: APIError) -> Exception:
        """Return a Refusal if the reason lies in the run, else the error itself."""
        plan, said = self._plan, explanation(exc)
        known = {
            "no command specified": f"the image {plan['image']} has no command of its own; give "
            "docker_run_cmd",
            "unable to find user": f"the image {plan['image']} has no user {plan['user']!r}; give "
            "docker_user as one that its /etc/passwd names, or as a number",
            "unable to find group": f"the image {plan['image']} has no such group as in "
            f"docker_user {plan['user']!r}; give one that its /etc/group names, or a number",
            "bind source path does not exist": "the engine does not see this machine's folders, "
            "and so not the storage; start the run with enable_s3_mount false",
            "argument list too long": "docker_run_cmd and docker_run_env are too long together "
            "for a program",
        }
        for words, sentence in known.items():
            if words in said.lower():
                return Refusal(sentence)
        if exc.is_client_error() or "OCI runtime" in said:
            return Refusal(f"the container could not be started: {said}")
        return exc

    def _result(self, container: Container, first_errors: bytes) -> tuple[int, str]:
        """Return the program's exit code, and a sentence about it.

        Args:
            first_errors: the first bytes it wrote to stderr.
        """
        from docker.errors import NotFound

        try:
            code: int = container.wait()["StatusCode"]
            container.reload()
        except NotFound:
            return _KILLED, "the run's container was removed, and not by this server"
        if code and container.attrs["State"].get("OOMKilled"):
            limit_bytes = container.attrs["HostConfig"].get("Memory") or 0
            return code, out_of_memory(limit_bytes, "the container")
        if code and self._plan["has_init"] and NEEDS_PID_1.search(first_errors):
            return code, (
                f"a program of the image {self._plan['image']} has to be process 1, where a small "
                "init is; run it with --no-init (init=False)"
            )
        if said := _INIT_SAYS.match(first_errors):
            return code, self._not_executed(code, said[1].decode(errors="replace"))
        match code:
            case 0:
                return code, ""
            case 126:
                return code, "the program ended with exit code 126: a command cannot be executed"
            case 127:
                return code, "the program ended with exit code 127: a command was not found"
        if self._entry_point and code < _NOT_EXECUTABLE:
            # One may hand over some commands and refuse others, such as `sh`.
            return code, (
                f"{describe_return_code(code)}; the image's entry point "
                f"{basename(self._entry_point[0])!r} was given the command, and may have refused "
                "it: --entrypoint skip runs the command without it"
            )
        return code, describe_return_code(code)

    def _not_executed(self, code: int, program: str) -> str:
        what = "was not found" if code == _NOT_FOUND else "cannot be executed"
        return f"the command {program!r} {what} in the image {self._plan['image']}"


if __name__ == "__main__":
    supervise_one_run(ContainerWork)
