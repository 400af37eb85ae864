"""Why a disk takes nothing: an error and a path in, a phrase for people out."""

from __future__ import annotations

import errno
import os

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def reason(error: OSError, path: str | os.PathLike[str]) -> str:
    """Why something could not be written at a path, and what to do if that is known."""
    return shortage(path, is_full=error.errno in _FULL) or error.strerror or type(error).__name__


def shortage(path: str | os.PathLike[str], *, is_full: bool = False) -> str:
    """What the disk of a path lacks, and what to do; empty where it lacks nothing.

    Args:
        path: one that is not there stands for the folder that it would be in.
        is_full: the disk has refused something for want of room.
    """
    place = os.path.abspath(path)
    while not os.path.isdir(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    try:
        disk = os.statvfs(place)
    except OSError:
        return ""
    # A file system that makes inodes as they are needed says that it has none at all.
    if disk.f_files and not disk.f_favail:
        return (
            f"the disk of {place} has no free inodes, whatever room it has left: remove some of "
            "the many small files on it"
        )
    if is_full or not disk.f_bavail:
        return f"the disk of {place} is full: make room on it"
    return ""
