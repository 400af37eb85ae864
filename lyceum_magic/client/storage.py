"""The account's files: listing, upload with progress, download, removal."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

from .. import config
from ..exceptions import ProtocolError
from ..protocol import paths
from ..protocol.times import moment_of
from .answers import error_of, read_json, read_object
from .lean_httpx import httpx

#: Function that is called with the number of bytes that have been sent or received so far.
OnBytes = Callable[[int], object]

#: Maximum seconds of silence between two pieces, and before the answer to the last one.
SILENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class AccountFile:
    """A file of the account; `modified` is the server's text, empty if it gives none."""

    key: str
    size: int | None = None
    modified: str = ""


@dataclass(frozen=True, slots=True)
class StorageAccess:
    """The address and the keys of the account's bucket, for a client of S3.

    Attributes:
        endpoint: an origin, such as `https://s3.example.com`.
        expires_at: the end of the keys in seconds since 1970; None if the server names none.
    """

    endpoint: str
    bucket: str
    access_key: str = field(repr=False)
    secret_key: config.Secret = field(repr=False)
    session_token: config.Secret | None = field(repr=False)
    region: str
    expires_at: float | None


class RequestSender(Protocol):
    """The part of `Client` that storage, keys and callbacks use."""

    account: config.Account

    async def send(
        self, method: str, path: str, *, is_streamed: bool = ..., silence_s: float | None = ...,
        **what: Any,
    ) -> httpx.Response: ...  # fmt: skip


class Storage:
    """The account's files. Every call raises the errors of `Client`."""

    def __init__(self, client: RequestSender) -> None:
        self._client = client

    async def list(self, prefix: str = "", max_files: int = 1000) -> tuple[list[AccountFile], bool]:
        """Return files whose keys begin with `prefix`, and whether there are more."""
        query = {"prefix": prefix, "max_files": max_files}
        response = await self._client.send("GET", paths.LIST_FILES, params=query)
        answer = read_json(response, source=self._client.account.source)
        return listed_files(answer), isinstance(answer, dict) and answer.get("truncated") is True

    async def access(self) -> StorageAccess:
        """Return the address and new keys of the bucket."""
        response = await self._client.send("POST", paths.STORAGE_CREDENTIALS)
        return _access(read_object(response, source=self._client.account.source))

    async def upload(self, file: BinaryIO, key: str, on_bytes: OnBytes) -> None:
        """Send an open file, piece by piece."""
        response = await self._client.send(
            "POST",
            paths.UPLOAD,
            params={"key": key},
            files={"file": (key.rpartition("/")[2], _Counted(file, on_bytes))},
            silence_s=SILENCE_S,
        )
        read_object(response, source=self._client.account.source)

    @asynccontextmanager
    async def download(self, key: str) -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        """Yield the size of a file, None if the server does not give it, and its pieces."""
        path = paths.download(quote(key))
        response = await self._client.send("GET", path, is_streamed=True, silence_s=SILENCE_S)
        try:
            if not response.is_success:
                await response.aread()
                raise error_of(response, source=self._client.account.source)
            size = response.headers.get("content-length", "")
            yield (
                int(size) if size.isdigit() else None,
                _unbroken(response.aiter_bytes(), str(response.request.url.host)),
            )
        finally:
            await response.aclose()

    async def delete(self, key: str) -> None:
        """Remove a file or, for a key that ends in `/`, all files whose keys begin with it."""
        path_of = paths.delete_folder if key.endswith("/") else paths.delete_file
        response = await self._client.send("DELETE", path_of(quote(key)))
        if not response.is_success:
            raise error_of(response, source=self._client.account.source)


class _Counted:
    """An open file that reports how much of it has been read.

    httpx asks a file for its descriptor to learn its size, and moves to its beginning.
    """

    def __init__(self, file: BinaryIO, on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._read += len(data)
        self._on_bytes(self._read)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._read = self._file.seek(offset, whence)
        return self._read

    def fileno(self) -> int:
        return self._file.fileno()


async def _unbroken(pieces: AsyncIterator[bytes], host: str) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces:
            yield piece
    except httpx.RequestError as exc:
        raise ProtocolError(
            f"{host} broke off before the file was whole ({type(exc).__name__}); try it again."
        ) from None


def _access(answer: dict[str, Any]) -> StorageAccess:
    said = {
        name: value
        for name in ("endpoint", "bucket_name", "access_key", "secret_key")
        if isinstance(value := answer.get(name), str) and value
    }
    if len(said) < 4:
        raise ProtocolError(
            "The server should give the address, the bucket and the keys of the account's "
            "storage, and does not; ask its operator."
        )
    endpoint, token = said["endpoint"], answer.get("session_token")
    return StorageAccess(
        endpoint if "://" in endpoint else f"https://{endpoint}",
        said["bucket_name"],
        said["access_key"],
        config.Secret(said["secret_key"]),
        config.Secret(token) if isinstance(token, str) and token else None,
        str(answer.get("region") or "us-east-1"),
        moment_of(answer.get("expires_at")),
    )


def listed_files(answer: Any) -> list[AccountFile]:
    """Return the files in a listing, by key.

    The embedded server answers `{"files": [{"key", "size", "last_modified"}]}`; the cloud's answer
    is not documented, so other names are accepted too.
    """
    if isinstance(answer, dict):
        names = ("files", "objects", "items", "Contents")
        answer = next((answer[name] for name in names if isinstance(answer.get(name), list)), [])
    found = []
    for item in answer if isinstance(answer, list) else ():
        if isinstance(item, str):
            item = {"key": item}
        if isinstance(item, dict) and (key := _first(item, "key", "name", "path", "Key")):
            size = _first(item, "size", "size_bytes", "Size")
            modified = _first(item, "last_modified", "updated_at", "modified", "LastModified")
            is_size = isinstance(size, int) and not isinstance(size, bool)
            found.append(AccountFile(str(key), size if is_size else None, str(modified or "")))
    return sorted(found, key=lambda file: file.key)


def _first(item: dict[str, Any], *names: str) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)
