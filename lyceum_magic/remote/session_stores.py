"""The files of a session: a folder of this machine, or URLs of a bucket.

A manifest and its pack are written under their own names by rename, the manifest last.
"""

from __future__ import annotations

import contextlib
import os

from .packs import Broken, parts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from .packs import Blob

#: Gaps of this size are fetched with what lies around them, to save requests. In bytes.
_GAP = 1 << 18
_TIMEOUT_S = 60
_ATTEMPTS = 3


def open_store(job: dict[str, Any]) -> FolderStore | UrlStore:
    """Return the files of the session that a job names.

    Raises:
        Broken: the machine gave the cell no folder.
    """
    folder = os.environ.pop("LYCEUM_SESSION_FOLDER", "")
    if job.get("urls"):
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
        _sync_folder(os.path.join(self._folder, "packs"))
        path = os.path.join(self._folder, "cells", f"{snapshot}.json")
        with open(f"{path}.draft", "xb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.draft", path)
        _sync_folder(os.path.dirname(path))

    def clean(self, snapshot: str) -> None:
        """Remove what a failed save has left."""
        path = os.path.join(self._folder, "cells", f"{snapshot}.json")
        for left in (f"{self.path_of(snapshot)}.draft", f"{path}.draft"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)
        if not os.path.exists(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path_of(snapshot))


class UrlStore:
    """Presigned URLs. What a cell needs of a pack is fetched into a sparse file here."""

    is_checked = True

    def __init__(self, urls: dict[str, Any]) -> None:
        import tempfile

        self._urls = urls
        self._folder = tempfile.mkdtemp(prefix="lyceum-session-")
        import atexit
        import shutil

        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)

    def manifest(self, snapshot: str) -> bytes:
        with _request(self._urls["manifest"], "the session's last cell") as answer:
            content: bytes = answer.read()
        return content

    def path_of(self, pack: str) -> str:
        return os.path.join(self._folder, f"{pack}.pack")

    def prepare(self, blobs: Iterable[Blob]) -> None:
        """Fetch what the blobs take of their packs."""
        spans: dict[str, list[tuple[int, int]]] = {}
        for blob in blobs:
            for pack, offset, length, _ in parts_of(blob):
                spans.setdefault(pack, []).append((offset, offset + length))
        for pack, wanted in spans.items():
            if pack not in self._urls["packs"]:
                raise Broken(f"the pack {pack} is missing")
            with open(self.path_of(pack), "ab"):
                pass
            with open(self.path_of(pack), "r+b") as file:
                for start, end in _joined(wanted):
                    self._fetch(pack, start, end, file)

    def _fetch(self, pack: str, start: int, end: int, file: Any) -> None:
        if start == end:
            return
        span = {"Range": f"bytes={start}-{end - 1}"}
        with _request(self._urls["packs"][pack], f"the pack {pack}", headers=span) as answer:
            # A server may send all of it instead.
            file.seek(start if answer.status == 206 else 0)
            while piece := answer.read(1 << 20):
                file.write(piece)

    def draft_of(self, snapshot: str) -> str:
        return f"{self.path_of(snapshot)}.draft"

    def publish(self, snapshot: str, manifest: bytes) -> None:
        """Put the pack, then the manifest."""
        path = self.draft_of(snapshot)
        with open(path, "rb") as file:
            size = {"Content-Length": str(os.fstat(file.fileno()).st_size)}
            with _request(self._urls["put_pack"], "the new pack", "PUT", size, file):
                pass
        os.unlink(path)
        size = {"Content-Length": str(len(manifest))}
        with _request(self._urls["put_manifest"], "the new cell", "PUT", size, manifest):
            pass

    def clean(self, snapshot: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.draft_of(snapshot))


def _joined(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Return the spans in order; those that touch or nearly do are one."""
    start = end = -1
    for low, high in sorted(spans):
        if start >= 0 and low <= end + _GAP:
            end = max(end, high)
            continue
        if start >= 0:
            yield start, end
        start, end = low, high
    if start >= 0:
        yield start, end


def _request(
    url: str,
    name: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: Any = None,
) -> Any:
    """Return the answer to a request; it is tried again if the server or the network fails.

    Raises:
        Broken: the server refused, or failed each time; the URL is in no message.
    """
    import time
    import urllib.error
    import urllib.request

    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(attempt)
        if hasattr(body, "seek"):
            body.seek(0)
        request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
        try:
            return urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as exc:
            problem = f"the storage answered {exc.code}"
            if exc.code < 500 and exc.code != 429:
                break
        except (OSError, urllib.error.URLError) as exc:
            problem = f"the storage cannot be reached ({type(exc).__name__})"
    raise Broken(f"{name} cannot be {'read' if method == 'GET' else 'written'}: {problem}")


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
