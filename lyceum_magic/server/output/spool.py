"""A run's output on disk: bytes of stdout and stderr in the order of their arrival.

A spool is a file of records: one byte for the stream, the time in microseconds since 1970, the
payload's length, the payload. It only grows, and only the run's supervisor writes it, so a reader
needs no lock: a record that is not whole yet is not there yet. The end offset of a record is its
event id. Records never split a UTF-8 character that the program wrote whole.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ... import trail
from ..regular_files import open_regular
from .masking import Masker, SecretTexts

if TYPE_CHECKING:  # the supervisor imports this module, and little else
    from pathlib import Path

    from ...protocol.events import StreamName

_HEADER = struct.Struct(">BQI")
_STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")


#: No record is longer. A reader takes a longer one for damage: it would have to hold it.
_MAX_RECORD_BYTES = 64 << 20
#: Errors that pass, and say nothing about the file.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

#: The message to readers of a damaged spool.
LOST = (
    "\nThe rest of this output is lost: the server's file of it is damaged or was cut off. "
    "Run this again if you need it.\n"
)


class DamagedSpool(ValueError):
    """The rest of a spool cannot be read: a power cut took it, or another program wrote there."""


class SpoolRecord(NamedTuple):
    """One record. `end` is the offset after it; `timestamp` in seconds since 1970."""

    stream: StreamName
    timestamp: float
    data: bytes
    end: int


def encode_record(stream: StreamName, timestamp: float, data: bytes) -> bytes:
    """Return the bytes to append for one piece of output."""
    return _HEADER.pack(_STREAMS.index(stream), int(timestamp * 1e6), len(data)) + data


class SpoolWriter:
    """A writer that appends output to a spool, holding back characters that are not whole.

    The program can cut the file off or take it away. Records keep their offsets all the same, and
    readers find a gap, and say so.

    Args:
        secrets: what is masked in the output, see `masking`. It holds back more.
    """

    def __init__(self, path: str | os.PathLike[str], *, secrets: Iterable[str] = ()) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size
        texts = SecretTexts(secrets)
        self._maskers = {stream: Masker(texts) for stream in _STREAMS} if texts else {}
        self._held: dict[StreamName, bytes] = {}

    @property
    def end(self) -> int:
        """The end offset of the last record."""
        return self._size

    def append(self, stream: StreamName, timestamp: float, data: bytes) -> bool:
        """Add what arrived on one stream; return False if all of it was held back.

        Raises:
            OSError: the disk is full, or fails; the spool ends with a whole record all the same.
        """
        if self._maskers:
            data = self._maskers[stream].feed(data)
        return self._append(stream, timestamp, data)

    def flush(self, timestamp: float) -> None:
        """Add what is held back: nothing will follow that could complete it."""
        for stream, masker in self._maskers.items():
            self._append(stream, timestamp, masker.close())
        while self._held:
            stream, data = self._held.popitem()
            self._write(stream, timestamp, data)
        self._fill_gap()
        if not os.path.lexists(self._path):
            lost = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(lost, encode_record("stderr", timestamp, LOST.encode()))
            os.close(lost)

    def close(self) -> None:
        os.close(self._file)

    def _append(self, stream: StreamName, timestamp: float, data: bytes) -> bool:
        data = self._held.pop(stream, b"") + data
        end = whole_characters(data)
        if end < len(data):
            self._held[stream] = data[end:]
        if not end:
            return False
        self._write(stream, timestamp, data[:end])
        return True

    def _fill_gap(self) -> None:
        size = os.fstat(self._file).st_size
        if size < self._size:
            os.ftruncate(self._file, self._end_of_records(size))  # half a one would pass for whole
            os.ftruncate(self._file, self._size)
        else:
            self._size = size

    def _end_of_records(self, size: int) -> int:
        """Return where the last whole record ends in the first `size` bytes."""
        end = 0
        while len(header := os.pread(self._file, _HEADER.size, end)) == _HEADER.size:
            following = end + _HEADER.size + _HEADER.unpack(header)[2]
            if following > size:
                break
            end = following
        return end

    def _write(self, stream: StreamName, timestamp: float, data: bytes) -> None:
        self._fill_gap()
        record, written = encode_record(stream, timestamp, data), 0
        try:
            # One call, except where a disk that is almost full takes a part.
            while written < len(record):
                written += os.write(self._file, record[written:])
        except OSError:
            if written:
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise
        self._size += written
        if trail.is_on and trail.own_run:
            trail.mark(
                "supervisor", trail.own_run, "written",
                stream=stream, bytes=len(data), offset=self._size,
            )  # fmt: skip


def whole_characters(data: bytes) -> int:
    """Return how many bytes of `data` come before a UTF-8 character that may go on after its end.

    Bytes that can never become a character are not held back.
    """
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:  # continues a character that begins further left
            continue
        length = 2 if 0xC2 <= byte <= 0xDF else 3 if byte & 0xF0 == 0xE0 else 0
        length = length or (4 if 0xF0 <= byte <= 0xF4 else 1)
        return len(data) - back if length > back else len(data)
    return len(data)


def read_spool(path: Path, offset: int, *, max_bytes: int = 1 << 18) -> list[SpoolRecord]:
    """Return the whole records from `offset` on, about `max_bytes` of them; empty at the end.

    Args:
        offset: a record's end, or 0.

    Raises:
        DamagedSpool: what lies there is no record, or the spool ends before `offset`.
    """
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return []  # nothing written yet, or taken away by the program
    except OSError as exc:
        if exc.errno in _SHORTAGES:
            raise
        raise DamagedSpool(f"the spool cannot be opened: {exc.strerror}") from exc
    try:
        block = os.pread(descriptor, max_bytes, offset)
        if len(block) >= _HEADER.size:
            # A record longer than the block is read whole, else the reader would never pass it.
            needed = _HEADER.size + _length(block, 0, offset)
            while len(block) < needed and (more := os.pread(
                descriptor, needed - len(block), offset + len(block)
            )):  # fmt: skip
                block += more
        elif not block and offset > os.fstat(descriptor).st_size:
            raise DamagedSpool(f"the spool ends before {offset}")
    except OSError as exc:
        if exc.errno in _SHORTAGES:
            raise
        raise DamagedSpool(f"the spool cannot be read: {exc.strerror}") from exc
    finally:
        os.close(descriptor)
    return list(_records(block, offset))


def _length(block: bytes, position: int, offset: int) -> int:
    """Return the length of the record whose header is at `position`."""
    number, _, length = _HEADER.unpack_from(block, position)
    if number >= len(_STREAMS) or not 0 < length <= _MAX_RECORD_BYTES:
        raise DamagedSpool(f"no record begins at {offset + position}")
    return int(length)


def _records(block: bytes, offset: int) -> Iterator[SpoolRecord]:
    position = 0
    while position + _HEADER.size <= len(block):
        try:
            length = _length(block, position, offset)
        except DamagedSpool:
            if not position:
                raise
            return  # what is whole comes first
        number, microseconds, _ = _HEADER.unpack_from(block, position)
        start, position = position + _HEADER.size, position + _HEADER.size + length
        if position > len(block):
            return
        data = block[start:position]
        yield SpoolRecord(_STREAMS[number], microseconds / 1e6, data, offset + position)
