"""The process that becomes the S3 endpoint: `python -m ...s3_process RCLONE BUCKET PID`.

It becomes `rclone serve s3` of the folder BUCKET, on the listening socket that is its stdin, after
steps that only a starting process can take for itself: it dies with the server (process id PID),
reaches nothing but BUCKET, and containers of any user may read and write its files. It uses the
standard library only.

rclone looks at a path and then uses it, and a container may turn a folder into a link in between.
So, if the kernel has Landlock, the kernel keeps the process inside. The same keeps S3 clients from
removing the bucket, or from making others beside it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_LISTENER = 3  # where systemd's socket activation has the first one


def main() -> None:
    rclone, bucket, server = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(server):  # the server died before the line above
            sys.exit(1)
    confine(bucket, rclone)
    # The folder above the bucket keeps other users out.
    os.umask(0)
    os.dup2(0, _LISTENER)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    os.execv(
        rclone,
        [
            rclone, "serve", "s3", os.path.dirname(bucket),
            "--config", os.devnull,
            # As good as no cache: containers and the REST routes change the folder as well. With
            # 0 s, rclone empties its cache in an endless loop, and requests wait for up to 45 s.
            "--dir-cache-time", "1ms",
            "--poll-interval", "0s",
            "--vfs-cache-mode", "off",
            "--skip-links",
        ],
    )  # fmt: skip


# --- Landlock: linux/landlock.h, and its user space API in the kernel's documentation ----------

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_EXECUTE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
_ON_FILES = _EXECUTE | 1 << 1 | _READ_FILE
#: The rights that an interface version knows. The first version cannot allow that files are moved
#: between folders, which is how an upload becomes an object.
_RIGHTS = {2: (1 << 14) - 1, 3: (1 << 15) - 1}
#: Files and folders that a program needs unless it is linked statically.
_LIBRARIES = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def confine(bucket: str, program: str) -> bool:
    """Let this process change files in `bucket`, execute `program`, and reach no other file.

    Returns:
        Whether the kernel can do that; otherwise nothing changes.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < min(_RIGHTS):
        return False
    rights = _RIGHTS[min(version, max(_RIGHTS))]
    handled = ctypes.c_uint64(rights)
    ruleset = _checked(libc.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), 0))
    read_only = _EXECUTE | _READ_FILE | _READ_FOLDER
    allowed = {
        os.path.dirname(bucket): _READ_FOLDER,  # for the list of buckets
        bucket: rights,
        program: read_only,
        os.devnull: rights,
    }
    for path, access in {**dict.fromkeys(_LIBRARIES, read_only), **allowed}.items():
        if not os.path.exists(path):
            continue
        descriptor = os.open(path, os.O_PATH)
        if not os.path.isdir(path):
            access &= _ON_FILES
        rule = _PathBeneath(access, descriptor)
        _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
        os.close(descriptor)
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    return True


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


if __name__ == "__main__":
    main()
