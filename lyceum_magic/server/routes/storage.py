"""`storage/...`: the files of the account's bucket, and the way to it for S3 clients."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...protocol import paths
from ...protocol.times import iso
from ..storage.bucket import Bucket, StoredFile, UnknownFile
from .description import problems
from .parts import StorageBucket, StorageEndpoint
from .uploads import BadUpload, Form, Upload, receive_form


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


_FILE = {"type": "string", "format": "binary"}
_ONE_FILE = _form(
    {
        "type": "object",
        "required": ["file"],
        "properties": {"file": _FILE, "key": {"type": "string"}},
    }
)
_SEVERAL_FILES = _form(
    {
        "type": "object",
        "required": ["files"],
        "properties": {"files": {"type": "array", "items": _FILE}},
    }
)


class _OpenFileResponse(FileResponse):
    """A file that is open already: what its path leads to by now does not matter."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        path = f"/dev/fd/{descriptor}"
        super().__init__(path, filename=name, stat_result=os.fstat(descriptor))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._descriptor)


router = APIRouter()


@router.post(paths.STORAGE_CREDENTIALS, responses=problems(503))
async def give_credentials(bucket: StorageBucket, endpoint: StorageEndpoint) -> dict[str, Any]:
    await asyncio.to_thread(bucket.make)
    access = await endpoint.access()
    return {
        "access_key": access.access_key,
        "secret_key": access.secret_key.reveal(),
        "session_token": None,
        "endpoint": access.url,
        "bucket_name": access.bucket,
        "region": access.region,
        "expires_at": None,  # they hold until the server ends
    }


@router.get(paths.LIST_FILES)
async def list_files(
    bucket: StorageBucket,
    prefix: str = "",
    max_files: Annotated[int, Query(ge=1, le=100_000)] = 1000,
) -> dict[str, Any]:
    listing = await asyncio.to_thread(bucket.list, prefix, limit=max_files)
    files = [
        {"key": file.key, "size": file.size, "last_modified": iso(file.modified_at)}
        for file in listing.files
    ]
    return {"files": files, "count": len(files), "truncated": listing.is_truncated}


@router.post(paths.UPLOAD, openapi_extra=_ONE_FILE, responses=problems(409, 507))
async def upload(request: Request, bucket: StorageBucket, key: str | None = None) -> dict[str, Any]:
    def take(form: Form) -> StoredFile:
        if [file.field for file in form.uploads] != ["file"]:
            raise BadUpload("An upload has one file, in the field `file`.")
        (file,) = form.uploads
        return bucket.put(file.path, key or form.fields.get("key") or file.name)

    async with _draft(bucket) as folder:
        form = await receive_form(_content_type(request), request.stream(), folder)
        return _stored(await asyncio.to_thread(take, form))


@router.post(paths.UPLOAD_BULK, openapi_extra=_SEVERAL_FILES, responses=problems(409, 507))
async def upload_several(request: Request, bucket: StorageBucket) -> dict[str, Any]:
    def take(files: list[Upload]) -> list[StoredFile]:
        return [bucket.put(file.path, file.name) for file in files]

    async with _draft(bucket) as folder:
        form = await receive_form(_content_type(request), request.stream(), folder)
        if not form.uploads:
            raise BadUpload("The form has no files; send each in a field `files`.")
        stored = await asyncio.to_thread(take, form.uploads)
        return {"files": [_stored(file) for file in stored]}


@router.get(paths.download("{key:path}"), response_class=Response, responses=problems(404, 416))
async def download(key: str, bucket: StorageBucket) -> Response:
    descriptor = await asyncio.to_thread(bucket.open_file, key)
    return _OpenFileResponse(descriptor, key.rpartition("/")[2])


@router.delete(paths.delete_file("{key:path}"), responses=problems(404, 409))
async def delete(key: str, bucket: StorageBucket) -> dict[str, int]:
    await asyncio.to_thread(bucket.delete, key)
    return {"deleted": 1}


@router.delete(paths.delete_folder("{prefix:path}"), responses=problems(404, 409))
async def delete_folder(prefix: str, bucket: StorageBucket) -> dict[str, int]:
    return {"deleted": await asyncio.to_thread(bucket.delete_folder, prefix)}


@router.get(paths.BLOCK_STORAGE)
async def list_volumes() -> dict[str, Any]:
    return {"volumes": []}


@router.delete(f"{paths.BLOCK_STORAGE}/{{volume_id}}", responses=problems(404))
async def delete_volume(volume_id: str) -> dict[str, str]:
    raise UnknownFile(f"There is no volume {volume_id!r}; this server has no block storage.")


@asynccontextmanager
async def _draft(bucket: Bucket) -> AsyncIterator[Path]:
    """`Bucket.draft` on threads: the files of an upload are many, or large, when they go."""
    draft = bucket.draft()
    folder = await asyncio.to_thread(draft.__enter__)
    try:
        yield folder
    finally:
        await asyncio.to_thread(draft.__exit__, None, None, None)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "")


def _stored(file: StoredFile) -> dict[str, Any]:
    return {"key": file.key, "size": file.size}
