"""The container engine of images and stacks: how to reach it, and what it knows of runs.

The engine is the one that DOCKER_HOST names, or Docker's current context: Docker, or Podman's
socket. The package that talks to it is imported when it is first needed: the server starts without
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..base import EngineUnavailable, Usage

if TYPE_CHECKING:
    from docker import DockerClient

#: Labels of all that a run has in the engine: its id, its kind, and the state folder of the server
#: that it belongs to.
RUN_LABEL = "lyceum.run"
KIND_LABEL = "lyceum.kind"
STATE_LABEL = "lyceum.state"

#: What inits such as s6-overlay, systemd, runit and busybox's say when another one is process 1.
NEEDS_PID_1 = re.compile(
    rb"(?:\bas|\bbe|\bnot) (?:pid|process)(?: no\.?| number| id)? ?1\b"
    rb"|not been booted with systemd|alternative telinit implementation",
    re.IGNORECASE,
)

#: Without a GPU in this machine the run's record says so; here only the engine stands in between.
NEEDS_TOOLKIT = (
    b"the engine hands out no GPU, so this runs on the CPU; "
    b"install NVIDIA's container toolkit on its machine\n"
)

#: How long the engine may take to answer; a working one takes milliseconds.
PATIENCE_S = 60

#: The same for what a user waits for, such as the start of a run.
_SHORT_PATIENCE_S = 5

#: How long an answer of the engine, or its lack, is taken to hold. In seconds.
_MEMORY_S = 2.0

#: The variables that say where the engine is and how to talk to it.
_VARIABLES = (
    "DOCKER_HOST",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
)
_HOW_TO_GET_ONE = (
    "install and start Docker, or start Podman's socket and set DOCKER_HOST to it, "
    "or run this in the cloud"
)


def engine_environment(source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables with which a process reaches the same engine as this one."""
    return {name: source[name] for name in _VARIABLES if name in source}


def connect(timeout_s: int = PATIENCE_S) -> DockerClient:
    """Return a client of an engine that has answered. Blocks.

    Args:
        timeout_s: how long the engine may be silent, now and in later calls.

    Raises:
        EngineUnavailable: there is none, it does not answer, or the package is missing.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError as exc:
        raise EngineUnavailable(
            "Images and stacks need the package `docker`, which is not installed here; "
            "pip install 'lyceum-magic[containers]', then start the server again."
        ) from exc
    try:
        # It asks the engine for its version: there is no client of an engine that is not there.
        return docker.from_env(timeout=timeout_s)
    except (DockerException, OSError) as exc:
        host = os.environ.get("DOCKER_HOST")
        place = f"at DOCKER_HOST={host}" if host else "on this machine"
        raise EngineUnavailable(f"No container engine answers {place}; {_HOW_TO_GET_ONE}.") from exc


class Engine:
    """One client of the engine for the whole server, checked shortly before each use.

    To be used in one event loop.
    """

    def __init__(self) -> None:
        self._client: DockerClient | None = None
        self._failure = ""
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def client(self) -> DockerClient:
        """Return a client with little patience.

        Raises:
            EngineUnavailable: there is no engine; it was looked for now, or moments ago.
        """
        async with self._looking:
            if time.monotonic() - self._looked_at > _MEMORY_S:
                try:
                    self._client = await asyncio.to_thread(self._look)
                    self._failure = ""
                except EngineUnavailable as exc:
                    self.close()
                    self._failure = str(exc)
                self._looked_at = time.monotonic()
        if self._client is None:
            raise EngineUnavailable(self._failure)
        return self._client

    def client_at_once(self) -> DockerClient:
        """Return the client without another check, if there was an engine before.

        Blocks; on any thread.

        Raises:
            EngineUnavailable: there is no engine.
        """
        if self._client is None:
            self._client = connect(_SHORT_PATIENCE_S)
        return self._client

    def _look(self) -> DockerClient:
        if self._client is not None:
            from docker.errors import DockerException

            with contextlib.suppress(DockerException, OSError):
                self._client.ping()
                return self._client
            self._client.close()
        return connect(_SHORT_PATIENCE_S)

    def close(self) -> None:
        """Close its connections; it can be used again."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._looked_at = float("-inf")


def hands_out_gpus(client: DockerClient) -> bool:
    """Return whether the engine hands out GPUs."""
    return "nvidia" in client.info().get("Runtimes", {})


def container_name(run_id: str) -> str:
    """Return the name of an image run's container."""
    return f"lyceum-{run_id}"


def remove_container(client: DockerClient, name: str) -> None:
    """Kill and remove a container with its anonymous volumes. One that is gone is no error."""
    with unless_over():
        client.api.remove_container(name, v=True, force=True)


@contextlib.contextmanager
def unless_over() -> Iterator[None]:
    """Ignore the engine's errors about a container that has ended, or is gone, meanwhile."""
    from docker.errors import APIError

    try:
        yield
    except APIError as exc:
        if exc.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
            raise


def usage_of(counters: Mapping[str, Any]) -> Usage | None:
    """Return what a container uses, from the engine's counters; None if it does not run any more.

    Memory that the kernel would give back at once (files read once) does not count, as in
    `docker stats`.
    """
    memory = counters.get("memory_stats", {})
    if "usage" not in memory:
        return None
    details = memory.get("stats", {})
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    nanoseconds = counters["cpu_stats"]["cpu_usage"]["total_usage"]
    return Usage(nanoseconds / 1e9, max(0, memory["usage"] - cache))


def explanation(exc: Exception) -> str:
    """Return the engine's message in one line, without the HTTP around it."""
    said = getattr(exc, "explanation", None)
    if said is None and isinstance(exc, OSError):  # as are those of `requests`, which name sockets
        return "it does not answer any more"
    text = str(said or exc)
    return " ".join(text.split())
