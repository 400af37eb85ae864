"""The number of files and sockets that the server and its runs may have open.

Many systems allow a process 1,024 at first, and the process may raise this limit itself. The server
does; its runs begin with the server's first limit, since programs that use `select` fail with more.
"""

from __future__ import annotations

import contextlib
import functools
import resource

_MOST = 65_536


@functools.cache
def inherited_limit() -> int:
    """Return the soft limit at the process's start. Call it before the limit is raised."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_limit() -> None:
    """Let this process open as many descriptors as the system allows, up to 65,536."""
    soft, (_, hard) = inherited_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        set_limit(most)


def set_limit(soft: int) -> None:
    """Set the soft limit of this process; if the system refuses, it stays as it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has another limit, below the hard one
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
