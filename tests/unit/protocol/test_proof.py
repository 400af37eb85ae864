"""The proof by which the embedded server shows that it knows the key."""

from __future__ import annotations

from lyceum_magic.protocol.proof import proof


def test_a_proof_depends_on_key_and_nonce_and_tells_neither() -> None:
    value = proof("lk_key", "0123456789abcdef")
    assert value == proof("lk_key", "0123456789abcdef")
    assert value != proof("lk_other", "0123456789abcdef")
    assert value != proof("lk_key", "0123456789abcdee")
    assert "lk_key" not in value
    assert len(bytes.fromhex(value)) == 32
