"""`auth/...`: API keys, and signing in with one of them.

The official client needs exactly 200 for each (`lyceum-api.md` 2.3).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field

from ...protocol import paths
from ...protocol.times import iso
from ..account.tokens import TokenPair
from ..settings import ORG_SLUG
from ..stores.base import KeyRecord
from .description import problems
from .parts import ApiKeys

#: Longer than any key or token of ours.
MAX_TOKEN = 8192


def _in_future(time: datetime) -> datetime:
    try:
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("the year must be between 1 and 9999 in UTC as well") from None
    if time <= datetime.now(UTC):
        raise ValueError("expires_at must lie in the future (without an offset it is UTC)")
    return time


class NewKey(BaseModel):
    """The body that creates a key."""

    key_name: Annotated[str, Field(min_length=1, max_length=255)]
    expires_at: Annotated[datetime, AfterValidator(_in_future)] | None = None


class KeyToCheck(BaseModel):
    """The body of `auth/api-keys/validate`; no source publishes its shape."""

    api_key: Annotated[str, Field(max_length=MAX_TOKEN, repr=False)]


class Login(BaseModel):
    """The body of `auth/login`; here the password is an API key."""

    email: Annotated[str, Field(max_length=320)]
    password: Annotated[str, Field(max_length=MAX_TOKEN, repr=False)]


class Renewal(BaseModel):
    """The body of `auth/refresh`."""

    refresh_token: Annotated[str, Field(max_length=MAX_TOKEN, repr=False)]


router = APIRouter()


@router.get(paths.KEYS)
async def list_keys(keys: ApiKeys) -> list[dict[str, Any]]:
    return [_shown(key) for key in keys.list()]


@router.post(paths.KEYS)
async def create_key(body: NewKey, keys: ApiKeys) -> dict[str, Any]:
    expires_at = None if body.expires_at is None else body.expires_at.timestamp()
    key, secret = await keys.create(body.key_name, expires_at)
    return {**_shown(key), "api_key": secret.reveal()}


@router.post(paths.VALIDATE_KEY)
async def validate_key(keys: ApiKeys, body: KeyToCheck | None = None) -> dict[str, Any]:
    # Without a body this asks about the request's own key, which the guard let pass.
    is_valid = body is None or keys.find(body.api_key) is not None
    return {"valid": is_valid, "org_id": ORG_SLUG if is_valid else None}


@router.delete(paths.key("{key_id}"), responses=problems(404, 409))
async def revoke_key(key_id: str, keys: ApiKeys) -> dict[str, str]:
    await keys.revoke(key_id)
    return {"message": "The API key was revoked."}


@router.patch(paths.toggle_key("{key_id}"), responses=problems(404, 409))
async def toggle_key(key_id: str, keys: ApiKeys) -> dict[str, Any]:
    return _shown(await keys.toggle(key_id))


@router.post(paths.LOGIN)
async def sign_in(body: Login, keys: ApiKeys) -> dict[str, Any]:
    pair = await keys.sign_in(body.password)
    return {**_tokens(pair), "user_id": ORG_SLUG, "email": body.email}


@router.post(paths.REFRESH)
async def refresh(body: Renewal, keys: ApiKeys) -> dict[str, Any]:
    return _tokens(await keys.renew(body.refresh_token))


def _shown(key: KeyRecord) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "key_name": key.name,
        "key_prefix": key.prefix,
        "is_active": key.is_active,
        "last_used_at": iso(key.last_used_at),
        "created_at": iso(key.created_at),
        "expires_at": iso(key.expires_at),
    }


def _tokens(pair: TokenPair) -> dict[str, Any]:
    return {
        "access_token": pair.access_token,
        "refresh_token": pair.refresh_token,
        "token_type": "bearer",
        "expires_in": pair.expires_in_s,
    }
