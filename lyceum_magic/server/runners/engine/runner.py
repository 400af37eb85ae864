"""The base of the runners of images and of stacks, whose runs belong to supervisors.

The server prepares a run (checks, pulls, decides); from then on the run is its supervisor's (see
`supervisor`), and the handle only listens to it. Whatever a supervisor that died leaves in
the engine is removed by the server that notices, or by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....protocol.requests import Kind, Start
from ...gpus import read_gpus
from ...run_folders import RunFolders
from ..base import EngineUnavailable, ProgressListener, RunOrder, Usage
from ..control import is_supervised
from ..folder import clear, remove_assignment, write_assignment
from ..handle import Patience, SupervisedHandle
from ..pool import InterpreterPool
from ..supervised import SupervisedRunner
from .engine import KIND_LABEL, RUN_LABEL, STATE_LABEL, Engine, connect, engine_environment
from .supervisor import EngineAssignment

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

#: The pause before the next attempt to sweep an engine that does not answer.
_SWEEP_AGAIN_S = 5.0

#: The longest that a server which ends waits for its sweep; the next one sweeps again. In seconds.
_LAST_WAIT_S = 2.0


class EngineRunner(SupervisedRunner):
    """A `Runner` of one kind of run that needs the engine.

    Args:
        state_dir: marks what belongs to this server in the engine.
        bucket: the folder that is mounted as the account's storage.
        kind: of run.
        supervisor: the module that is its supervisor's program.
    """

    def __init__(self, state_dir: Path, *, bucket: Path, kind: Kind, supervisor: str) -> None:
        # Each needs a quarter of a second to start and 40 MB, so none is started ahead of need.
        super().__init__(
            InterpreterPool(size=0, module=supervisor, environment=engine_environment())
        )
        self._folders = RunFolders(state_dir / "runs")
        self._marks = {KIND_LABEL: kind, STATE_LABEL: str(state_dir)}
        self._bucket = bucket
        self._kind = kind
        self._engine = Engine()
        # Not one of the loop's own threads: a server that ends would wait for a silent engine.
        self._sweeper = threading.Thread(target=self._sweep_for_life, name="sweep", daemon=True)
        self._sweep_is_due = threading.Event()
        self._is_closing = threading.Event()
        # This file exists as soon as something of this kind may be in the engine.
        self._mark = state_dir / f"{kind}.engine"

    #: A stack begins after the services that its first one waits for, and an engine takes its time
    #: to stop and remove containers.
    patience = Patience(start_s=3600.0, end_s=120.0)

    # What each kind does by itself.

    @abstractmethod
    async def check(self, request: Start) -> None:
        """See `Runner.check`."""

    @abstractmethod
    async def prepare(
        self, run_order: RunOrder, on_progress: ProgressListener
    ) -> Mapping[str, Any]:
        """Prepare everything for the supervisor; return what its `Work` needs, as JSON.

        Raises:
            Refusal: the run cannot be started.
            EngineUnavailable: the engine is gone.
        """

    @abstractmethod
    def usage(self, client: DockerClient, run_id: str) -> Usage | None:
        """Return what a run uses now, GPUs left out. Blocks, as the following do."""

    @abstractmethod
    def remove(self, client: DockerClient, run_id: str) -> None:
        """Take all of a run out of the engine. Nothing left to remove is no error."""

    @abstractmethod
    def found(self, client: DockerClient) -> Iterable[str]:
        """Return the ids of this state folder's runs that have something in the engine."""

    # The runner's face.

    async def open(self) -> None:
        # Without an earlier run, no engine is asked, and nothing is imported for it.
        if self._mark.exists():
            self._sweep_soon()

    async def sweep(self, unused_since: float) -> None:
        """Remove what runs have left in the engine.

        Not images: the engine is not this server's, and its owner prunes it.
        """
        if self._mark.exists():
            self._sweep_soon()

    async def close(self) -> None:
        await super().close()
        self._engine.close()
        self._is_closing.set()
        self._sweep_is_due.set()
        if self._sweeper.is_alive():
            await asyncio.to_thread(self._sweeper.join, _LAST_WAIT_S)

    # What the kinds share.

    def labels(self, run_id: str) -> dict[str, str]:
        """Return the labels of everything that a run has in the engine."""
        return {RUN_LABEL: run_id, **self._marks}

    @property
    def own(self) -> dict[str, list[str]]:
        """The engine's filters for what this runner has there."""
        return {"label": [RUN_LABEL, *(f"{name}={value}" for name, value in self._marks.items())]}

    def mounted_bucket(self) -> str:
        """Return the path of the account's storage, which any program may write to."""
        self._bucket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bucket.mkdir(exist_ok=True)
        if self._bucket.stat().st_mode & 0o777 != 0o777:
            # The program may be any user. On this machine only the folder's owner gets this far:
            # the state folder around it is 0700.
            self._bucket.chmod(0o777)
        return str(self._bucket)

    # Underneath.

    async def launch(
        self, run_order: RunOrder, handle: SupervisedHandle, on_progress: ProgressListener
    ) -> None:
        clear(run_order.folder)
        work = await self.prepare(run_order, on_progress)
        self._mark.touch(mode=0o600)
        # No await from here on: a kill() finds either nothing in the engine or the supervisor.
        assignment = EngineAssignment(
            run_id=run_order.run_id,
            kind=self._kind,
            environment=dict(run_order.environment),
            timeout_s=run_order.request.timeout,
            stop_grace_s=run_order.stop_grace_s,
            work=dict(work),
        )
        write_assignment(run_order.folder, assignment)
        try:
            self.hand_over(run_order, handle)
        except OSError:
            remove_assignment(run_order.folder)
            raise

    def measure(self, folder: Path) -> Usage | None:
        try:
            client = self._engine.client_at_once()
        except EngineUnavailable:
            return None
        from docker.errors import DockerException

        with contextlib.suppress(DockerException, OSError):
            if usage := self.usage(client, self._folders.run_id_of(folder.name)):
                return replace(usage, gpu=read_gpus())
        return None

    def clean_up(self, folder: Path) -> None:
        run_id = self._folders.run_id_of(folder.name)
        try:
            client = connect()
        except EngineUnavailable as exc:
            logger.warning("run %s may still be in the engine: %s", run_id, exc)
            return
        from docker.errors import DockerException

        try:
            with contextlib.closing(client):
                self.remove(client, run_id)
        except (DockerException, OSError):
            # The next server sweeps it up.
            logger.warning("run %s is still in the engine", run_id, exc_info=True)

    def ended(self, handle: SupervisedHandle) -> None:
        super().ended(handle)
        if handle.is_abandoned:  # with an engine that failed, maybe, and comes back
            self._sweep_soon()

    def _sweep_soon(self) -> None:
        self._sweep_is_due.set()
        if self._sweeper.ident is None:
            self._sweeper.start()

    def _sweep_for_life(self) -> None:
        while self._sweep_is_due.wait() and not self._is_closing.is_set():
            self._sweep_is_due.clear()
            while not self._sweep() and not self._is_closing.wait(_SWEEP_AGAIN_S):
                pass

    def _sweep(self) -> bool:
        """Remove what runs without a supervisor have left; return False if that failed."""
        try:
            client = connect()
        except EngineUnavailable:
            return False
        try:
            with contextlib.closing(client):
                for run_id in self.found(client):
                    # Looked at after the engine was: its supervisor had the run by then.
                    if not is_supervised(self._folders.of(run_id)):
                        self.remove(client, run_id)
        except Exception:  # the top of a thread that works for the server's whole life
            logger.warning("earlier runs may still be in the engine", exc_info=True)
            return False
        return True
