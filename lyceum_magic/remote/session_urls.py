"""The files of a session in a bucket, by presigned URLs alone.

The parts of packs that a cell needs are fetched into sparse files here, and its own pack and
manifest are put when it ends. A message names the object and the storage's answer, never a URL.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from http.client import HTTPException

from .packs import Broken, parts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Callable

    from .packs import Blob

#: Gaps of this size are fetched with the pieces around them, to save requests. In bytes.
GAP_BYTES = 1 << 18
#: The pauses before the second and each later attempt at a request, in seconds.
PAUSES_S = (0.5, 1.0, 2.0)
#: Maximum seconds of silence of the storage.
_TIMEOUT_S = 60
_PIECE_BYTES = 1 << 20


class UrlStore:
    """The session of one cell. It has the methods of `session_stores.FolderStore`.

    Args:
        urls: `manifest` gets that of the last cell, `packs` gets each pack by its name, `put_pack`
            and `put_manifest` put those of this cell.
    """

    is_checked = True

    def __init__(self, urls: dict[str, Any]) -> None:
        self._urls = urls
        self._folder = tempfile.mkdtemp(prefix="lyceum-session-")
        self._fetched: set[tuple[str, int, int]] = set()
        atexit.register(remove_own, self._folder, os.getpid())

    def manifest(self, snapshot: str) -> bytes:
        name = "its last cell"
        if not self._urls["manifest"]:
            raise Broken(f"{name} is missing")

        def read() -> bytes:
            with open_url(self._urls["manifest"]) as answer:
                found: bytes = answer.read()
            return found

        content: bytes = attempted(read, f"{name} cannot be read")
        return content

    def path_of(self, pack: str) -> str:
        return os.path.join(self._folder, f"{pack}.pack")

    def prepare(self, blobs: Iterable[Blob]) -> None:
        """Fetch the parts of packs that the blobs take."""
        spans: dict[str, set[tuple[int, int]]] = {}
        for blob in blobs:
            for pack, offset, length, _ in parts_of(blob):
                spans.setdefault(pack, set()).add((offset, offset + length))
        for pack, wanted in spans.items():
            left = [span for span in wanted if (pack, *span) not in self._fetched]
            if pack not in self._urls["packs"]:
                raise Broken(f"the pack {pack} is missing")
            with open(os.open(self.path_of(pack), os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                for start, end in joined(left):
                    self._fetch(pack, start, end, file)
            self._fetched.update((pack, *span) for span in left)

    def _fetch(self, pack: str, start: int, end: int, file: Any) -> None:
        """Write a part of a pack at its place; an attempt goes on where the last one broke off."""
        at = start

        def read() -> None:
            nonlocal at
            with open_url(self._urls["packs"][pack], {"Range": f"bytes={at}-{end - 1}"}) as answer:
                # Not every storage knows ranges, and `rclone serve s3` sends them with status 200.
                span = answer.headers.get("Content-Range", "")
                if answer.status != 206 and not span.startswith(f"bytes {at}-"):
                    skip(answer, at)
                file.seek(at)
                while at < end:
                    piece = answer.read(min(_PIECE_BYTES, end - at))
                    if not piece and answer.length:  # `read` with a size does not say so
                        raise ConnectionResetError
                    if not piece:
                        raise Broken(f"the end of the pack {pack} is missing")
                    file.write(piece)
                    at += len(piece)

        if start < end:
            attempted(read, f"the pack {pack} cannot be read")

    def draft_of(self, snapshot: str) -> str:
        return f"{self.path_of(snapshot)}.draft"

    def publish(self, snapshot: str, manifest: bytes) -> None:
        """Put the pack, then the manifest: one that exists names a whole pack."""
        path = self.draft_of(snapshot)
        with open(path, "rb") as file:
            put(self._urls["put_pack"], file, os.fstat(file.fileno()).st_size, "the new pack")
        os.unlink(path)
        put(self._urls["put_manifest"], manifest, len(manifest), "the new cell")

    def clean(self, snapshot: str) -> None:
        """Remove the draft; a pack without a manifest goes with the bucket's next collection."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.draft_of(snapshot))


def joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield spans in order, those that touch or nearly do as one; empty ones are left out."""
    start = end = -1
    for low, high in sorted(span for span in spans if span[0] < span[1]):
        if start >= 0 and low <= end + GAP_BYTES:
            end = max(end, high)
            continue
        if start >= 0:
            yield start, end
        start, end = low, high
    if start >= 0:
        yield start, end


def put(url: str, body: Any, size: int, name: str) -> None:
    """Put an object in one request.

    Args:
        body: bytes, or a file that is sent from its beginning at each attempt.
        name: of the object, for the message.

    Raises:
        Broken: the storage refused, or failed each time.
    """

    def send() -> None:
        if hasattr(body, "seek"):
            body.seek(0)
        # A type of its own: with that of a form some servers would read the body as one.
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with open_url(url, headers, body, "PUT") as answer:
            answer.read()

    attempted(send, f"{name} cannot be written")


def attempted(request: Callable[[], Any], problem: str) -> Any:
    """Return the result of a request; one that the storage or the network failed is repeated.

    Raises:
        Broken: `problem`, and why.
    """
    for pause_s in (*PAUSES_S, None):
        try:
            return request()
        except urllib.error.HTTPError as exc:
            why, is_final = reason_of(exc.code), exc.code < 500 and exc.code != 429
            exc.close()
        except (OSError, HTTPException) as exc:
            why, is_final = f"the storage cannot be reached ({type(exc).__name__})", False
        if is_final or pause_s is None:
            break
        time.sleep(pause_s)
    # After the block, so that no error with the URL in it is its context.
    raise Broken(f"{problem}: {why}")


def reason_of(status: int) -> str:
    """Return a storage's refusal in words."""
    said = f"the storage answered {status}"
    if status == 403:
        return f"{said}, as it does when the cell's URLs have ended"
    return f"{said}, it is not there" if status == 404 else said


def open_url(
    url: str, headers: dict[str, str] | None = None, body: Any = None, method: str = "GET"
) -> Any:
    """Return the answer to a request, whose body is still to be read."""
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    return urllib.request.urlopen(request, timeout=_TIMEOUT_S)


def skip(answer: Any, size: int) -> None:
    """Read the first bytes of a body and drop them."""
    while size > 0 and (piece := answer.read(min(_PIECE_BYTES, size))):
        size -= len(piece)


def remove_own(folder: str, pid: int) -> None:
    """Remove a folder at the end of the process that made it, and not of its forked children."""
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
