"""The proofs by which a server shows that it knows a key."""

from __future__ import annotations

import pytest

from lyceum_magic.protocol.proof import digest_of, key_proof, proof, public_part

KEY = f"lk_{'k' * 43}"


def test_a_proof_depends_on_key_and_nonce_and_tells_neither() -> None:
    value = proof("lk_key", "0123456789abcdef")
    assert value == proof("lk_key", "0123456789abcdef")
    assert value != proof("lk_other", "0123456789abcdef")
    assert value != proof("lk_key", "0123456789abcdee")
    assert "lk_key" not in value
    assert len(bytes.fromhex(value)) == 32


def test_a_proof_of_a_key_is_for_one_address_besides() -> None:
    values = {
        key_proof(digest_of(key), address, nonce)
        for key in (KEY, f"{KEY}x")
        for address in ("127.0.0.1:1", "127.0.0.1:2", "::1:1")
        for nonce in ("0123456789abcdef", "0123456789abcdee")
    }
    assert len(values) == 12
    assert all(len(bytes.fromhex(value)) == 32 for value in values)


@pytest.mark.parametrize(
    ("key", "part"),
    [
        (KEY, "lk_kkkkk"),
        ("header.payload.signature", "header.payload"),
        # Whatever has no part that is no secret.
        ("lk_short", ""),
        ("lk_0123456789", ""),
        ("opaque-token", ""),
        ("half.token", ""),
        ("no.signature.", ""),
        ("one.too.many.parts", ""),
        ("", ""),
    ],
)
def test_little_of_a_key_is_public(key: str, part: str) -> None:
    assert public_part(key) == part
