"""Blobs of a session <-> packs: files that are written once, and mapped back copy-on-write.

A blob is named `[pack, offset, length, sha256]`. A buffer of 32 MiB or more is cut into chunks, and
the list of their names stands in place of its digest. Buffers begin at multiples of 64 KiB, so that
they can be mapped. A pack is never changed, only unlinked: a mapping of a file that was cut would
end the program.
"""

from __future__ import annotations

import hashlib
import mmap
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    #: `[pack, offset, length, sha256]`, or a list of such in place of the last.
    Blob = list[Any]

ALIGNMENT = 1 << 16
CHUNK_BYTES = 16 << 20
#: Buffers of this size are cut into chunks.
CHUNKED_BYTES = 32 << 20
#: Bytes of mapped buffers whose digests are checked at a restore; more would take longer than the
#: restore. All pickles are checked, and all that came over a network.
CHECKED_BYTES = 8 << 20

_PAGE = 4096
#: The highest bytes of entries in /proc/self/pagemap of pages that were not written to: neither in
#: memory (0x80) nor swapped (0x40), or of the file itself (0x20).
_UNTOUCHED = bytes(flags for flags in range(256) if not flags & 0xC0 or flags & 0x20)


class Broken(Exception):
    """A pack or a manifest is not what was saved; one sentence."""


class TooMuch(Exception):
    """More is to be saved than a limit allows; one sentence."""


def parts_of(blob: Blob) -> list[Blob]:
    """Return the chunks of a buffer, or the blob alone."""
    return blob[3] if isinstance(blob[3], list) else [blob]


def packs_of(blobs: Iterable[Blob]) -> dict[str, int]:
    """Return how many bytes of each pack the blobs take; shared ones are counted once."""
    taken = {(part[0], part[1]): part[2] for blob in blobs for part in parts_of(blob)}
    sizes: dict[str, int] = {}
    for (pack, _), length in taken.items():
        sizes[pack] = sizes.get(pack, 0) + length
    return sizes


class PackWriter:
    """A new pack.

    Args:
        path: of the file to write.
        pack: its name in the names of blobs.
        known: blobs of earlier packs, which are not written again.
        max_bytes: maximum size of the pack.
    """

    def __init__(self, path: str, pack: str, known: Iterable[Blob], max_bytes: int) -> None:
        self._file = open(path, "xb", buffering=1 << 18)  # noqa: SIM115 - `close` ends it
        self._pack = pack
        self._known = {(part[2], part[3]): part for blob in known for part in parts_of(blob)}
        self._max_bytes = max_bytes
        self._end = 0

    def add(self, data: Any, *, alignment: int = 1) -> Blob:
        """Write bytes, unless they are in an earlier pack; return their name."""
        view = memoryview(data)
        digest = hashlib.sha256(view).hexdigest()
        known = self._known.get((view.nbytes, digest))
        if known is not None and known[1] % alignment == 0:
            return known
        offset = -(-self._end // alignment) * alignment
        if offset + view.nbytes > self._max_bytes:
            raise TooMuch(f"the state has more than the {self._max_bytes:,} bytes of the limit")
        if offset > self._end:
            self._file.seek(offset)
        self._file.write(view)
        self._end = offset + view.nbytes
        blob = [self._pack, offset, view.nbytes, digest]
        self._known[view.nbytes, digest] = blob
        return blob

    def add_buffer(self, buffer: memoryview, mapped: Mapped | None) -> Blob:
        """Write a buffer, but not what is still as it was mapped; return its name."""
        length = buffer.nbytes
        start = address_of(buffer)
        found = mapped.at(start, length) if mapped is not None else None
        if length < CHUNKED_BYTES:
            if found is not None and is_untouched(start, length):
                return found
            return self.add(buffer, alignment=ALIGNMENT)
        before = parts_of(found) if found is not None else []
        chunks = []
        for number, at in enumerate(range(0, length, CHUNK_BYTES)):
            piece = buffer[at : at + CHUNK_BYTES]
            if before and is_untouched(start + at, piece.nbytes):
                chunks.append(before[number])
            else:
                chunks.append(self.add(piece, alignment=ALIGNMENT))
        return [chunks[0][0], chunks[0][1], length, chunks]

    def close(self) -> None:
        self._file.flush()
        self._file.truncate(self._end)
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Close and remove what was written."""
        path = self._file.name
        self._file.close()
        os.unlink(path)


class Mapped:
    """The buffers that are mapped into this process: address -> blob."""

    def __init__(self) -> None:
        self._blobs: dict[int, Blob] = {}

    def add(self, buffer: Any, blob: Blob) -> None:
        self._blobs[address_of(buffer)] = blob

    def at(self, start: int, length: int) -> Blob | None:
        """Return the blob that was mapped exactly there."""
        blob = self._blobs.get(start)
        return blob if blob is not None and blob[2] == length else None


class PackReader:
    """The blobs of a session, read or mapped.

    Args:
        path_of: returns the local file of a pack.
        is_checked: whether the digests of all buffers are checked.
        mapped: takes a note of each buffer that is mapped.
    """

    def __init__(self, path_of: Callable[[str], str], is_checked: bool, mapped: Mapped) -> None:
        self._path_of = path_of
        self._left_to_check = float("inf") if is_checked else CHECKED_BYTES
        self._mapped = mapped
        self._files: dict[str, tuple[int, int]] = {}
        self._maps: dict[str, memoryview] = {}
        self._given: set[tuple[str, int]] = set()

    def read(self, blob: Blob) -> bytes:
        """Return the bytes of a blob.

        Raises:
            Broken: they are not those that were saved.
        """
        data = _read_at(self._file(blob), blob[1], blob[2])
        self._check(data, blob)
        return data

    def copy_to(self, blob: Blob, file: Any) -> None:
        """Write the bytes of a blob to a file; raises Broken as `read` does, at the end."""
        source, (_, at, length, digest) = self._file(blob), blob
        found = hashlib.sha256()
        while length > 0 and (piece := os.pread(source, min(length, 1 << 20), at)):
            found.update(piece)
            file.write(piece)
            at, length = at + len(piece), length - len(piece)
        if found.hexdigest() != digest:
            raise Broken(f"the pack {blob[0]} is not as it was saved")

    def map(self, blob: Blob) -> Any:
        """Return a writable buffer with the bytes of a blob, private to this process.

        Raises:
            Broken: as far as the digests are checked.
        """
        parts = parts_of(blob)
        for part in parts:
            self._file(part)
        buffer = self._of_one(blob) if _is_in_one_piece(parts) else self._of_many(blob, parts)
        if self._left_to_check >= blob[2]:
            self._left_to_check -= blob[2]
            view, at = memoryview(buffer).cast("B"), 0
            for part in parts:
                self._check(view[at : at + part[2]], part)
                at += part[2]
        self._mapped.add(buffer, blob)
        return buffer

    def close(self) -> None:
        """Close the files; the mappings stay as long as they are used."""
        for descriptor, _ in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _of_one(self, blob: Blob) -> Any:
        pack, offset, length, _ = blob
        if (pack, offset) in self._given:  # in two variables: they must not share it
            return bytearray(_read_at(self._files[pack][0], offset, length))
        self._given.add((pack, offset))
        if pack not in self._maps:
            # One mapping, since each keeps a descriptor.
            descriptor = self._files[pack][0]
            self._maps[pack] = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
        return self._maps[pack][offset : offset + length]

    def _of_many(self, blob: Blob, parts: list[Blob]) -> Any:
        options = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
        buffer = mmap.mmap(-1, blob[2], **options)
        at = 0
        for part in parts:
            descriptor = self._files[part[0]][0]
            if not _map_at(address_of(buffer) + at, part[2], descriptor, part[1]):
                buffer[at : at + part[2]] = _read_at(descriptor, part[1], part[2])
            at += part[2]
        return buffer

    def _file(self, blob: Blob) -> int:
        """Return the descriptor of a blob's pack; raises Broken if the pack is too short."""
        pack, offset, length, _ = blob
        if pack not in self._files:
            try:
                descriptor = os.open(self._path_of(pack), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except FileNotFoundError:
                raise Broken(f"the pack {pack} is missing") from None
            self._files[pack] = (descriptor, os.fstat(descriptor).st_size)
        descriptor, size = self._files[pack]
        if not 0 <= offset <= offset + length <= size:
            raise Broken(f"the end of the pack {pack} is missing")
        return descriptor

    @staticmethod
    def _check(data: Any, blob: Blob) -> None:
        if hashlib.sha256(data).hexdigest() != blob[3]:
            raise Broken(f"the pack {blob[0]} is not as it was saved")


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Return bytes of a file; a single call returns at most 2 GiB."""
    pieces = []
    while length > 0 and (piece := os.pread(descriptor, length, offset)):
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _is_in_one_piece(parts: list[Blob]) -> bool:
    return all(
        (a[0], a[1] + a[2]) == (b[0], b[1]) for a, b in zip(parts, parts[1:])
    )  # fmt: skip


# --- addresses -------------------------------------------------------------------------------


def address_of(buffer: Any) -> int:
    """Return the address of the first byte of a buffer, which may be read-only."""
    import ctypes

    class PyBuffer(ctypes.Structure):
        _fields_ = [
            ("buf", ctypes.c_void_p),
            ("rest", ctypes.c_char * 128),  # longer than all that follows
        ]

    found = PyBuffer()
    api = ctypes.pythonapi
    if api.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(found), 0) != 0:
        raise BufferError("the object has no buffer")
    address = found.buf or 0
    api.PyBuffer_Release(ctypes.byref(found))
    return address


def memory_at(address: int, length: int) -> memoryview:
    """Return the memory at an address, writable; the caller keeps its owner alive."""
    import ctypes

    return memoryview((ctypes.c_char * length).from_address(address)).cast("B")


def _map_at(address: int, length: int, descriptor: int, offset: int) -> bool:
    """Map a part of a file over memory that this process has reserved; return whether it worked."""
    if os.name != "posix" or not hasattr(mmap, "MAP_PRIVATE"):
        return False
    import ctypes

    fixed = 0x10
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    found = call(address, length, protection, mmap.MAP_PRIVATE | fixed, descriptor, offset)
    return bool(found == address)


def is_untouched(address: int, length: int) -> bool:
    """Return whether no page of private mapped memory was written to since it was mapped."""
    global _is_pagemap_sound
    if _is_pagemap_sound is None:
        _is_pagemap_sound = False
        with mmap.mmap(-1, _PAGE, **_PRIVATE) as probe:
            probe[0] = 1
            _is_pagemap_sound = not _are_clean(address_of(probe), _PAGE)
    return _is_pagemap_sound and _are_clean(address, length)


_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
_is_pagemap_sound: bool | None = None


def _are_clean(address: int, length: int) -> bool:
    first, end = address // _PAGE, -(-(address + length) // _PAGE)
    size = (end - first) * 8
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            pagemap.seek(first * 8)
            entries = pagemap.read(size)
    except OSError:
        return False
    return len(entries) == size and not entries[7::8].translate(None, delete=_UNTOUCHED)
