"""How the embedded server proves that it knows the key, before it is sent the key."""

import hashlib
import hmac


def proof(api_key: str, nonce: str) -> str:
    """Hex HMAC-SHA256 of a nonce under the key; the prefix keeps it useless for anything else."""
    message = f"lyceum-magic server proof {nonce}".encode()
    return hmac.new(api_key.encode(), message, hashlib.sha256).hexdigest()
