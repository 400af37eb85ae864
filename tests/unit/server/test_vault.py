"""The vault's key, lost and restored while the server runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lyceum_magic.exceptions import EmbeddedServerError
from lyceum_magic.server.vault import Vault


def test_a_broken_key_is_removed_and_another_one_is_made(tmp_path: Path) -> None:
    key = tmp_path / "vault.key"
    key.write_bytes(b"no key")
    vault = Vault(key)
    with pytest.raises(EmbeddedServerError, match="or remove it"):
        vault.seal("x")
    key.unlink()
    assert Vault(key).open(vault.seal("x")) == "x"


def test_a_key_that_is_put_back_opens_what_it_sealed_and_no_other_takes_its_place(
    tmp_path: Path,
) -> None:
    key = tmp_path / "vault.key"
    sealed = Vault(key).seal("x")
    right = key.read_bytes()
    key.unlink()
    vault = Vault(key)
    later = vault.seal("y")
    key.unlink()
    other = Vault(key).seal("z")
    with pytest.raises(EmbeddedServerError, match="Restore that file"):
        vault.open(sealed)
    assert vault.open(later) == "y"
    assert vault.open(other) == "z"
    key.write_bytes(right)
    assert vault.open(sealed) == "x"
    assert Vault(key).open(vault.seal("w")) == "w"


def test_a_derived_key_is_what_the_standard_says(tmp_path: Path) -> None:
    """Tokens of an earlier version stay valid."""
    vault = Vault(tmp_path / "vault.key")
    derived = vault.derived_key("streams")
    key = (tmp_path / "vault.key").read_bytes()
    assert derived == HKDF(SHA256(), length=32, salt=None, info=b"streams").derive(key)
    assert Vault(tmp_path / "vault.key").open(vault.seal("x")) == "x"


@pytest.mark.parametrize("key", [b"", b"no key", b"\n"])
def test_nothing_is_derived_from_a_broken_key(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "vault.key").write_bytes(key)
    vault = Vault(tmp_path / "vault.key")
    with pytest.raises(EmbeddedServerError, match="or remove it"):
        vault.derived_key("streams")
    (tmp_path / "vault.key").unlink()
    assert vault.derived_key("streams") == Vault(tmp_path / "vault.key").derived_key("streams")


def test_a_key_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="cannot be read or made") as caught:
        Vault(tmp_path / "absent" / "vault.key").derived_key("streams")
    assert "\n" not in str(caught.value)
