"""Looks for secrets wherever they could have been left, in every form in which they could be."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus


def forms(secret: str) -> frozenset[bytes]:
    """The secret as it is, URL-encoded, JSON-escaped, and in base64 wherever it begins there."""
    raw = secret.encode()
    texts = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
    escaped = json.dumps(secret)[1:-1]
    texts |= {escaped, json.dumps(escaped)[1:-1]}
    found = {text.encode() for text in texts} | {raw}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        # What shares a character with its neighbours may read otherwise.
        inner = encoded[math.ceil(before * 8 / 6) : (before + len(raw)) * 8 // 6]
        found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return frozenset(found)


class Canaries:
    """Some secrets, by name."""

    def __init__(self, **secrets: str) -> None:
        self._forms = {name: forms(secret) for name, secret in secrets.items()}

    def in_bytes(self, data: bytes) -> list[str]:
        """The names of those that are in it, in any form."""
        return [
            name for name, all_forms in self._forms.items() if any(f in data for f in all_forms)
        ]

    def in_text(self, text: str) -> list[str]:
        return self.in_bytes(text.encode("utf-8", "surrogatepass"))

    def in_files(self, *folders: Path) -> list[tuple[str, list[str]]]:
        """Every file below the folders that holds some, with their names."""
        return list(self._hits(_files(folders)))

    def in_processes(self) -> list[tuple[str, list[str]]]:
        """Every command line and environment on this machine that holds some."""
        return list(self._hits(Path("/proc").glob("[0-9]*/cmdline"))) + list(
            self._hits(Path("/proc").glob("[0-9]*/environ"))
        )

    def _hits(self, files: Iterable[Path]) -> Iterator[tuple[str, list[str]]]:
        for file in files:
            try:
                data = file.read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # has ended, or belongs to a user who cannot have learned it from us
            if names := self.in_bytes(data):
                yield str(file), names


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    return (file for folder in folders for file in folder.rglob("*") if file.is_file())
