"""Files that arrive as `multipart/form-data`: a request in, its form out, each file on the disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ...exceptions import LyceumError
from ..storage.bucket import room_needed

MAX_FILES = 1000
MAX_FIELD_BYTES = 8192


class BadUpload(LyceumError):
    """The body is not the form that its content type names, or ends too early."""


class _FormParser(MultiPartParser):
    """Starlette's parser, which on its own accepts a form without its last boundary."""

    def __init__(self, request: Request) -> None:
        super().__init__(
            request.headers,
            self._whole(request.stream()),
            max_files=MAX_FILES,
            max_fields=MAX_FILES,
            max_part_size=MAX_FIELD_BYTES,
        )
        self._is_whole = False

    def on_end(self) -> None:
        self._is_whole = True

    async def _whole(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self._is_whole:  # raised here, so that the parser closes its files
            raise MultiPartException("It ends too early.")


@asynccontextmanager
async def received_form(request: Request) -> AsyncIterator[FormData]:
    """Read a body to its end, and keep its files for as long as the block lasts.

    The files have no names in any folder, so nothing stays of them after a killed server either.

    Raises:
        BadUpload: The body is not a form, is cut off, or has more than `MAX_FILES` files or fields,
            or a field of more than `MAX_FIELD_BYTES`.
        StorageFull: The disk has no room.
    """
    try:
        with room_needed():
            form = await _FormParser(request).parse()
    except ClientDisconnect as exc:
        raise BadUpload("The client left in the middle of the upload.") from exc
    except MultiPartException as exc:
        raise BadUpload(f"The body is not a valid form. {exc.message}") from exc
    try:
        yield form
    finally:
        await form.close()
