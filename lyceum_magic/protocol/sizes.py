"""Bytes -> words, the same wherever a size is said: a pure function."""

from __future__ import annotations


def in_words(size: int, *, is_binary: bool = False) -> str:
    """`12 bytes`, `1.5 kB`, `2.0 MB`, `3.1 GB`.

    Args:
        size: in bytes.
        is_binary: in KiB, MiB and GiB, to stand beside a limit that is said in them.
    """
    step, prefix, letter = (1024, "i", "K") if is_binary else (1000, "", "k")
    if size < step:
        return f"{size:,} bytes"
    amount = float(size)
    for name in (letter, "M", "G"):
        amount /= step
        if round(amount, 1) < step:
            break
    return f"{amount:,.1f} {name}{prefix}B"
