"""Runs Compose stacks: a `RunSpec` in, a `RunHandle` out.

The server checks the file and pulls the images; from then on the run
belongs to its attendant (see `attendant` and `compose_work`), and the handle only listens to it.
"""

from __future__ import annotations

from pathlib import Path

from ...protocol.requests import Start
from .base import EngineUnavailable, ProgressListener, RunSpec
from .handle import SupervisedRun


class ComposeRunner:
    """Runs each stack in the engine that DOCKER_HOST names.

    Args:
        state_dir: marks the containers of this server among others.
        bucket: the folder that is mounted as the account's storage.
        allow_privileged: whether services may be privileged.
    """

    def __init__(self, state_dir: Path, *, bucket: Path, allow_privileged: bool) -> None:
        self._state_dir = state_dir
        self._bucket = bucket
        self._allow_privileged = allow_privileged

    async def open(self) -> None:
        pass

    async def check(self, request: Start) -> None:
        raise EngineUnavailable("There is no container engine.")

    async def start(self, spec: RunSpec, on_progress: ProgressListener) -> SupervisedRun:
        raise NotImplementedError

    async def find(self, spec: RunSpec) -> SupervisedRun | None:
        raise NotImplementedError

    async def close(self) -> None:
        pass
