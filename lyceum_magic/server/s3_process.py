"""What stands between the server and its S3 endpoint: `python -m ...s3_process RCLONE FOLDER PID`.

Becomes `rclone serve s3` over FOLDER, on the listening socket that is its stdin, in a way that a
starting program can do for itself alone: it dies with the server (process id PID), and what it
writes may be read and written by containers of any user. It uses the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_LISTENER = 3  # where systemd's socket activation has the first one


def main() -> None:
    rclone, folder, server = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(server):  # it died before the line above took effect
            sys.exit(1)
    # Others are kept out by the folder above the bucket.
    os.umask(0)
    os.dup2(0, _LISTENER)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    os.execv(
        rclone,
        [
            rclone, "serve", "s3", folder,
            "--config", os.devnull,
            # Containers and the REST routes change the folder as well: nothing is remembered.
            "--dir-cache-time", "0s",
            "--poll-interval", "0s",
            "--vfs-cache-mode", "off",
            "--skip-links",
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
