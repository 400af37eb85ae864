"""The account's signing secrets, and the headers that they make for each attempt."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace

from ...exceptions import EmbeddedServerError
from ...protocol.callbacks import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from ...protocol.signatures import SECRET_PREFIX, sign
from ..stores.base import OutboxStore, StoredSigningSecret, StoreUnavailable

logger = logging.getLogger(__name__)

#: Seconds for which a replaced secret signs too, so that receivers have time to change theirs.
OVERLAP_S = 86_400.0
_SECRET_BYTES = 32


class Signing:
    """The signer of callbacks. No other part writes the store's signing secrets."""

    def __init__(self, store: OutboxStore) -> None:
        self._store = store
        self._known: Sequence[StoredSigningSecret] = ()  # newest first
        self._changing = asyncio.Lock()

    async def headers(self, delivery_id: str, body: bytes, now: float) -> dict[str, str]:
        """Return the headers of an attempt.

        Args:
            now: Seconds since 1970.

        Raises:
            EmbeddedServerError: The secrets cannot be read, written or decrypted.
        """
        timestamp = int(now)
        return {
            ID_HEADER: delivery_id,
            TIMESTAMP_HEADER: str(timestamp),
            SIGNATURE_HEADER: " ".join(
                sign(secret.value, delivery_id, timestamp, body)
                for secret in await self.secrets(now)
            ),
        }

    async def secrets(self, now: float) -> Sequence[StoredSigningSecret]:
        """Return the secrets that sign now, newest first. The first use makes the first one.

        Raises:
            EmbeddedServerError: They cannot be read, written or decrypted.
        """
        if not self._known:
            async with self._changing:
                self._known = self._known or await self._store.signing_secrets()
                if not self._known:
                    await self._put([_new(now)])
        return _not_retired(self._known, now)

    async def rotate(self, now: float) -> Sequence[StoredSigningSecret]:
        """Make a new secret, and return the secrets that sign now, newest first.

        The previous secret signs too for a day; an older one stops at once. If the old secrets
        cannot be decrypted any more, the new one replaces them all.

        Raises:
            EmbeddedServerError: They cannot be read or written.
        """
        try:
            await self.secrets(now)
        except StoreUnavailable:
            raise
        except EmbeddedServerError as exc:
            logger.warning("The signing secrets of callbacks are replaced: %s", exc)
        async with self._changing:
            # At most one more: each is a signature in the header of every callback.
            retiring = [replace(secret, retires_at=now + OVERLAP_S) for secret in self._known[:1]]
            await self._put([_new(now), *retiring])
            return self._known

    async def _put(self, wanted: Sequence[StoredSigningSecret]) -> None:
        await self._store.put_signing_secrets(wanted)
        self._known = wanted


def _new(now: float) -> StoredSigningSecret:
    key = base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    return StoredSigningSecret(SECRET_PREFIX + key, now)


def _not_retired(known: Sequence[StoredSigningSecret], now: float) -> Sequence[StoredSigningSecret]:
    return [s for s in known if s.retires_at is None or s.retires_at > now]
