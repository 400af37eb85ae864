"""Runs Docker images: a `RunSpec` in, a `RunHandle` out.

The server pulls the image; from then on the run
belongs to its attendant (see `attendant` and `container_work`), and the handle only listens to it.
"""

from __future__ import annotations

from pathlib import Path

from ...protocol.requests import Start
from .base import EngineUnavailable, ProgressListener, RunSpec
from .handle import SupervisedRun


class ContainerRunner:
    """Runs each image in a container of the engine that DOCKER_HOST names.

    Args:
        state_dir: marks the containers of this server among others.
        bucket: the folder that is mounted as the account's storage.
    """

    def __init__(self, state_dir: Path, *, bucket: Path) -> None:
        self._state_dir = state_dir
        self._bucket = bucket

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
