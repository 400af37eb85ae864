"""The Jupyter servers of this user that receive callbacks: one file each, read by their kernels."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil

from ..own_files import check_owner, own_folder, put_own

#: Maximum seconds between two readings of one process's start time: they depend on the clock, which
#: may be set meanwhile.
_CLOCK_S = 2.0


def announce(folder: Path, url: str | None) -> Path:
    """Write and return the file that says that this process receives callbacks.

    Args:
        url: the part of an address before its secret, for senders on this machine; None if they
            cannot reach this server.
    """
    place = folder / "servers"
    own_folder(place)
    for left in place.glob(_file(folder, "*").name):
        if _facts_in(left) is None:
            left.unlink(missing_ok=True)
    path = _file(folder, os.getpid())
    facts = {"url": url, "pid": os.getpid(), "started_at": psutil.Process().create_time()}
    put_own(path, json.dumps(facts))
    return path


def url_of_mine(folder: Path, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL of the Jupyter server that started this kernel; None if it has no receiver."""
    pid = environ.get("JPY_PARENT_PID", "")
    facts = _facts_in(_file(folder, int(pid))) if pid.isdecimal() else None
    return facts["url"] if facts else None


def is_any_receiving(folder: Path) -> bool:
    """Return whether any Jupyter server of this user receives callbacks, for all its kernels."""
    found = (folder / "servers").glob(_file(folder, "*").name)
    return any(_facts_in(path) is not None for path in found)


def _facts_in(path: Path) -> dict[str, Any] | None:
    """Return the content of a server's file; None if the server has ended or the file is bad."""
    try:
        # Another user who could write there could learn the addresses of this user's runs.
        check_owner(path.parent.lstat(), path.parent)
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            check_owner(status, path)
            if stat.S_IMODE(status.st_mode) & 0o022:
                return None
            facts = json.load(file)
        if abs(psutil.Process(facts["pid"]).create_time() - facts["started_at"]) < _CLOCK_S:
            return {"url": facts["url"] and str(facts["url"])}
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        pass
    return None


def _file(folder: Path, pid: int | Literal["*"]) -> Path:
    # The host's name: containers may share a home, and number their processes alike.
    return folder / "servers" / f"{socket.gethostname()}-{pid}.json"
