"""Access and refresh tokens: JWTs that stand for an API key for a while.

The official client takes a token that does not begin with `lk_` for a JWT, and renews it shortly
before its `exp` (`lyceum-api.md` 2.2). A token names the key that it was made from: when that key
is revoked or switched off, the token is worth nothing.
"""

from __future__ import annotations

import base64
import hmac
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from ..vault import Vault

ACCESS_S = 3600
REFRESH_S = 30 * 24 * 3600

_ALGORITHM = "HS256"
_ISSUER = "lyceum-magic"

TokenType = Literal["access", "refresh"]


@dataclass(frozen=True)
class TokenPair:
    """The tokens of a sign-in. `expires_in_s` is the life of the access token."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int = ACCESS_S


class Tokens:
    """Maker and reader of tokens, which are signed with a key that is derived from the vault's.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, vault: Vault, *, clock: Callable[[], float] = time.time) -> None:
        self._vault = vault
        self._clock = clock

    def pair(self, key_id: str) -> TokenPair:
        """Return new tokens for a key."""
        return TokenPair(
            self._token(key_id, "access", ACCESS_S), self._token(key_id, "refresh", REFRESH_S)
        )

    def key_id(self, token: str, token_type: TokenType) -> str | None:
        """Return the id of a token's key; None if this is not such a token of ours, or expired."""
        if token.count(".") != 2:  # a wrong key does not load the library
            return None
        import jwt

        try:
            claims = jwt.decode(
                token,
                self._signing_key,
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                # Compared below, by our own clock.
                options={
                    "require": ["exp", "iss", "jti", "key", "type"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError:
            return None
        if claims["type"] != token_type or claims["exp"] <= self._clock():
            return None
        return str(claims["key"])

    def signed(self, unsigned: str) -> str:
        """Add this server's signature to a token without one."""
        signature = hmac.digest(self._signing_key, unsigned.encode(), "sha256")
        return f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def _token(self, key_id: str, token_type: TokenType, life_s: int) -> str:
        import jwt

        now = int(self._clock())
        claims = {
            "iss": _ISSUER,
            "type": token_type,
            "key": key_id,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "exp": now + life_s,
        }
        return jwt.encode(claims, self._signing_key, _ALGORITHM)

    @cached_property
    def _signing_key(self) -> bytes:
        return self._vault.derived_key("lyceum-magic account tokens")
