"""Data is compressed if that helps, and plain zlib can always read it."""

from __future__ import annotations

import random
import re
import zlib
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.remote import deflating
from lyceum_magic.remote.deflating import BLOCK_BYTES, deflate
from lyceum_magic.remote.values import restore_inputs
from lyceum_magic.submission.inputs import choose_inputs
from lyceum_magic.submission.python_request import python_request
from lyceum_magic.submission.start import Choices

NOISE = random.Random(1).randbytes(3 * BLOCK_BYTES)
TEXT = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(50_000))


def stored(packed: bytes) -> float:
    """Return how much of the noise is stored as it is."""
    samples = [NOISE[at : at + 500] for at in range(0, len(NOISE) - 500, 5000)]
    return sum(sample in packed for sample in samples) / len(samples)


@given(st.binary(max_size=2000), st.sampled_from([1, 2, 63, 64, 500]), st.sampled_from([-1, 1, 9]))
def test_zlib_reads_it_wherever_a_block_ends(data: bytes, block: int, level: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deflating, "BLOCK_BYTES", block)
        packed = deflate(data, level)
    assert zlib.decompress(packed) == data
    reader = zlib.decompressobj()  # as it comes in pieces
    pieces = (packed[at : at + 7] for at in range(0, len(packed), 7))
    assert b"".join(reader.decompress(piece) for piece in pieces) == data
    assert reader.eof
    assert reader.unused_data == b""


@pytest.mark.parametrize(
    "data", [b"", NOISE[:BLOCK_BYTES], NOISE[: BLOCK_BYTES + 1], NOISE, TEXT, TEXT + NOISE + TEXT]
)
def test_it_comes_back_whole(data: bytes) -> None:
    assert zlib.decompress(deflate(data)) == data


def test_what_does_not_compress_is_not_compressed() -> None:
    packed = deflate(NOISE)
    assert stored(packed) > 0.9
    assert len(packed) < len(NOISE) * 1.001


def test_an_input_that_does_not_compress_travels_as_it_is() -> None:
    given = {"noise": NOISE, "text": TEXT}
    inputs = choose_inputs(given, "1", given)
    request = python_request("1", Choices("cpu"), inputs=inputs)
    found = re.search(r"'inputs': '([^']+)'", request.code)
    assert found
    assert restore_inputs(found[1]) == given
    packed = b64decode(found[1])
    assert stored(packed) > 0.9
    assert len(packed) < len(NOISE) + len(zlib.compress(TEXT)) + BLOCK_BYTES


def test_what_does_is_compressed_beside_what_does_not() -> None:
    assert len(deflate(TEXT)) < len(zlib.compress(TEXT)) * 1.05
    mixed = deflate(TEXT + NOISE + TEXT)
    assert len(mixed) < len(NOISE) + 2 * len(zlib.compress(TEXT)) + BLOCK_BYTES
    # A head that compresses, as a pickle's or an image's, does not decide for the rest.
    assert stored(deflate(b"\0" * 4096 + NOISE)) > 0.6
