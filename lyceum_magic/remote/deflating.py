"""Bytes -> zlib's format; blocks that do not compress are stored as they are."""

from __future__ import annotations

from zlib import DEFLATED, MAX_WBITS, Z_FULL_FLUSH, adler32, compress, compressobj

#: Bytes of a block that is judged at a time, and of each of the three samples in it.
BLOCK_BYTES = 256 * 1024
_SAMPLE_BYTES = 4096
#: A sample that compresses to more than this share is not worth the time.
_WORTH_IT = 0.9
#: Maximum bytes that a block of the format can store.
_STORED_BYTES = 0xFFFF


def deflate(data: bytes, level: int = -1) -> bytes:
    """Return the data in a form that `zlib.decompress` reads.

    Pictures, models and random numbers do not compress, which zlib needs 30 ms a megabyte to find
    out. Samples of each block show it in 0.3 ms, and such a block is stored as it is.
    """
    if len(data) <= BLOCK_BYTES:
        return compress(data, level)
    view = memoryview(data)
    # zlib's header, which says no more than that it is one.
    pieces: list[bytes | memoryview] = [b"\x78\x9c"]
    for begin in range(0, len(data), BLOCK_BYTES):
        block = view[begin : begin + BLOCK_BYTES]
        room = len(block) - _SAMPLE_BYTES
        sample = b"".join(block[at : at + _SAMPLE_BYTES] for at in (0, room // 2, room) if at >= 0)
        if len(compress(sample, 1)) < _WORTH_IT * len(sample):
            packer = compressobj(level, DEFLATED, -MAX_WBITS)
            # A full flush ends at a whole byte and refers to nothing before it: so the pieces of
            # several compressors are one stream.
            pieces += [packer.compress(block), packer.flush(Z_FULL_FLUSH)]
        else:
            for at in range(0, len(block), _STORED_BYTES):
                part = block[at : at + _STORED_BYTES]
                sizes = len(part).to_bytes(2, "little") + (len(part) ^ 0xFFFF).to_bytes(2, "little")
                pieces += [b"\x00" + sizes, part]  # RFC 1951, 3.2.4; begins at a whole byte
    pieces += [b"\x03\x00", adler32(data).to_bytes(4, "big")]  # an empty last block
    return b"".join(pieces)
