"""A run as this server process knows it: its record, its handle, and a bell for its followers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ..protocol.events import Progress
from .bell import Bell
from .machines import MACHINES
from .runners.base import RunHandle
from .runners.folder import read_note
from .stores.base import RunRecord


def machine_note(record: RunRecord) -> str:
    """Return what users should know about a run's machine; empty if there is nothing to say."""
    machine = MACHINES.get(record.request.execution_type)  # a past run's may be gone
    if machine is not None and (said := machine.note()):
        return said
    if record.request.kind == "compose" and record.spool is not None:
        return read_note(record.spool.parent)  # a stack asks for its GPUs by itself
    return ""


class ServerRun:
    """A run that the service changes and followers watch.

    Attributes:
        record: the newest record.
        handle: the runner's handle; None while the run is queued, and for a run of the past.
        order: an order that came before there was a handle to pass it on to.
        secrets: those that the run was started with; empty if an earlier server started it. Its
            supervisor masks its end in any case.
        changed: rings when the record, the detail or the handle changed.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.handle: RunHandle | None = None
        self.order: Literal["kill", "stop"] | None = None
        self.secrets: Mapping[str, str] = {}
        self.changed = Bell()
        self._detail = ""

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def is_over(self) -> bool:
        return self.record.state.is_final

    @property
    def spool(self) -> Path | None:
        return self.handle.spool if self.handle is not None else self.record.spool

    @property
    def progress(self) -> Progress:
        """The state, detail and machine note of a run that is not over."""
        return Progress(self.record.state, self._detail, machine_note(self.record))

    def show(self, record: RunRecord | None = None, *, detail: str = "") -> None:
        """Replace the phrase, and the record if one is given; ring for every follower."""
        if record is not None:
            self.record = record
        self._detail = detail
        self.changed.ring()
