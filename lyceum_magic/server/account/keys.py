"""The account's API keys, which open the server.

A key is 256 random bits, so its SHA-256 is enough at rest. A slow hash protects passwords, which
can be guessed, and would cost every request its time for nothing.

One server owns the state folder, and answers from memory. A change is written to the store first
and takes effect then: a change that cannot be written has not happened, and a restart undoes none.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...config import Secret
from ...exceptions import EmbeddedServerError, LyceumError
from ...protocol.proof import PREFIX_LENGTH, digest_of
from ..stores.base import AccountStore, KeyRecord
from .tokens import TokenPair, Tokens, TokenType

logger = logging.getLogger(__name__)

#: The longest time until a use reaches the disk: keys are used with each request.
USE_IS_WRITTEN_EVERY_S = 60.0


class UnknownApiKey(LyceumError):
    """No API key has the id."""


class KeyInUse(LyceumError):
    """The key of this machine's own clients can be neither revoked nor switched off."""


class SignInRefused(LyceumError):
    """The text is neither a valid key nor a valid token."""


class AccountKeys:
    """The keys of an account, and the tokens that stand for them.

    Args:
        own_key: The key in `server.json`, for the clients of this machine. It is listed like the
            others, and always valid.
        new_key: Makes a key.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        store: AccountStore,
        tokens: Tokens,
        own_key: Secret,
        new_key: Callable[[], Secret],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._new_key = new_key
        self._clock = clock
        own = own_key.reveal()
        if not own:
            raise ValueError("The key of the server must not be empty.")
        # The id changes with the key, so that tokens of an older key are worth nothing.
        own_id = str(uuid.UUID(bytes=digest_of(own)[:16]))
        self._own = KeyRecord(own_id, "this machine", _prefix(own), digest_of(own), clock())
        self._keys: dict[str, KeyRecord] = {}
        self._written_at: dict[str, float] = {}
        # One change at a time: each starts from the result of the one before.
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Read the keys from the store."""
        self._keys = {key.key_id: key for key in await self._store.keys()}

    def list(self) -> Sequence[KeyRecord]:
        """Return all keys, this machine's own first, then the others, oldest first."""
        return [self._own, *self._keys.values()]

    async def create(self, name: str, expires_at: float | None) -> tuple[KeyRecord, Secret]:
        """Return a new key's record, and the key itself, which cannot be read again.

        Args:
            expires_at: Seconds since 1970; None: never.
        """
        secret = self._new_key()
        text = secret.reveal()
        key_id = str(uuid.uuid4())
        key = KeyRecord(key_id, name, _prefix(text), digest_of(text), self._clock(), expires_at)
        async with self._changing:
            await self._store.put_key(key)
            self._keys[key_id] = key
        return key, secret

    async def toggle(self, key_id: str) -> KeyRecord:
        """Switch a key off, or on again.

        Raises:
            UnknownApiKey: No key has the id.
            KeyInUse: It is this machine's own key.
        """
        async with self._changing:
            key = self._own_or_raise(key_id)
            await self._store.put_key(replace(key, is_active=not key.is_active))
            # The key may have been used in the meantime.
            key = replace(self._keys[key_id], is_active=not key.is_active)
            self._keys[key_id] = key
            return key

    async def revoke(self, key_id: str) -> None:
        """Remove a key for good.

        Raises:
            UnknownApiKey: No key has the id.
            KeyInUse: It is this machine's own key.
        """
        async with self._changing:
            self._own_or_raise(key_id)
            await self._store.remove_key(key_id)
            del self._keys[key_id]

    async def lets_in(self, token: str) -> bool:
        """Return whether a bearer token is valid: a key, or an access token of one.

        A valid token is noted as a use of its key.
        """
        key = self.find(token) or self._good(await self._key_id(token, "access"))
        if key is not None:
            await self._note_use(key)
        return key is not None

    def find(self, text: str) -> KeyRecord | None:
        """Return the key that a text is; None if no key, or one that is switched off or expired."""
        digest = digest_of(text)
        # The time that this takes tells nothing about a key: digests of similar keys differ.
        found = [key for key in self.list() if hmac.compare_digest(key.digest, digest)]
        return self._good(found[0].key_id) if found else None

    async def digests(self, public_part: str) -> Sequence[bytes]:
        """Return the digests of the keys, or of the token, that have a public part.

        Keys that are switched off or have expired are among them: the server knows them too.
        """
        if "." in public_part:
            return [digest_of(await asyncio.to_thread(self._tokens.signed, public_part))]
        return [key.digest for key in self.list() if key.prefix == public_part]

    async def sign_in(self, text: str) -> TokenPair:
        """Return tokens for a key.

        Raises:
            SignInRefused: The text is not a valid key.
        """
        key = self.find(text)
        if key is None:
            raise SignInRefused(
                "This server has no passwords. Sign in with one of its API keys as the password."
            )
        return await self._pair(key)

    async def renew(self, refresh_token: str) -> TokenPair:
        """Return new tokens for a refresh token, which stays valid until it expires.

        Raises:
            SignInRefused: It is not a valid refresh token.
        """
        key = self._good(await self._key_id(refresh_token, "refresh"))
        if key is None:
            raise SignInRefused(
                "The refresh token is wrong or has expired, or its API key was revoked. Sign in "
                "again."
            )
        return await self._pair(key)

    # On a thread: the first token loads a library and reads the vault's key.

    async def _pair(self, key: KeyRecord) -> TokenPair:
        return await asyncio.to_thread(self._tokens.pair, key.key_id)

    async def _key_id(self, token: str, token_type: TokenType) -> str | None:
        return await asyncio.to_thread(self._tokens.key_id, token, token_type)

    def _good(self, key_id: str | None) -> KeyRecord | None:
        key = self._own if key_id == self._own.key_id else self._keys.get(key_id or "")
        if key is None or not key.is_active:
            return None
        is_expired = key.expires_at is not None and key.expires_at <= self._clock()
        return None if is_expired else key

    async def _note_use(self, key: KeyRecord) -> None:
        now = self._clock()
        if key.key_id == self._own.key_id:
            self._own = replace(key, last_used_at=now)
            return
        self._keys[key.key_id] = key = replace(key, last_used_at=now)
        if now - self._written_at.get(key.key_id, 0.0) >= USE_IS_WRITTEN_EVERY_S:
            self._written_at[key.key_id] = now
            try:
                await self._store.note_key_use(key.key_id, now)
            except EmbeddedServerError as exc:  # a full disk must not lock users out
                logger.warning("The use of API key %s was not noted: %s", key.key_id, exc)

    def _own_or_raise(self, key_id: str) -> KeyRecord:
        if key_id == self._own.key_id:
            raise KeyInUse(
                "This is the key in server.json, for the clients of this machine. It can be "
                "neither revoked nor switched off."
            )
        try:
            return self._keys[key_id]
        except KeyError:
            raise UnknownApiKey(f"No API key has the id {key_id!r}.") from None


def _prefix(text: str) -> str:
    return text[:PREFIX_LENGTH]
