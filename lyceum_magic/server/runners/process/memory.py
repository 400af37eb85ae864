"""The memory of a run: its own from the start, its limit, and whether lack of it ended the run.

The supervisor limits its program before it lets it go. If the system gives this user a cgroup
(version 2, with the memory controller), all processes of the run share the limit, and the kernel
says when it has killed them. Otherwise each process gets the limit for its address space, as
RLIMIT_AS. That is cruder: it counts what is reserved and never used, and holds for each process
apart. Only the standard library is used, and only if there is something to limit or to explain.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator

#: The beginning of the name of a run's cgroup.
GROUP_PREFIX = "lyceum-run-"
#: The file that the program leaves in the run's folder when a MemoryError ended it.
MEMORY_ERROR = "memory-error"

_VMSTAT = "/proc/vmstat"
_MADV_POPULATE_WRITE = 23


def own_memory() -> None:
    """Copy the memory that a fork left shared now, before there is a run.

    Otherwise the program pays for it page by page, most of them at its end, when the interpreter
    takes itself apart: this saves 11 of 15 ms. If the kernel cannot do it, nothing is lost.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            addresses, permissions, *_ = line.split(maxsplit=2)
            if permissions == "rw-p" and not line.endswith("[stack]\n"):
                start, end = (int(address, 16) for address in addresses.split("-"))
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_POPULATE_WRITE)


def limit_memory(pid: int, limit_bytes: int, name: str) -> str | None:
    """Limit the memory of a process and of all that it will start.

    Args:
        name: the name of its cgroup, after `GROUP_PREFIX`.

    Returns:
        The folder of its cgroup, to be asked and removed when the run is over; None if every
        process has a limit of its own instead. Other systems than Linux have neither, and their
        servers take no limit.
    """
    for parent in usable_groups():
        with contextlib.suppress(OSError):
            return make_group(parent, pid, limit_bytes, name)
    if sys.platform == "linux":
        resource.prlimit(pid, resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    return None


def make_group(parent: str, pid: int, limit_bytes: int, name: str) -> str:
    """Put a process into a new cgroup below `parent`; return the group's folder.

    Raises:
        OSError: it cannot be done there; nothing is left.
    """
    group = os.path.join(parent, GROUP_PREFIX + name)
    with contextlib.suppress(FileExistsError):
        os.mkdir(group)
    try:
        _write(group, "memory.max", str(limit_bytes))
        # All of the run or nothing: a program that lost a process often hangs.
        _write(group, "memory.oom.group", "1")
        with contextlib.suppress(FileNotFoundError):  # a kernel without swap
            _write(group, "memory.swap.max", "0")
        _write(group, "cgroup.procs", str(pid))
    except OSError:
        remove_group(group)
        raise
    return group


def remove_group(group: str) -> None:
    """Remove a cgroup whose processes are gone. A cgroup that does not exist is no error."""
    with contextlib.suppress(OSError):
        os.rmdir(group)


def kills_in_group(group: str) -> int:
    """Return how many processes of a cgroup the kernel has killed for lack of memory."""
    return _count(os.path.join(group, "memory.events"), "oom_kill")


def kills_on_machine() -> int:
    """Return how many of this machine's processes the kernel killed for lack of memory so far.

    It counts since the machine booted; 0 if the kernel does not say.
    """
    return _count(_VMSTAT, "oom_kill")


def out_of_memory(limit_bytes: int, what: str = "the program") -> str:
    """Return the sentence for a program that ran out of memory.

    Args:
        limit_bytes: its limit; 0 if it was the machine that had no more.
    """
    if not limit_bytes:
        return f"{what} ran out of memory"
    size = f"{limit_bytes} bytes"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if limit_bytes >= unit:
            size = f"{limit_bytes / unit:.4g} {name}"
            break
    return f"{what} ran out of memory: its limit is {size}"


def usable_groups() -> Iterator[str]:
    """Yield the cgroups below which this process may make one with a memory limit.

    The nearest comes first: its own, then those above it.
    """
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            fields = [line.split() for line in mounts]
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as groups:
            own = [line.rstrip("\n")[3:] for line in groups if line.startswith("0::")]
    except OSError:  # not Linux
        return
    # proc(5): the type of the file system is the first field after the lone dash.
    points = [mount[4] for mount in fields if mount[mount.index("-") + 1] == "cgroup2"]
    if points and own:
        yield from groups_with_memory(points[0], own[0])


def groups_with_memory(root: str, own: str) -> Iterator[str]:
    """Yield the same for the hierarchy mounted at `root` and a process in the group `own`."""
    # A group's path may lie outside of what a container sees of the hierarchy.
    path = "" if "/.." in own else own.strip("/")
    while True:
        group = os.path.join(root, path) if path else root
        with contextlib.suppress(OSError):
            with open(os.path.join(group, "cgroup.subtree_control"), encoding="ascii") as file:
                has_memory = "memory" in file.read().split()
            if has_memory and os.access(group, os.W_OK):
                yield group
        if not path:
            return
        path = os.path.dirname(path)


def _write(group: str, name: str, value: str) -> None:
    # Without O_CREAT: only the kernel makes files in a cgroup.
    descriptor = os.open(os.path.join(group, name), os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _count(path: str, name: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                key, _, value = line.partition(" ")
                if key == name:
                    return int(value)
    except OSError:
        pass
    return 0
