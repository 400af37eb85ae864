"""Files that arrive as `multipart/form-data`: written to disk as they come, not kept in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ...exceptions import LyceumError
from ..storage.bucket import room_needed

MAX_FILES = 1000
MAX_FIELD_BYTES = 8192


class BadUpload(LyceumError):
    """The body is not what its content type says, or ends too early."""


@dataclass(frozen=True)
class Upload:
    """A file as it arrived: the field's name, the file's name, and where its bytes are."""

    field: str
    name: str
    path: Path


@dataclass(frozen=True)
class Form:
    """All of a body."""

    uploads: list[Upload]
    fields: dict[str, str]


async def receive_form(content_type: str, chunks: AsyncIterator[bytes], folder: Path) -> Form:
    """Reads a body to its end; its files are in `folder` then.

    Raises:
        BadUpload: it is no form, it is cut off, or it has too many parts.
        StorageFull: the disk has no room.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadUpload("An upload is multipart/form-data, and its content type has a boundary.")
    try:
        with closing(_Receiver(boundary, folder)) as receiver:
            async for chunk in chunks:
                if chunk:
                    with room_needed():
                        await asyncio.to_thread(receiver.write, chunk)
    except ClientDisconnect as exc:
        raise BadUpload("The client left in the middle of the upload.") from exc
    except FormParserError as exc:  # a boundary may be too long, a body may have another
        raise BadUpload("The body is not the form that its content type names.") from exc
    if not receiver.is_whole:
        raise BadUpload("The upload ends in the middle of the form.")
    return Form(receiver.uploads, receiver.fields)


class _Receiver:
    """What the parser tells, part by part."""

    def __init__(self, boundary: bytes, folder: Path) -> None:
        self.uploads: list[Upload] = []
        self.fields: dict[str, str] = {}
        self.is_whole = False
        self._folder = folder
        self._header = self._value = b""
        self._disposition = b""
        self._field = ""
        self._text: bytes | None = None  # of a part that is no file
        self._file: BufferedWriter | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def write(self, data: bytes) -> None:
        self._parser.write(data)

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _on_part_begin(self) -> None:
        self._header = self._value = self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = _limited(self._header + data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = _limited(self._value + data[start:end])

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        if len(self.uploads) + len(self.fields) >= MAX_FILES:
            raise BadUpload(f"One upload has at most {MAX_FILES} parts.")
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadUpload("A part of the form has no name.")
        self._field = _decoded(options[b"name"])
        if b"filename" in options:
            path = self._folder / str(len(self.uploads))
            self.uploads.append(Upload(self._field, _decoded(options[b"filename"]), path))
            self._file = path.open("wb")
        else:
            self._text = b""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._text is not None:
            self._text = _limited(self._text + data[start:end])

    def _on_part_end(self) -> None:
        self.close()
        if self._text is not None:
            self.fields[self._field] = _decoded(self._text)
            self._text = None

    def _on_end(self) -> None:
        self.is_whole = True


def _limited(data: bytes) -> bytes:
    if len(data) > MAX_FIELD_BYTES:
        raise BadUpload(f"What is no file of a form has at most {MAX_FIELD_BYTES} bytes.")
    return data


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadUpload("The names of a form are UTF-8.") from None
