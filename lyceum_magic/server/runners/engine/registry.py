"""Sign-in to the registries that images come from.

The package that talks to Amazon is imported when it is first needed: the server starts without it.
"""

from __future__ import annotations

import base64
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..base import EngineUnavailable, InvalidField, Refusal

if TYPE_CHECKING:
    from ....protocol.requests import StartCompose, StartImage


@dataclass(frozen=True)
class SignIn:
    """The credentials that a registry asks for.

    Attributes:
        registry: `host` or `host:port`; None for the one that the image's name says.
    """

    username: str
    password: str = field(repr=False)
    registry: str | None = None


def check_credentials(request: StartImage | StartCompose) -> None:
    """Check that the credentials of a request fit their type.

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
    """Return the credentials for a request's images; None for public ones. Blocks for `aws`.

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
    """Return a password that holds for a few hours.

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
