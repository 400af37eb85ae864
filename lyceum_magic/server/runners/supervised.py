"""The base of runners whose runs belong to supervisors: it makes their handles.

A new runner prepares a run's folder in its `launch` (see `folder`) and calls `hand_over`. Its
supervisor is `process.supervisor`, or a `Work` of its own for `engine.supervisor`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from .base import ProgressListener, RunOrder, Usage
from .control import listening, locked
from .handle import PATIENCE, SupervisedHandle
from .pool import InterpreterPool


class SupervisedRunner(ABC):
    """The part of a `Runner` that hands runs to supervisors, and keeps their handles.

    Args:
        supervisors: the pool from which supervisors are taken.
    """

    #: The patience with its supervisors.
    patience = PATIENCE

    def __init__(self, supervisors: InterpreterPool) -> None:
        self._supervisors = supervisors
        self._handles: set[SupervisedHandle] = set()

    @abstractmethod
    async def launch(
        self, run_order: RunOrder, handle: SupervisedHandle, on_progress: ProgressListener
    ) -> None:
        """Prepare a run and hand it over.

        Raises:
            Refusal: the run cannot be started.
            EngineUnavailable: the engine is gone.
        """

    @abstractmethod
    def measure(self, folder: Path) -> Usage | None:
        """Return what the run in `folder` uses now. Blocks, as the next one does."""

    @abstractmethod
    def clean_up(self, folder: Path) -> None:
        """Take away what is left of a run whose supervisor died."""

    async def start(self, run_order: RunOrder, on_progress: ProgressListener) -> SupervisedHandle:
        handle = self._new_handle(run_order)
        handle.launch(self.launch(run_order, handle, on_progress))
        return handle

    async def find(self, run_order: RunOrder) -> SupervisedHandle | None:
        handle = self._new_handle(run_order)
        if await handle.recover():
            return handle
        self._handles.discard(handle)
        return None

    async def close(self) -> None:
        for handle in list(self._handles):
            await handle.leave()
        await self._supervisors.close()

    def hand_over(self, run_order: RunOrder, handle: SupervisedHandle) -> None:
        """Give a prepared run to an interpreter that becomes its supervisor, and follow that one.

        Raises:
            OSError: the machine lacks something for it.
        """
        supervisors = self._supervisors
        with locked(run_order.folder) as lock, listening(run_order.folder) as listener:
            while True:
                interpreter = supervisors.take()
                try:
                    interpreter.hand_over(run_order.folder, lock, listener)
                except (BrokenPipeError, ConnectionResetError):
                    supervisors.bury(interpreter)  # it died while it waited
                else:
                    break
        handle.follow(
            interpreter.control,
            interpreter.mark,
            bury=lambda: supervisors.bury(interpreter),
            hand_over_again=lambda: self.hand_over(run_order, handle),
        )

    def ended(self, handle: SupervisedHandle) -> None:
        """Forget a run that is over; called with each."""
        self._handles.discard(handle)

    def _new_handle(self, run_order: RunOrder) -> SupervisedHandle:
        handle = SupervisedHandle(
            run_order,
            on_end=self.ended,
            clean_up=self.clean_up,
            measure=self.measure,
            patience=self.patience,
        )
        self._handles.add(handle)
        return handle
