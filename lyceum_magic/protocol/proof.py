"""Proofs by which a server on this machine shows that it knows a key, before it is sent the key."""

import hashlib
import hmac

#: Number of a key's first characters that are no secret: lists show them to tell keys apart.
PREFIX_LENGTH = 8
#: Minimum length of a key whose first characters may be shown: of a shorter one they are too much.
_MIN_LENGTH = 4 * PREFIX_LENGTH


def proof(api_key: str, nonce: str) -> str:
    """Return the hex HMAC-SHA256 of a nonce under the key; a prefix keeps it from other uses."""
    message = f"lyceum-magic server proof {nonce}".encode()
    return hmac.new(api_key.encode(), message, hashlib.sha256).hexdigest()


def key_proof(digest: bytes, address: str, nonce: str) -> str:
    """Return the hex HMAC-SHA256 of a nonce under the digest of a key, for one address.

    Args:
        digest: see `digest_of`; servers keep no keys.
        address: the server's, such as `127.0.0.1:8000`. A program at another address that passes
            the question on to the server cannot use its answer.
    """
    message = f"lyceum-magic key proof {address} {nonce}".encode()
    return hmac.new(digest, message, hashlib.sha256).hexdigest()


def digest_of(key: str) -> bytes:
    """Return the SHA-256 of a key or token."""
    # A decoded header may hold half of a surrogate pair; a key never does.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def public_part(key: str) -> str:
    """Return the part of a key or token that is no secret and identifies it.

    That is the first characters of a key, or a JWT without its signature; empty for anything else.
    """
    if key.startswith("lk_"):
        return key[:PREFIX_LENGTH] if len(key) >= _MIN_LENGTH else ""
    unsigned, _, signature = key.rpartition(".")
    return unsigned if signature and unsigned.count(".") == 1 else ""
