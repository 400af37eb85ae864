"""Bytes -> zlib's format, in which what does not compress is stored."""

from __future__ import annotations

from zlib import DEFLATED, MAX_WBITS, Z_FULL_FLUSH, adler32, compress, compressobj

#: How much of the data is judged at a time, and by how many of its bytes, at three places.
BLOCK_BYTES = 256 * 1024
_SAMPLE_BYTES = 4096
#: What compresses to more than this is not worth the time that it takes.
_WORTH_IT = 0.9


def deflate(data: bytes, level: int = -1) -> bytes:
    """Return what `zlib.decompress` makes the data of again.

    Pictures, models and random numbers do not compress: zlib takes 30 ms a megabyte to find that
    out. Samples of each block say it in 0.3 ms, and such a block travels as it is.
    """
    if len(data) <= BLOCK_BYTES:
        return compress(data, level)
    pieces = [b"\x78\x9c"]  # of zlib's header, which says no more than that it is one
    for begin in range(0, len(data), BLOCK_BYTES):
        block = data[begin : begin + BLOCK_BYTES]
        room = len(block) - _SAMPLE_BYTES
        sample = b"".join(block[at : at + _SAMPLE_BYTES] for at in (0, room // 2, room) if at >= 0)
        is_worth_it = len(compress(sample, 1)) < _WORTH_IT * len(sample)
        packer = compressobj(level if is_worth_it else 0, DEFLATED, -MAX_WBITS)
        # A full flush ends at a whole byte and refers to nothing before it: so the pieces of
        # several compressors are one stream.
        pieces += [packer.compress(block), packer.flush(Z_FULL_FLUSH)]
    pieces += [b"\x03\x00", adler32(data).to_bytes(4, "big")]  # an empty last block
    return b"".join(pieces)
