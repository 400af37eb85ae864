"""Numbers of bytes -> words for messages: a pure function."""

from __future__ import annotations


def in_words(size: int, *, is_binary: bool = False) -> str:
    """Return a size as `12 bytes`, `1.5 kB`, `2.0 MB` or `3.1 GB`.

    Args:
        size: in bytes.
        is_binary: use KiB, MiB and GiB, beside a limit that is given in them.
    """
    step, names = (1024, ("KiB", "MiB", "GiB")) if is_binary else (1000, ("kB", "MB", "GB"))
    if size < step:
        return "1 byte" if size == 1 else f"{size:,} bytes"
    power = 1
    while power < len(names) and round(size / step**power, 1) >= step:
        power += 1
    return f"{size / step**power:,.1f} {names[power - 1]}"
