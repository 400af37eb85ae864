"""Encrypts the account's secrets at rest: texts in, authenticated ciphertext out, and back.

The key is in a file of its own, mode 0600, beside the database. So the database alone (a copy, a
backup, a bug report) tells nothing. Secrets that outlive the server, of streams and of tokens, are
derived from the same key.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import tempfile
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..disks import reason
from ..exceptions import EmbeddedServerError
from ..own_files import read_own

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


_AGAIN = "set the secrets again (`%lyceum secrets`, `%lyceum callbacks secret --rotate`)"


class Vault:
    """Encrypts and decrypts texts with the key in the file at `path`, made when first needed.

    Its methods may be called on any thread. The first call blocks for a while: it imports the
    library and reads the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known_key: bytes | None = None

    def seal(self, text: str) -> bytes:
        """Return the text as ciphertext that only this vault reads; every change to it shows."""
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """Return the text of a ciphertext.

        Raises:
            EmbeddedServerError: It was encrypted with another key, or changed.
        """
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            with contextlib.suppress(OSError, ValueError, InvalidToken):
                return self._opened_by_the_file(sealed)
            raise EmbeddedServerError(
                "The server's secrets cannot be decrypted: they were encrypted with another key "
                f"than the one in {self._path}. Restore that file, or {_AGAIN}."
            ) from None

    def _opened_by_the_file(self, sealed: bytes) -> str:
        """Return the text if the key file was put back. Only a key that fits replaces ours."""
        from cryptography.fernet import Fernet

        key = read_own(self._path)
        fernet = Fernet(key)
        text = fernet.decrypt(sealed).decode()
        with self._lock:
            self._known_key, self._fernet = key, fernet
        return text

    def derived_key(self, purpose: str) -> bytes:
        """Return 256 secret bits for a purpose, derived from the vault's key.

        Raises:
            EmbeddedServerError: The key cannot be read or made, or is not a key.
        """
        try:
            key = self._key
        except OSError as exc:
            raise EmbeddedServerError(
                f"{self._path}, the key of the server's secrets, cannot be read or made "
                f"({reason(exc, self._path)}). Check its disk, owner and mode."
            ) from exc
        if not _is_key(key):  # anyone could derive the same from an empty file
            raise self._broken()
        # HKDF of one block (RFC 5869). The library would cost every server's first run 15 ms.
        extracted = hmac.digest(bytes(32), key, "sha256")
        return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")

    @cached_property
    def _fernet(self) -> Fernet:
        # Imported with the first secret: most servers have none.
        from cryptography.fernet import Fernet

        try:
            return Fernet(self._key)
        except ValueError:
            raise self._broken() from None

    def _broken(self) -> EmbeddedServerError:
        self._known_key = None  # the file is read again after its repair
        return EmbeddedServerError(
            f"{self._path} should hold the key of the server's secrets, and holds something "
            f"else. Restore it, or remove it and {_AGAIN}."
        )

    @property
    def _key(self) -> bytes:
        with self._lock:  # two first threads must not have two keys
            if self._known_key is None:
                self._known_key = self._read_or_make_key()
            return self._known_key

    def _read_or_make_key(self) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return read_own(self._path)
        key = base64.urlsafe_b64encode(os.urandom(32))
        # Mode 0600. Whole and on the disk before it has its name: a power cut must not take a key
        # that has sealed something.
        with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix=".vault-") as draft:
            draft.write(key)
            draft.flush()
            os.fsync(draft.fileno())
            try:
                os.link(draft.name, self._path)
            except FileExistsError:  # another process was faster
                return read_own(self._path)
        return key


def _is_key(key: bytes) -> bool:
    """Return whether Fernet would take it: 32 bytes in base64."""
    try:
        return len(base64.urlsafe_b64decode(key)) == 32
    except ValueError:
        return False
