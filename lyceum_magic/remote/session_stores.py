"""The files of a session: a folder of this machine here, or a bucket in `session_urls`.

A manifest and its pack are written under their own names by rename, the manifest last.
"""

from __future__ import annotations

import contextlib
import os

from .packs import Broken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .packs import Blob
    from .session_urls import UrlStore


def open_store(job: dict[str, Any]) -> FolderStore | UrlStore:
    """Return the files of the session that a job names.

    Raises:
        Broken: the machine gave the cell no folder.
    """
    folder = os.environ.pop("LYCEUM_SESSION_FOLDER", "")
    if job.get("urls"):
        from .session_urls import UrlStore

        return UrlStore(job["urls"])
    if not folder:
        raise Broken("this machine keeps no sessions")
    return FolderStore(folder)


class FolderStore:
    """The folder `sessions/KEY` of an embedded server."""

    is_checked = False

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def manifest(self, snapshot: str) -> bytes:
        try:
            with open(os.path.join(self._folder, "cells", f"{snapshot}.json"), "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise Broken("its last cell is missing") from None

    def path_of(self, pack: str) -> str:
        return os.path.join(self._folder, "packs", f"{pack}.pack")

    def prepare(self, blobs: Iterable[Blob]) -> None:
        """Do nothing: the packs are here."""

    def draft_of(self, snapshot: str) -> str:
        """Return the path for the pack of a new cell, until `publish` names it."""
        for folder in ("packs", "cells"):
            os.makedirs(os.path.join(self._folder, folder), mode=0o700, exist_ok=True)
        return f"{self.path_of(snapshot)}.draft"

    def publish(self, snapshot: str, manifest: bytes) -> None:
        """Give the pack its name, then write the manifest."""
        os.rename(f"{self.path_of(snapshot)}.draft", self.path_of(snapshot))
        path = os.path.join(self._folder, "cells", f"{snapshot}.json")
        with open(f"{path}.draft", "xb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.draft", path)

    def clean(self, snapshot: str) -> None:
        """Remove what a failed save has left."""
        path = os.path.join(self._folder, "cells", f"{snapshot}.json")
        for left in (f"{self.path_of(snapshot)}.draft", f"{path}.draft"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)
        if not os.path.exists(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path_of(snapshot))
