"""A callback's body and headers, and a secret -> a typed event, if the secret's owner sent it.

Signatures are those of Standard Webhooks. Our tests compare with its package `standardwebhooks`. We
do not run on it: it takes one secret at a time, has a fixed tolerance, and on hostile input raises
the errors of `split`, `b64decode` and `json.loads`.

Only the standard library is imported: this runs in other people's programs.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Protocol

from ..exceptions import InvalidCallback
from ..protocol.callbacks import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from ..protocol.signatures import key_of, sign
from .events import Body, CallbackEvent, Headers, checked_body, header, id_in, read, timestamp_in

#: Room for dozens of signatures; each secret has one, and few secrets are valid at once.
_MAX_SIGNATURES = 4096


class Revealing(Protocol):
    """A secret that hides its text, such as `lyceum_magic.signing_secret()` gives."""

    def reveal(self) -> str: ...


Secret = str | Revealing


def verify(
    body: Body,
    headers: Headers,
    secrets: Secret | Sequence[Secret],
    *,
    tolerance_s: float = 300,
    now: Callable[[], float] = time.time,
) -> CallbackEvent:
    """Return the event of a callback that was signed with one of your secrets, a moment ago.

    It is a hint: read the run again before you act on it. It may come twice: see `SqliteSeen`.
    Answer 400 if this raises, else 2xx.

    Args:
        body: as it came, before any framework parsed it.
        headers: of the request; a dict, a list of pairs, or what your framework has.
        secrets: the signing secret, `whsec_...` or what `lyceum_magic.signing_secret()` gives, or
            several while one takes over from another.
        tolerance_s: how far the sender's clock may be from `now`, either way.
        now: seconds since 1970.

    Raises:
        InvalidCallback: not signed with these secrets, too old, or no callback. No request raises
            anything else.
        ValueError: a secret is malformed, or none is given.
        TypeError: the body is not bytes, the headers are no headers, or a secret is not text.
    """
    keys = _several(secrets)
    for key in keys:
        key_of(key)  # before anything that came in: a wrong setting is always seen
    body = checked_body(body)  # before it is hashed: it may be large
    callback_id, sent_at_s = id_in(headers), timestamp_in(headers)
    signatures = header(headers, SIGNATURE_HEADER)
    if callback_id is None or sent_at_s is None or signatures is None:
        raise InvalidCallback(
            f"The callback is not signed: it needs the headers `{ID_HEADER}`, "
            f"`{TIMESTAMP_HEADER}` and `{SIGNATURE_HEADER}`."
        )
    if len(signatures) > _MAX_SIGNATURES:
        raise InvalidCallback(
            f"The callback's `{SIGNATURE_HEADER}` header is longer than {_MAX_SIGNATURES} "
            "characters."
        )
    # A signature of another version equals none of ours. Where id, time and body meet cannot be
    # shifted: the time is digits, and the body, a JSON object, begins with neither digit nor dot.
    expected = [sign(key, callback_id, sent_at_s, body) for key in keys]
    if not any(
        hmac.compare_digest(ours, given) for given in signatures.split() for ours in expected
    ):
        raise InvalidCallback("None of the callback's signatures is by a secret given here.")
    # Written so that a tolerance of NaN lets nothing through.
    if not abs(now() - sent_at_s) <= tolerance_s:
        raise InvalidCallback(
            f"The callback was sent more than {tolerance_s:g} s from now: it is a repetition, or "
            "one of the two clocks is wrong."
        )
    return read(body, headers)


def verify_shared(
    body: Body,
    given: str | None,
    secrets: Secret | Sequence[Secret],
    headers: Headers | None = None,
) -> CallbackEvent:
    """Return the event of an unsigned callback that brings the secret of its URL.

    Lyceum Cloud does not sign. There, give it a URL that only it knows, such as
    `https://HOST/done?token=...`, and pass the token that came as `given`. Web servers write
    URLs into their logs: prefer `verify` where the sender signs.

    Args:
        body: as it came, before any framework parsed it.
        given: the secret that the request brings; None if it brings none.
        secrets: the one that you put into the URL, or several while one takes over from another.
        headers: the request's headers, which may have the callback's id.

    Raises:
        InvalidCallback: another secret, or no callback.
        ValueError: a secret is empty, or none is given.
        TypeError: the body is not bytes, the headers are no headers, or a secret, yours or `given`,
            is not text.
    """
    expected = [_digest(secret) for secret in _several(secrets)]
    if given is not None and not isinstance(given, str):
        raise TypeError(
            f"what a request brings as its secret is a text, not {type(given).__name__}"
        )
    # Digests have one length, so that not even the secret's length can be measured.
    if given is None or not any(hmac.compare_digest(_digest(given), each) for each in expected):
        raise InvalidCallback("The callback does not bring the secret of its URL.")
    return read(body, headers)


def _several(secrets: Secret | Sequence[Secret]) -> list[str]:
    if isinstance(secrets, str) or hasattr(secrets, "reveal"):
        secrets = [secrets]
    elif not isinstance(secrets, list | tuple | type(None)):
        raise TypeError(
            f"a receiver's secret is a text, or several in a list, not {type(secrets).__name__}"
        )
    several: list[str] = []
    for secret in secrets or ():
        text = secret.reveal() if hasattr(secret, "reveal") else secret
        if not isinstance(text, str):
            raise TypeError(f"a receiver's secret is a text, not {type(text).__name__}")
        several.append(text)
    if not several or not all(several):
        raise ValueError("a receiver needs a secret, and one that is not empty")
    return several


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
