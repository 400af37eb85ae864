"""What runners have in common: their runs belong to supervisors, and they only follow them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from .base import ProgressListener, RunSpec, Usage
from .handle import PATIENCE, SupervisedRun, hand_over
from .pool import InterpreterPool


class SupervisedRunner(ABC):
    """The part of a `Runner` that is about handles.

    Args:
        supervisors: where supervisors come from.
    """

    #: With supervisors of this kind.
    patience = PATIENCE

    def __init__(self, supervisors: InterpreterPool) -> None:
        self._supervisors = supervisors
        self._handles: set[SupervisedRun] = set()

    @abstractmethod
    async def launch(
        self, spec: RunSpec, handle: SupervisedRun, on_progress: ProgressListener
    ) -> None:
        """Prepares a run and hands it over.

        Raises:
            Refusal: the run cannot be started.
            EngineUnavailable: the engine is gone.
        """

    @abstractmethod
    def measure(self, folder: Path) -> Usage | None:
        """What the run in `folder` uses now. Blocks, as the next one does."""

    @abstractmethod
    def clean_up(self, folder: Path) -> None:
        """Takes away what is left of a run whose supervisor died."""

    async def start(self, spec: RunSpec, on_progress: ProgressListener) -> SupervisedRun:
        handle = self._new_handle(spec)
        handle.launch(self.launch(spec, handle, on_progress))
        return handle

    async def find(self, spec: RunSpec) -> SupervisedRun | None:
        handle = self._new_handle(spec)
        if await handle.recover():
            return handle
        self._handles.discard(handle)
        return None

    async def close(self) -> None:
        for handle in list(self._handles):
            await handle.leave()
        await self._supervisors.close()

    def hand_over(self, spec: RunSpec, handle: SupervisedRun) -> None:
        """Gives a prepared run to a supervisor; see `handle.hand_over`."""
        hand_over(spec, handle, self._supervisors.take, self._supervisors.bury)

    def ended(self, handle: SupervisedRun) -> None:
        """Called with each run that is over."""
        self._handles.discard(handle)

    def _new_handle(self, spec: RunSpec) -> SupervisedRun:
        handle = SupervisedRun(
            spec,
            on_end=self.ended,
            clean_up=self.clean_up,
            measure=self.measure,
            patience=self.patience,
        )
        self._handles.add(handle)
        return handle
