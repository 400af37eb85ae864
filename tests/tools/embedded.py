"""Embedded servers that tests start: their facts, and their end.

A `place` is a server's state folder, or what `LYCEUM_MAGIC_HOME` names, which holds one for each
environment.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil

from lyceum_magic.server.run_folders import RunFolders

_END_S = 30


def server_facts(place: Path) -> dict[str, Any]:
    """The content of `server.json`."""
    (facts,) = (json.loads(path.read_text()) for path in _server_files(place))
    return dict(facts)


def run_folder(place: Path, run_id: str) -> Path:
    """The folder in which the server of a place keeps a run."""
    (file,) = _server_files(place)
    return RunFolders(file.parent / "runs").of(run_id)


def server_process(place: Path) -> psutil.Process | None:
    """Return the server process of a place, if it is alive."""
    return next(iter(_server_processes(place)), None)


def end_server(place: Path) -> None:
    """End the server of a place, of each environment, and every run that it still has."""
    processes = _server_processes(place)
    family = [child for process in processes for child in process.children(recursive=True)]
    for process in processes:
        process.resume()
        process.terminate()
    _wait_or_kill(processes)
    # Supervisors outlive their server on purpose; they have the folder in no command line.
    for child in family:
        if child.is_running():
            child.kill()
    _wait_or_kill(family)


def kill_server(place: Path) -> int:
    """Kill the server with SIGKILL; return its pid once it is gone."""
    process = server_process(place)
    assert process is not None, "no server to kill"
    os.kill(process.pid, signal.SIGKILL)
    _wait_or_kill([process])
    return int(process.pid)


def _server_files(place: Path) -> list[Path]:
    folders = [place, *place.glob("servers/*")]
    return [path for folder in folders if (path := folder / "server.json").exists()]


def _server_processes(place: Path) -> list[psutil.Process]:
    found = []
    for path in _server_files(place):
        try:
            process = psutil.Process(int(json.loads(path.read_text())["pid"]))
            # The number may be another process's by now.
            is_its = str(path.parent) in process.cmdline()
        except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
            continue
        if is_its and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def _wait_or_kill(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=_END_S)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_END_S)
