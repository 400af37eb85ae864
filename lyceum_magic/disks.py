"""Reasons why a disk cannot be written to: an error and a path in, a phrase for people out."""

from __future__ import annotations

import errno
import os

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def reason(error: OSError, path: str | os.PathLike[str]) -> str:
    """Say why something could not be written at a path, and what to do, if that is known."""
    return shortage(path, is_full=error.errno in _FULL) or error.strerror or type(error).__name__


def shortage(path: str | os.PathLike[str], *, is_full: bool = False) -> str:
    """Say what the disk of a path lacks, and what to do; nothing if it lacks nothing.

    Args:
        path: need not exist; then its nearest folder that does counts.
        is_full: the disk has refused something because it was full.
    """
    place = os.path.abspath(path)
    while not os.path.isdir(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    try:
        disk = os.statvfs(place)
    except OSError:
        return ""
    # A file system that makes inodes as they are needed reports a total of 0.
    if disk.f_files and not disk.f_favail:
        return (
            f"the disk of {place} has no free inodes, whatever room it has left: remove some of "
            "the many small files on it"
        )
    if is_full or not disk.f_bavail:
        return f"the disk of {place} is full: make room on it"
    return ""
