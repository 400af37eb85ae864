"""How many files and sockets the server may have open, and how many its runs may.

Many systems give a process 1,024 at first and a program may raise that by itself. The server does;
its runs begin with what the server was given, since some programs (those that use `select`) fail
with more.
"""

from __future__ import annotations

import contextlib
import functools
import resource

_MOST = 65_536


@functools.cache
def inherited_limit() -> int:
    """The soft limit with which this process was started; asked first before it is raised."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_limit() -> None:
    """Lets this process open as many descriptors as the system allows, up to 65,536."""
    soft, (_, hard) = inherited_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        set_limit(most)


def set_limit(soft: int) -> None:
    """Sets the soft limit of this process; where the system refuses, it stays as it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(
        OSError, ValueError
    ):  # macOS has a limit of its own below the hard one
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
