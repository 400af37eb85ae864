"""A run's items in, its strip and its outputs out, in a cell or under a cell that has ended."""

from __future__ import annotations

from typing import assert_never

from ..client.stream import Notice, Recovered
from ..display.body import Body
from ..display.session import not_kept, session_entry
from ..display.strip import Strip
from ..display.summary import RunFacts
from ..outputs import tracebacks
from ..outputs.decoding import (
    ClearOutput,
    Display,
    Raised,
    SavedFile,
    SessionInterrupted,
    SessionSaved,
    Value,
)
from ..protocol.events import Finished, Output, Progress
from ..protocol.states import State
from ..runs.backlog import News
from ..runs.run import Run

_SHOWS_NO_MORE = "this cell shows no more until the end; all of it is kept"


class View:
    """The view of one run: the strip, and below it the outputs.

    Args:
        body: takes the outputs.
        strip: shows the state of the run.
        says_raised: show the exception of the program as text, because the cell will not raise it.
    """

    def __init__(
        self,
        run: Run,
        strip: Strip,
        body: Body,
        *,
        is_detached: bool = False,
        says_raised: bool = False,
    ) -> None:
        self._run = run
        self._strip = strip
        self._body = body
        self._is_detached = is_detached
        self._says_raised = says_raised
        self._has_begun = False
        self._is_running = False
        self._detail = ""  # the present step of the run
        self._trouble = ""  # the present trouble, such as a lost connection
        self._note = ""  # a remark that holds for the whole run
        self._session = ""  # the state of its session, once it is saved

    def open(self) -> None:
        self._strip.open(self.facts())

    def take(self, item: News) -> None:
        """Show an item of the run's output, or what it changes in the strip."""
        match item:
            case Output():
                self._begin()
                self._body.add_text(item)
            case Display():
                self._begin()
                self._body.show(item)
            case ClearOutput(wait):
                self._begin()
                self._body.clear(wait=wait)
            case Raised(error):
                self._begin()
                if self._says_raised:
                    self._body.add_text(Output(tracebacks.text(error), "stderr"))
            case SessionSaved():
                self._begin()
                self._session = session_entry(item)
                if lost := not_kept(item):
                    self._body.add_text(Output(f"[lyceum] {lost}\n"))
            case Value() | SavedFile() | SessionInterrupted():
                self._begin()
            case Progress(state, detail, note):
                self._detail = detail
                self._is_running = state is State.RUNNING
                self._note = note or self._note
                self._strip.update(self.facts())
            case Notice(text):
                self._trouble = text
                self._strip.update(self.facts())
            case Recovered():
                self._trouble = ""
                self._strip.update(self.facts())
            case Finished():
                self._detail = self._trouble = ""
            case _:
                assert_never(item)

    def _begin(self) -> None:
        """Note that the program has begun: its first output has come."""
        if not self._has_begun:
            self._has_begun = True
            if not self._is_running:  # otherwise it says what the run waits for
                self._detail = ""
            self._strip.update(self.facts())

    def due_in_s(self) -> float | None:
        """Return how long nothing needs to be published, in seconds; None: until an item comes."""
        dues = [self._strip.due_in_s(), self._body.due_in_s()]
        return min((due for due in dues if due is not None), default=None)

    def publish_due(self) -> None:
        if self._strip.due_in_s() == 0:
            self._strip.update(self.facts())
            self._strip.publish()
        if self._body.due_in_s() == 0:
            self._body.publish()
            if self._body.is_full and self._detail != _SHOWS_NO_MORE:
                self._detail = _SHOWS_NO_MORE
                self._strip.update(self.facts())

    def say_aborting(self, *, is_interrupt: bool = False) -> None:
        self._trouble = (
            "interrupted: waiting for the cell to end; interrupt again to abort it"
            if is_interrupt
            else "interrupted: aborting the run; interrupt again to leave it"
        )
        self._strip.update(self.facts())

    def say_left(self) -> None:
        which = self._run.id[:8] or "last"
        self._trouble = f"left before it ended; %lyceum attach {which} follows it again"

    def close(self) -> None:
        self._body.close()
        self._strip.close(self.facts())

    def facts(self) -> RunFacts:
        return facts_of(
            self._run,
            self._trouble or self._detail,
            note=" · ".join(filter(None, [self._note, self._session])),
            is_detached=self._is_detached,
        )


def facts_of(run: Run, detail: str = "", *, note: str = "", is_detached: bool = False) -> RunFacts:
    """Return what a strip shows of a run now."""
    return RunFacts(
        run_id=run.id,
        state=run.state,
        machine=run.machine,
        name=run.name,
        detail=run.reason or detail,
        note=" · ".join(filter(None, [run.note, note])),
        price_per_hour=run.price_per_hour,
        billed=run.billed,
        waited_s=run.waited_s,
        timeout_s=run.timeout_s,
        is_local=run.is_embedded,
        is_detached=is_detached,
        elapsed_s=run.elapsed_s,
        return_code=run.return_code,
    )
