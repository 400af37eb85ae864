"""Sizes read well, at the borders of their units too."""

from __future__ import annotations

import pytest

from lyceum_magic.protocol.sizes import in_words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_999, "1.0 MB"),
        (1_234_567, "1.2 MB"),
        (10**9, "1.0 GB"),
        (5 * 10**12, "5,000.0 GB"),
    ],
)
def test_a_size_is_said_in_units_of_a_thousand(size: int, words: str) -> None:
    assert in_words(size) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (1023, "1,023 bytes"),
        (10_240, "10.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (5 * 2**19, "2.5 MiB"),
        (2**30, "1.0 GiB"),
    ],
)
def test_beside_a_binary_limit_it_is_binary(size: int, words: str) -> None:
    assert in_words(size, is_binary=True) == words
