"""The bootstraps that make programs of cells, kept by digest: clients of this version need not send
theirs.

Supervisors load this server's own ahead of need. A cell that an earlier server of the folder has
accepted may name another one, which that server has left here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

from ....own_files import put_own
from ....protocol.bootstrap import BOOTSTRAP_FILE
from ....submission import wrapping
from ..base import Refusal

logger = logging.getLogger(__name__)


class Bootstraps:
    """The bootstraps of a state folder.

    Args:
        folder: holds a file for each, named by its digest; made by `open`.

    Attributes:
        loaded: the digest of the one that supervisors load; empty if it could not be written, and
            cells must bring their own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.loaded = ""

    @property
    def file(self) -> Path:
        """The file that supervisors load; it may not exist."""
        return self._path(wrapping.digest())

    def open(self) -> None:
        """Put this version's own in place."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.file.exists():
                put_own(self.file, wrapping.loading_text())
            os.utime(self.file)
        except OSError as exc:
            logger.warning("%s cannot be written: %s", self.file, exc.strerror)
        else:
            self.loaded = wrapping.digest()

    def provide(self, digest: str, run_folder: Path) -> None:
        """Put a bootstrap into a run's folder, where its workers look for it.

        Raises:
            Refusal: it is not here.
        """
        place = run_folder / BOOTSTRAP_FILE
        place.unlink(missing_ok=True)
        try:
            # A second name costs no space, and keeps it there when this folder is swept.
            with contextlib.suppress(OSError):
                os.link(self._path(digest), place)
                return
            shutil.copyfile(self._path(digest), place)
        except FileNotFoundError:
            raise Refusal(
                "the cell was sent for another version of this server; run the cell again"
            ) from None

    def sweep(self, unused_since: float) -> None:
        """Remove those that no server has loaded since a moment, in seconds since 1970."""
        for file in self._folder.glob("*.py"):
            if file.stem != self.loaded and file.stat().st_mtime < unused_since:
                file.unlink()

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.py"
