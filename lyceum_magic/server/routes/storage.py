"""`storage/...`: the files of the account's bucket, and the address and keys for S3 clients."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from starlette.datastructures import UploadFile
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...protocol import paths
from ...protocol.times import iso
from ..storage.bucket import BucketFile, UnknownFile
from .description import problems
from .parts import StorageBucket, StorageEndpoint
from .uploads import BadUpload, received_form


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
    """A file that is open already, whatever its path leads to by now."""

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
    async with received_form(request) as form:
        files = [(name, part) for name, part in form.multi_items() if isinstance(part, UploadFile)]
        if [name for name, _ in files] != ["file"]:
            raise BadUpload("An upload has one file, in the field `file`.")
        ((_, file),) = files
        name = form.get("key")
        key = key or (name if isinstance(name, str) else None) or file.filename or ""
        return _stored(await asyncio.to_thread(bucket.put, file.file, key))


@router.post(paths.UPLOAD_BULK, openapi_extra=_SEVERAL_FILES, responses=problems(409, 507))
async def upload_several(request: Request, bucket: StorageBucket) -> dict[str, Any]:
    async with received_form(request) as form:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if not files:
            raise BadUpload("The form has no files. Send each in a field `files`.")
        stored = [
            await asyncio.to_thread(bucket.put, file.file, file.filename or "") for file in files
        ]
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
    raise UnknownFile(f"There is no volume {volume_id!r}. This server has no block storage.")


def _stored(file: BucketFile) -> dict[str, Any]:
    return {"key": file.key, "size": file.size}
