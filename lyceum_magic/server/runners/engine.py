"""The container engine that images and stacks run in: how it is reached, and how its registries
are signed in to.

The engine is the one that DOCKER_HOST names, or Docker's current context: Docker, or Podman's
socket. The packages that talk to it and to Amazon are imported when they are first needed: the
server starts without them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from .base import EngineUnavailable, InvalidField, Refusal, Usage

if TYPE_CHECKING:
    from docker import DockerClient

    from ...protocol.requests import StartCompose, StartImage

#: Labels of every container of a run: its id, and the state folder of the server it belongs to.
RUN_LABEL = "lyceum.run"
STATE_LABEL = "lyceum.state"

#: How long the engine may take to answer; a working one takes milliseconds.
PATIENCE_S = 60

#: The same for what somebody waits for, such as the start of a run.
_SHORT_PATIENCE_S = 5

#: For so long an engine that answered is taken to be there, and one that did not, not to be.
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
    """What a process needs to know to reach the same engine as this one."""
    return {name: source[name] for name in _VARIABLES if name in source}


def connect(timeout_s: int = PATIENCE_S) -> DockerClient:
    """A client of the engine, which has answered. Blocks.

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
    """The engine as a server sees it: one client, of an engine that has just been there.

    To be used in one event loop.
    """

    def __init__(self) -> None:
        self._client: DockerClient | None = None
        self._failure = ""
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def client(self) -> DockerClient:
        """A client with little patience.

        Raises:
            EngineUnavailable: there is no engine; it was looked for now, or moments ago.
        """
        async with self._looking:
            if time.monotonic() - self._looked_at > _MEMORY_S:
                try:
                    self._client = await asyncio.to_thread(self._look)
                    self._failure = ""
                except EngineUnavailable as exc:
                    self._client = None
                    self._failure = str(exc)
                self._looked_at = time.monotonic()
        if self._client is None:
            raise EngineUnavailable(self._failure)
        return self._client

    def client_at_once(self) -> DockerClient:
        """The same without another look where there was an engine before. Blocks; on any thread.

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
        return connect(_SHORT_PATIENCE_S)


def container_name(run_id: str) -> str:
    """What the container of an image run is called."""
    return f"lyceum-{run_id}"


def remove_container(client: DockerClient, name: str) -> None:
    """Kills and removes a container with its anonymous volumes; one that is gone is no error."""
    from docker.errors import APIError

    try:
        client.api.remove_container(name, v=True, force=True)
    except APIError as exc:
        if exc.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):  # 409: just going
            raise


def usage_of(counters: Mapping[str, Any]) -> Usage | None:
    """What a container uses, from the engine's counters; None where it does not run any more.

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
    """What the engine said, without the HTTP around it, in one line."""
    text = str(getattr(exc, "explanation", None) or exc)
    return " ".join(text.split())


# --- registries ------------------------------------------------------------------------------


@dataclass(frozen=True)
class SignIn:
    """What a registry asks for.

    Attributes:
        registry: `host` or `host:port`; None for the one that the image's name says.
    """

    username: str
    password: str = field(repr=False)
    registry: str | None = None


def check_credentials(request: StartImage | StartCompose) -> None:
    """Sees to it that the credentials of a request fit their type.

    Raises:
        InvalidField: one is missing, or there is no type to tell what they are.
        EngineUnavailable: they are Amazon's, and the package that signs in there is missing.
    """
    wanted = {
        "basic": ("docker_username", "docker_password"),
        "aws": ("aws_access_key_id", "aws_secret_access_key"),
    }
    kind = request.docker_registry_credential_type
    if kind is None:
        for fields in wanted.values():
            if any(getattr(request, name) for name in fields):
                raise InvalidField(
                    "docker_registry_credential_type must say what the credentials are, "
                    '"basic" or "aws"; the request has credentials and no type.',
                    field="docker_registry_credential_type",
                )
        return
    for name in wanted[kind]:
        if not getattr(request, name):
            raise InvalidField(
                f'{name} is missing: credentials of type "{kind}" are '
                f"{' and '.join(wanted[kind])}.",
                field=name,
            )
    if kind == "aws":
        try:
            import boto3  # noqa: F401
        except ImportError as exc:
            raise EngineUnavailable(
                "Signing in to Amazon's registry needs the package `boto3`, which is not installed "
                "here; pip install 'lyceum-magic[containers]', then start the server again."
            ) from exc


def sign_in(request: StartImage | StartCompose) -> SignIn | None:
    """What the registry of a request's images asks for; None for public ones. Blocks for `aws`.

    Raises:
        Refusal: Amazon does not accept the keys, or cannot be reached.
    """
    match request.docker_registry_credential_type:
        case "basic":
            assert request.docker_username is not None
            assert request.docker_password is not None
            return SignIn(request.docker_username, request.docker_password)
        case "aws":
            return _sign_in_to_amazon(request)
        case None:
            return None


def _sign_in_to_amazon(request: StartImage | StartCompose) -> SignIn:
    """A password for a few hours.

    Source: Amazon ECR API, `GetAuthorizationToken`: base64 of `AWS:<password>`.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    region = request.aws_region or "us-east-1"
    try:
        registries = boto3.client(
            "ecr",
            region_name=region,
            aws_access_key_id=request.aws_access_key_id,
            aws_secret_access_key=request.aws_secret_access_key,
            aws_session_token=request.aws_session_token,
            config=Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 2}),
        )
        granted = registries.get_authorization_token()["authorizationData"][0]
    except ClientError as exc:
        # Its message may quote the request; its code says enough.
        code = exc.response.get("Error", {}).get("Code", "no reason given")
        raise Refusal(
            f"Amazon did not accept the credentials for region {region}: {code}"
        ) from None
    except BotoCoreError as exc:
        raise Refusal(
            f"Amazon's registry in region {region} could not be asked for a password "
            f"({type(exc).__name__}); check aws_region and the network"
        ) from None
    username, _, password = base64.b64decode(granted["authorizationToken"]).decode().partition(":")
    endpoint = urllib.parse.urlsplit(granted["proxyEndpoint"])
    return SignIn(username, password, endpoint.netloc or endpoint.path)
