"""The secret in every run's `streaming_url`: whoever holds it may read that run, and no other."""

from __future__ import annotations

import hashlib
import hmac

from ..config import Secret


class StreamSecrets:
    """Makes and checks the secrets.

    They are derived from the server's key: nothing is kept beside the record, and a URL outlives
    a restart. The prefix differs from `protocol.proof`'s, so that neither yields the other.
    """

    def __init__(self, api_key: Secret) -> None:
        self._key = api_key.reveal().encode()

    def of(self, run_id: str) -> str:
        message = f"lyceum-magic stream {run_id}".encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def fits(self, run_id: str, secret: str) -> bool:
        return hmac.compare_digest(self.of(run_id).encode(), secret.encode())
