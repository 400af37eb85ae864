"""The secret in every run's `streaming_url`, which opens that run's stream and no other."""

from __future__ import annotations

import hmac
from functools import cached_property

from .vault import Vault


class StreamSecrets:
    """Maker and checker of the secrets that open streams.

    The secrets are derived from the vault's key: nothing is stored, and a URL outlives the server
    and its own API key.

    Raises (every call):
        EmbeddedServerError: The vault has no key.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def check(self) -> None:
        """Check that secrets can be made."""
        self.of("")

    def of(self, run_id: str) -> str:
        return hmac.digest(self._key, run_id.encode(), "sha256").hex()

    def fits(self, run_id: str, secret: str) -> bool:
        return hmac.compare_digest(self.of(run_id).encode(), secret.encode())

    @cached_property
    def _key(self) -> bytes:
        return self._vault.derived_key("lyceum-magic streams")
