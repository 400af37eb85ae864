"""The folders of runs: a run's id in, a path out, and back.

A folder's path shows in the command lines of the run's processes, which every user of the machine
can read. The id must not show there, since it opens the run's stream. So the name of a folder is
the encrypted id. Runs of earlier versions have folders named by their ids, and keep them.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import uuid
from collections.abc import Iterable
from functools import cached_property
from itertools import count
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from ..disks import reason
from ..exceptions import EmbeddedServerError

_KEY_FILE = ".key"
_KEY_BYTES = 32
#: An id has as many bytes as a block of AES, so there is one block, which needs no mode.
_DIGITS = 2 * 16
_OWN_NAME = re.compile(f"[0-9a-f]{{{_DIGITS}}}")


class RunFolders:
    """The folders of one server's runs.

    Their key lies among them, as it is of no use without them.

    Args:
        parent: The folder that holds them all.

    Raises (every call):
        EmbeddedServerError: The key cannot be read or made.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def make(self) -> None:
        """Make the folder that holds them all, for this user alone, and its key."""
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _ = self._cipher

    def of(self, run_id: str) -> Path:
        """Return the path of a run's folder."""
        earlier = self._parent / run_id
        if os.path.lexists(earlier) or (number := _bytes_of(run_id)) is None:
            return earlier
        return self._parent / self._cipher.encryptor().update(number).hex()

    def run_id_of(self, name: str) -> str:
        """Return the id of the run whose folder has this name; the name itself if it is none."""
        return self._decrypted([name]).get(name, name)

    def run_ids(self) -> list[str]:
        """Return the ids of the runs that have a folder."""
        try:
            names = os.listdir(self._parent)
        except FileNotFoundError:
            return []
        found = self._decrypted(names)
        return [found.get(name, name) for name in names if not name.startswith(".")]

    def _decrypted(self, names: Iterable[str]) -> dict[str, str]:
        """Return name -> id for all names that are encrypted ids.

        All at once: a sweep asks for very many, and each call takes longer than a block.
        """
        own = [name for name in names if _OWN_NAME.fullmatch(name)]
        if not own:
            return {}
        numbers = self._cipher.decryptor().update(bytes.fromhex("".join(own))).hex()
        return {
            name: _id_from(numbers[at : at + _DIGITS])
            for name, at in zip(own, count(step=_DIGITS), strict=False)
        }

    @cached_property
    def _cipher(self) -> Cipher[ECB]:
        return Cipher(AES(self._key), ECB())

    @cached_property
    def _key(self) -> bytes:
        path = self._parent / _KEY_FILE
        try:
            key = _read_or_make(path)
        except OSError as exc:
            raise EmbeddedServerError(
                f"{path}, the key to the names of run folders, cannot be read or made "
                f"({reason(exc, path)}). Check its disk, owner and mode."
            ) from exc
        if len(key) != _KEY_BYTES:
            raise EmbeddedServerError(
                f"{path} should hold the {_KEY_BYTES} bytes of the key to the names of run "
                "folders, and holds something else. Restore it, or remove it and lose the output "
                "of earlier runs."
            )
        return key


def _read_or_make(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Mode 0600. Whole and on the disk before it has its name: a power cut must not take the key of
    # folders that exist.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".key-") as draft:
        draft.write(os.urandom(_KEY_BYTES))
        draft.flush()
        os.fsync(draft.fileno())
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(draft.name, path)
    return path.read_bytes()


def _id_from(digits: str) -> str:
    """Return a server's id as `uuid.UUID` writes it, in a tenth of its time."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _bytes_of(run_id: str) -> bytes | None:
    """Return the bytes of a server's id; None for any other id."""
    try:
        number = uuid.UUID(run_id)
    except ValueError:
        return None
    return number.bytes if str(number) == run_id else None
