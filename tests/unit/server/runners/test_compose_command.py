"""The command `docker compose` where it does not do what it should."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from lyceum_magic.server.runners.base import EngineUnavailable
from lyceum_magic.server.runners.compose import command as compose_command
from lyceum_magic.server.runners.compose.command import check_compose, model_of

#: A command that starts another one, as the real one starts its plugin. Neither ever answers.
SILENT = """#!/bin/sh
sh -c 'echo $$ > "{folder}/plugin"; exec sleep 1000'
"""


def test_a_silent_command_is_ended_and_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(SILENT.format(folder=tmp_path))
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(compose_command, "PATIENCE_S", 1)
    with pytest.raises(EngineUnavailable, match="did not answer within 1 s"):
        check_compose()
    with pytest.raises(EngineUnavailable, match="did not answer within 1 s"):
        model_of({"services": {}}, tmp_path, "project")
    plugin = int((tmp_path / "plugin").read_text())
    if psutil.pid_exists(plugin):  # dying, or not buried yet
        psutil.wait_procs([psutil.Process(plugin)], timeout=10)
    assert not psutil.pid_exists(plugin) or psutil.Process(plugin).status() == psutil.STATUS_ZOMBIE
