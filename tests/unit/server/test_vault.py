"""The key of what is kept encrypted, lost and found while the server runs."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    with pytest.raises(EmbeddedServerError, match="put that file back"):
        vault.open(sealed)
    assert vault.open(later) == "y"
    assert vault.open(other) == "z"
    key.write_bytes(right)
    assert vault.open(sealed) == "x"
    assert Vault(key).open(vault.seal("w")) == "w"
