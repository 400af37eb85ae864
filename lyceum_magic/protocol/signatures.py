"""Signatures of callbacks: secret, id, time and body in, the text of the header out.

Only the standard library is imported: receivers live in other people's programs.

Source: the Standard Webhooks specification, symmetric signatures (`v1`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"
VERSION = "v1"


def key_of(secret: str) -> bytes:
    """Return the key in a signing secret: the base64 after `whsec_`, which may be left out.

    Raises:
        ValueError: it is no base64, or empty. The message does not quote it.
    """
    try:
        key = base64.b64decode(secret.strip().removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("a signing secret is `whsec_` followed by base64")
    return key


def sign(secret: str, callback_id: str, timestamp_s: int, body: bytes) -> str:
    """Return one signature, `v1,<base64>`.

    Raises:
        ValueError: see `key_of`.
    """
    signed = b"%s.%d.%s" % (callback_id.encode(), timestamp_s, body)
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return f"{VERSION},{base64.b64encode(digest).decode()}"
