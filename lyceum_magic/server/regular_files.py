"""Files in a run's folder, which its program can replace: opened only if they are regular files.

A named pipe instead of a file would make the server wait for ever.
"""

from __future__ import annotations

import errno
import os
import stat

#: The largest file that the server reads as a whole.
_MAX_BYTES = 1 << 20


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a regular file.

    Raises:
        OSError: The file is missing, is something else, or cannot be opened.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return descriptor


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a small regular file.

    Raises:
        OSError: See `open_regular`; or the file has more than 1 MiB.
    """
    descriptor = open_regular(path)
    with open(descriptor, "rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
    return content
