"""The command `docker compose`: a file's content in, a model or a started stack out.

All of a stack goes to the command on its stdin, so that nothing of it lies on disk or shows in the
list of processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base import EngineUnavailable
from ..engine.engine import engine_environment
from .file import refuse
from .model import Model

#: The beginning of every name of a run's stack in the engine.
PROJECT_PREFIX = "lyceum-"

#: Set for each command that works on a run, so that it can be found if its starter dies.
PROJECT_VARIABLE = "COMPOSE_PROJECT_NAME"

#: How long a command may take that only answers.
PATIENCE_S = 60

#: A warning in Compose's log: the text in quotes, with what is special in it escaped.
_WARNING = re.compile(rb'level=warning msg="((?:[^"\\]|\\.)*)"')

_WAITED = "what waits for it was not started"
_HOW_TO_GET_ONE = (
    "install Docker with its Compose plugin (https://docs.docker.com/compose/install), "
    "or run this in the cloud"
)


def project_name(run_id: str) -> str:
    return PROJECT_PREFIX + run_id


def check_compose() -> None:
    """Check that there is a `docker compose`. Blocks.

    Raises:
        EngineUnavailable: there is none, and the message says how to get one; or it is silent.
    """
    done = _answer([_docker(), "--config", _config_folder(), "compose", "version", "--short"])
    if done.returncode or not re.match(rb"v?([2-9]|\d\d)", done.stdout):
        raise EngineUnavailable(
            f"Stacks need `docker compose` 2 or later, and it is not here; {_HOW_TO_GET_ONE}."
        )


def model_of(content: Model, folder: Path, project: str) -> tuple[Model, list[str]]:
    """Return the model that Compose makes of a file, and Compose's remarks about the file as
    sentences. The file is checked against Compose's schema, and every short form is written out.

    It runs without a variable of ours but the project's name: `${HOME}` is empty, whatever it is
    here. Blocks.

    Args:
        content: what `read_compose_file` returned.
        folder: what relative paths are resolved against; nothing is read from it.

    Raises:
        InvalidField: it is not a valid Compose file; one sentence says why.
        EngineUnavailable: there is no `docker` command, or it is silent.
    """
    done = _answer(
        [*_command(folder), "config", "--format", "json"],
        json.dumps(content).encode(),
        # Not on the command line, which everybody can read.
        environment={PROJECT_VARIABLE: project},
    )
    if done.returncode:
        complaint = _complaint(done.stderr)
        refuse(f"is not valid: {complaint}", *_place_of(complaint))
    model: dict[str, Any] = json.loads(done.stdout)
    return model, [*map(_remark, _WARNING.findall(done.stderr))]


def _place_of(complaint: str) -> list[str]:
    """Return the keys that lead to the value of a complaint, as far as Compose names them."""
    if found := re.search(r'service "([^"]+)" depends on', complaint):
        return ["services", found[1], "depends_on"]
    found = re.search(r"\b(?:services|networks|volumes|configs|secrets)[.\[][\w.\[\]-]+", complaint)
    if not found:
        return []
    rest = re.findall(r"['\"]([^'\"]+)['\"]", complaint[found.end() :])
    return [*filter(None, re.split(r"[.\[\]]+", found[0])), *rest]


def _remark(warning: bytes) -> str:
    text = json.loads(b'"%s"' % warning)
    if found := re.match(r'The "(.+?)" variable is not set', text):
        return f"${{{found[1]}}} is empty: no variable of the server's gets into a Compose file"
    return str(text)


def start_stack(project: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a `docker compose up` that takes a complete model on its stdin.

    It ends when all services of the model have been started, or cannot be. Only errors are on its
    stderr; it leads a process group.
    """
    return subprocess.Popen(
        [*_command(folder), "--progress", "quiet", "up", "--detach", "--no-build"],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
        env={**engine_environment(), "HOME": os.path.expanduser("~"), PROJECT_VARIABLE: project},
    )


def failure_of(stderr: bytes, project: str) -> str:
    """Return why a stack could not be started, as a sentence without a full stop."""
    text = _complaint(stderr)
    name = rf"{re.escape(project)}-(.+?)-\d+"
    if found := re.search(rf"container {name} is unhealthy", text):
        return f"service `{found[1]}` never became healthy, and {_WAITED}"
    if found := re.search(rf"container {name} exited \((\d+)\)", text):
        return (
            f"service `{found[1]}` ended with code {found[2]} before it was healthy, and {_WAITED}"
        )
    if found := re.search(r'service "(.+?)" didn\'t complete successfully: exit (\d+)', text):
        return f"service `{found[1]}` ended with code {found[2]}, and {_WAITED}"
    return "the stack could not be started: " + re.sub(name, r"`\1`", text)


def _answer(
    command: list[str], stdin: bytes = b"", *, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Return what a command prints, run with these variables alone, however it ends."""
    with subprocess.Popen(
        command,
        cwd="/",  # ours may be gone
        env=dict(environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    ) as process:
        try:
            stdout, stderr = process.communicate(stdin, PATIENCE_S)
        except subprocess.TimeoutExpired:
            # The command has started another one, the plugin: they are a group.
            os.killpg(process.pid, signal.SIGKILL)
            raise EngineUnavailable(
                f"`docker compose` did not answer within {PATIENCE_S} s; see what keeps it with "
                "`docker compose version` on the server's machine."
            ) from None
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _command(folder: Path) -> list[str]:
    return [
        _docker(), "--config", _config_folder(), "compose", "--ansi", "never",
        "--project-directory", os.fspath(folder), "--env-file", os.devnull, "--file", "-",
    ]  # fmt: skip


def _docker() -> str:
    found = shutil.which("docker")
    if found is None:
        raise EngineUnavailable(
            f"Stacks need the command `docker`, and it is not here; {_HOW_TO_GET_ONE}."
        )
    return found


def _config_folder() -> str:
    """Return the folder with the user's plugins and registry logins."""
    return os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")


def _complaint(stderr: bytes) -> str:
    """Return the last line that it printed, without warnings and what means nothing to users."""
    lines = [
        line.strip()
        for line in stderr.decode(errors="replace").splitlines()
        if line.strip() and not line.startswith("time=")
    ]
    text = " ".join(lines[-1:]) or "it gives no reason"
    text = re.sub(r"^validating \S+: ", "", text)
    text = re.sub(r"^Error response from daemon: ", "", text)
    return text.removesuffix(": invalid compose project").rstrip(".")
