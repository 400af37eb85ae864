"""The folders of runs: a run's id in, a path out, and back.

A folder's path shows in the command lines of what is started in it, which every user of the machine
can read. The id may not be read there: it opens the run's stream. So a folder has a name of its
own, the id encrypted. Runs that an earlier version began have folders named by their ids, and keep
them.
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
#: An id has as many bytes as a block of AES, so there is one block, and no mode to tell several
#: apart.
_DIGITS = 2 * 16
_OWN_NAME = re.compile(f"[0-9a-f]{{{_DIGITS}}}")


class RunFolders:
    """The folders of one server.

    The key lies among them, as it is of no use without them.

    Args:
        parent: the folder that holds them all.

    Raises (every call):
        EmbeddedServerError: the key cannot be read or made.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def make(self) -> None:
        """Makes the folder of them all, for this user alone, and its key."""
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _ = self._cipher

    def of(self, run_id: str) -> Path:
        """Where a run has its folder."""
        earlier = self._parent / run_id
        if os.path.lexists(earlier) or (number := _bytes_of(run_id)) is None:
            return earlier
        return self._parent / self._cipher.encryptor().update(number).hex()

    def run_id_of(self, name: str) -> str:
        """The run whose folder has this name; the name itself where none can have it."""
        return self._decrypted([name]).get(name, name)

    def run_ids(self) -> list[str]:
        """The runs that have a folder."""
        try:
            names = os.listdir(self._parent)
        except FileNotFoundError:
            return []
        found = self._decrypted(names)
        return [found.get(name, name) for name in names if not name.startswith(".")]

    def _decrypted(self, names: Iterable[str]) -> dict[str, str]:
        """Name -> id, for all names that are encrypted ids.

        All of them at once: a sweep asks for very many, and each call takes longer than a block.
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
                f"{path}, which names the folders of runs, cannot be read or made "
                f"({reason(exc, path)}); look after its disk, owner and mode."
            ) from exc
        if len(key) != _KEY_BYTES:
            raise EmbeddedServerError(
                f"{path} should hold the {_KEY_BYTES} bytes that name the folders of runs, and "
                "holds something else; put it back as it was, or remove it and lose the output of "
                "earlier runs."
            )
        return key


def _read_or_make(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Of mode 0600. Whole and on the disk before it has its name: what a power cut took would be
    # missed by every folder.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".key-") as draft:
        draft.write(os.urandom(_KEY_BYTES))
        draft.flush()
        os.fsync(draft.fileno())
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(draft.name, path)
    return path.read_bytes()


def _id_from(digits: str) -> str:
    """An id as this server makes them, as `uuid.UUID` writes it, at a tenth of its time."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _bytes_of(run_id: str) -> bytes | None:
    """The bytes of an id as this server makes them; None for any other."""
    try:
        number = uuid.UUID(run_id)
    except ValueError:
        return None
    return number.bytes if str(number) == run_id else None
