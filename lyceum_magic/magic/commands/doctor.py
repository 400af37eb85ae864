"""`%lyceum doctor`: look for what could be wrong here; each row has what, found and advice."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from ... import __version__, config
from ...client import debug_log
from ...display.tables import Says, Table
from ...embedded import local_server
from ...exceptions import LyceumError
from ...folders import journal_folder, server_folder
from ...protocol.machines import needs_gpu
from ...runs.workspace import workspace
from ..parsing import Parser
from . import Call
from .callbacks import until

#: A subject, the finding, and the advice, which is empty if all is well.
Row = tuple[str, str, str]


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--log", metavar="ID", nargs="?", const="", help="the debug trail, of one run or of all"
    )


def run(call: Call) -> Table | Says:
    if call.options.log is not None:
        return Says(trail_of(call.options.log))
    return examine()


def examine() -> Table:
    """Look at versions, credentials, the server and the folders. Nothing is started."""
    rows = [
        ("lyceum-magic", __version__, ""),
        ("Python", f"{platform.python_version()} in {sys.prefix}", ""),
        *_packages(),
        _credentials(),
        _server(),
        *_earlier_state(),
        _callbacks(),
        _callbacks_to_here(),
        *_engine(),
        _journal(),
    ]
    proxies = [name for name in os.environ if name.lower().endswith("_proxy") and os.environ[name]]
    if proxies:
        rows.append(("proxy variables", ", ".join(sorted(proxies)), "not used for loopback"))
    return Table(["what", "found", "advice"], rows)


def _packages() -> list[Row]:
    rows = []
    for name in ("ipython", "ipykernel", "ipywidgets", "anywidget", "httpx", "uv"):
        try:
            rows.append((name, importlib.metadata.version(name), ""))
        except importlib.metadata.PackageNotFoundError:
            needed = name in ("ipython", "httpx", "uv")
            rows.append((name, "absent", f"pip install {name}" if needed else "text only"))
    return rows


def _credentials() -> Row:
    try:
        account = config.find_account()
    except LyceumError as exc:
        return ("credentials", "cannot be used", str(exc))
    if account is None:
        return ("credentials", "none", "cells run on the embedded server (LOCAL)")
    try:
        workspace().accounts.check(account)
    except LyceumError as exc:
        return ("credentials", f"from {account.source}", str(exc))
    return ("credentials", f"from {account.source}", f"cells run on {account.base_url}")


def _server() -> Row:
    try:
        folder = local_server.current_folder()
        client = workspace().accounts.embedded_if_running()
        if client is None and (problem := local_server.unreachable(folder)):
            return ("embedded server", "cannot be reached", problem)
    except LyceumError as exc:
        return ("embedded server", "cannot be used", str(exc))
    if client is None:
        return ("embedded server", "not running", f"starts with the first cell, in {folder}")
    where = f"at {client.account.base_url}"
    try:
        usable = workspace().ask(client.available_hardware)
        active = workspace().ask(client.active)
    except LyceumError as exc:
        return ("embedded server", where, str(exc))
    gpu = "GPU names run on the CPU" if any(map(needs_gpu, usable)) else ""
    return ("embedded server", f"{where}, {len(active)} active runs", gpu)


def _earlier_state() -> list[Row]:
    try:
        waits = local_server.earlier_state()
    except LyceumError as exc:
        waits = str(exc)
    return [("earlier state", "not taken over", waits)] if waits else []


def _callbacks() -> Row:
    """Report the callbacks that the embedded server has to send."""
    try:
        client = workspace().accounts.embedded_if_running()
        if client is None:
            return callbacks_left(local_server.current_folder())
        health = workspace().ask(client.callbacks.health)
    except LyceumError as exc:
        return ("callbacks", "cannot be asked for", str(exc))
    found = ["in trouble"] if health["errors"] else []
    if health["pending"]:
        found.append(f"{_count(health['pending'])}, {health['failing']} of them after a failed try")
    if health["next_attempt_at"]:
        found.append(f"next try {until(health['next_attempt_at'], time.time())}")
    return _callbacks_row(found, health["dead"], advice=" ".join(health["errors"]))


def _callbacks_to_here() -> Row:
    try:
        return ("callbacks to `here`", f"received {workspace().inbox.receiver()}", "")
    except LyceumError as exc:
        return ("callbacks to `here`", "cannot be received", str(exc))


def callbacks_left(folder: Path) -> Row:
    """Report the callbacks that a server which has ended left to be sent."""
    left = local_server.callbacks_left(folder)
    if left is None:
        return (
            "callbacks", "not known: the last server was killed, or its disk was full",
            "its next start sends what waits: run a cell on it, then look again",
        )  # fmt: skip
    waiting = f"{_count(left['pending'])} for the next start of the server"
    return _callbacks_row([waiting] if left["pending"] else [], left["dead"])


def _callbacks_row(found: list[str], dead: int, *, advice: str = "") -> Row:
    if dead:
        found = [*found, f"{dead} given up"]
    if not found:
        return ("callbacks", "none waits", "")
    return ("callbacks", "; ".join(found), advice or "`%lyceum callbacks` shows them")


def _count(waiting: int) -> str:
    return "1 callback waits" if waiting == 1 else f"{waiting} callbacks wait"


def _engine() -> list[Row]:
    """Report the container engine that images and stacks need on the embedded server."""
    if importlib.util.find_spec("docker") is None:
        return [("container engine", "not used", "pip install 'lyceum-magic[containers]'")]
    return [
        ("container engine", *_answer(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            "for images and stacks here: start Docker, or name Podman's socket as DOCKER_HOST",
        )),
        ("docker compose", *_answer(
            ["docker", "compose", "version", "--short"],
            "for stacks here: install Docker's Compose plugin",
        )),
    ]  # fmt: skip


def _answer(command: list[str], advice: str) -> tuple[str, str]:
    """Return the one line that a command prints, and what to do if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "none", advice
    return done.stdout.strip(), ""


def _journal() -> Row:
    try:
        workspace().history.entries(limit=1)
    except LyceumError as exc:
        return ("journal", "cannot be used", str(exc))
    folder = journal_folder()
    size = sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0
    return ("journal", f"{size / 1e6:.1f} MB in {folder}", "%lyceum forget makes room")


def trail_of(run_id: str) -> str:
    """Return the debug trail's last lines, of one run or, if `run_id` is empty, of all."""
    if run_id:
        run_id = workspace().history.find(run_id).run_id or "-"
    logs = [server_folder() / "server.log"]
    return debug_log.last_lines(journal_folder(), logs, run_id)
