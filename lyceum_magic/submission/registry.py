"""The keys of an Amazon registry -> the fields that a start request has for them."""

from __future__ import annotations

from typing import Any

from ..exceptions import OptionError
from ..protocol.redaction import HiddenText

#: Fields of `StartImage` and `StartCompose`, by the wire's names.
RegistryFields = dict[str, Any]


def aws_account(region: str | None = None) -> RegistryFields:
    """Return the fields for Amazon's registry (ECR), with the keys that boto3 finds here.

    Args:
        region: of the registry; None takes the one that boto3 is configured for.

    Raises:
        OptionError: boto3 is not installed, or finds no keys, or cannot read them.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise OptionError(
            "A registry of type aws needs boto3, which finds the keys: "
            "pip install 'lyceum-magic[containers]'."
        ) from None
    try:
        session = boto3.Session()
        found = session.get_credentials()
        keys = found.get_frozen_credentials() if found is not None else None
    except BotoCoreError as exc:
        raise OptionError(f"boto3 cannot read the AWS keys of this machine: {exc}.") from None
    if keys is None or not keys.access_key or not keys.secret_key:
        raise OptionError(
            "boto3 finds no AWS keys on this machine: sign in with `aws configure` or `aws sso "
            "login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    fields = {
        "docker_registry_credential_type": "aws",
        "aws_access_key_id": keys.access_key,
        "aws_secret_access_key": HiddenText(keys.secret_key),
        "aws_session_token": keys.token and HiddenText(keys.token),
    }
    region = region or session.region_name
    return {**fields, "aws_region": region} if region else fields
