"""The runs that this process holds a handle of, each of them one `Run`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..exceptions import LyceumError
from ..journal.journal import Entry
from ..protocol.lines import one_line
from ..protocol.states import State, parse_state
from .history import History
from .hooks import Hooks
from .loop import LoopThread

if TYPE_CHECKING:
    from ..client.api import Client
    from .run import Run

#: A start without a reply after this time has no kernel left that waits for the reply.
START_LIMIT_S = 120.0


class HeldRuns:
    """One `Run` for each run that this process started or attached to.

    Args:
        client_of: returns the client of the server that has a run.
        adopt: called with each run that another process started, once it is followed here.
    """

    def __init__(
        self,
        loop: LoopThread,
        history: History,
        hooks: Hooks,
        client_of: Callable[[Entry], Client],
        adopt: Callable[[Run], object],
    ) -> None:
        self._loop = loop
        self._history = history
        self._hooks = hooks
        self._client_of = client_of
        self._adopt = adopt
        # Weak: a run under way is held by its own task, one that has ended by its user alone.
        self._runs: WeakValueDictionary[str, Run] = WeakValueDictionary()

    def get(self, tag: str) -> Run | None:
        """Return the run with a tag, as long as it is held."""
        return self._runs.get(tag)

    def add(self, client: Client, entry: Entry) -> Run:
        """Return a new handle of a run, which does nothing yet."""
        from .run import Run

        run = Run(self._loop.portal, self._history.journal, client, entry, self._hooks)
        self._runs[entry.tag] = run
        return run

    def follow(self, entry: Entry) -> Run:
        """Return the handle of a run, which is followed from now on until its end."""
        known = self._runs.get(entry.tag)
        if known is not None and not known.following.is_out_of_sight:
            return known
        if known is None and not entry.is_final:
            # A handle that has just been dropped may have written the end since it was read.
            entry = self._history.find(entry.tag)
        run = self.add(self._client_of(entry), entry)
        if not entry.is_final:
            run.begin(None)
            self._adopt(run)
        return run

    def leave(self) -> None:
        """Stop following all runs; they go on where they run."""
        for run in list(self._runs.values()):
            run.following.leave()

    def leave_to_parent(self) -> None:
        """Let go, in a forked child, of the logs that the parent writes."""
        for run in list(self._runs.values()):
            run.following.log.leave_to_parent()

    def as_now(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return entries with the present state of those that another kernel left unfinished."""
        return [
            entry if entry.is_final or self._is_followed(entry) else self._refreshed(entry)
            for entry in entries
        ]

    def _is_followed(self, entry: Entry) -> bool:
        """Return whether this process keeps a row up to date: not after an end left unwritten."""
        run = self._runs.get(entry.tag)
        return run is not None and not run.state.is_final

    def _refreshed(self, entry: Entry) -> Entry:
        if entry.run_id is None:
            return self._found_again(entry)
        from ..client.api import billed_of, ended_at_of

        try:
            record = self._loop.ask(self._client_of(entry).record, entry.run_id)
        except LyceumError:
            return entry  # the server cannot be asked now; what is known is better than nothing
        state = parse_state(str(record.get("status"))) or State(entry.state)
        errors = record.get("system_errors") or [""]
        return dataclasses.replace(
            entry,
            state=state.value,
            reason=one_line(errors[0]),
            billed=billed_of(record),
            ended_at=ended_at_of(record) if state.is_final else None,
        )

    def _found_again(self, entry: Entry) -> Entry:
        """Return a run as the server knows it, whose start got no reply."""
        if entry.created_at > time.time() - START_LIMIT_S:
            return entry  # another kernel may be starting it right now
        with contextlib.suppress(LyceumError):
            self.follow(entry).wait_started()
        return self._history.find(entry.tag)
