"""Embedded servers that tests start: their facts, and their end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil

from lyceum_magic.server.run_folders import RunFolders

_END_S = 30


def server_facts(folder: Path) -> dict[str, Any]:
    """What `server.json` says."""
    return dict(json.loads((folder / "server.json").read_text()))


def run_folder(folder: Path, run_id: str) -> Path:
    """Where the server of a state folder keeps a run."""
    return RunFolders(folder / "runs").of(run_id)


def server_process(folder: Path) -> psutil.Process | None:
    """The server of a state folder, if it lives."""
    try:
        process = psutil.Process(int(server_facts(folder)["pid"]))
        # The number may be another process's by now.
        is_ours = str(folder) in process.cmdline()
    except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        return None
    return process if is_ours and process.status() != psutil.STATUS_ZOMBIE else None


def end_server(folder: Path) -> None:
    """Ends the server of a state folder, and every run that it has still got."""
    process = server_process(folder)
    if process is None:
        return
    family = process.children(recursive=True)
    process.resume()
    process.terminate()
    _wait_or_kill([process])
    # Supervisors outlive their server on purpose; they have the folder in no command line.
    for child in family:
        if child.is_running():
            child.kill()
    _wait_or_kill(family)


def kill_server(folder: Path) -> int:
    """SIGKILL; returns when it is gone, with its pid."""
    process = server_process(folder)
    assert process is not None, "no server to kill"
    os.kill(process.pid, signal.SIGKILL)
    _wait_or_kill([process])
    return int(process.pid)


def _wait_or_kill(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=_END_S)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_END_S)
