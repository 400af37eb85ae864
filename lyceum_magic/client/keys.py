"""The account's API keys: listed, made for other clients, revoked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from .. import config
from ..exceptions import ProtocolError
from ..protocol import paths
from .answers import error_of, objects, read_json, read_object
from .storage import RequestSender


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its text; times are None if the server does not give them.

    Attributes:
        prefix: its first characters.
        expires_at: None if it never expires.
    """

    key_id: str
    name: str
    prefix: str
    is_active: bool = True
    created_at: datetime | None = None
    last_used_at: datetime | None = None
    expires_at: datetime | None = None


class Keys:
    """The account's keys. Every call raises the errors of `Client`."""

    def __init__(self, client: RequestSender) -> None:
        self._client = client

    async def list(self) -> list[ApiKey]:
        """Return all keys, in the server's order."""
        response = await self._client.send("GET", paths.KEYS)
        answer = read_json(response, source=self._client.account.source)
        return [_key(item) for item in objects(answer)]

    async def create(self, name: str, expires_at: datetime | None) -> tuple[ApiKey, config.Secret]:
        """Make a key; return its description and its text, which the server gives only now.

        Args:
            expires_at: None if it never expires.
        """
        body = {"key_name": name, "expires_at": expires_at and expires_at.isoformat()}
        response = await self._client.send("POST", paths.KEYS, json=body)
        made = read_object(response, source=self._client.account.source)
        key = made.get("api_key")
        if not isinstance(key, str) or not key:
            raise ProtocolError("The server should answer with the key that it made, and does not.")
        return _key(made), config.Secret(key)

    async def revoke(self, key_id: str) -> None:
        """Revoke a key for good."""
        response = await self._client.send("DELETE", paths.key(quote(key_id, safe="")))
        if not response.is_success:
            raise error_of(response, source=self._client.account.source)


def _key(item: dict[str, Any]) -> ApiKey:
    return ApiKey(
        str(item.get("id")),
        str(item.get("key_name")),
        str(item.get("key_prefix")),
        item.get("is_active") is not False,
        _moment(item.get("created_at")),
        _moment(item.get("last_used_at")),
        _moment(item.get("expires_at")),
    )


def _moment(said: object) -> datetime | None:
    try:
        return datetime.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        return None
