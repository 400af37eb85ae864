"""One cell of any cell magic, from its request to its last output; `run_cell` has every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import cast

from .. import config
from ..client.api import Client
from ..display.body import CellBody
from ..display.strip import Strip
from ..journal.snapshots import Carried
from ..protocol.requests import Start
from ..runs.accounts import Place
from ..runs.interrupts import noted_interrupts
from ..runs.run import Run
from ..runs.starting import check_body
from ..runs.workspace import workspace
from ..sessions.steps import NextCell, held, settle, write_down
from ..submission.specs import RunSpec
from ..submission.wrapping import for_server
from .defaults import Bind, Defaults
from .errors import failure_of
from .session_cell import next_in_session, say_end_in_session
from .view import View


class Cell:
    """The run that a magic's line and text describe; each magic has a class of its own.

    Attributes:
        spec: the options of the run.
        request: the start request, without credentials.
        notes: sentences for the reader.
        python: the text, where it is Python whose errors are the notebook's own.
        allow_pickle: see `Run`.
        session: the word for the cell's session; empty if it has none.
    """

    spec: RunSpec
    request: Start
    notes: list[str]
    python: str | None = None
    allow_pickle = False
    session = ""

    def join(self, cell: NextCell) -> None:
        """Take a place in a session: the request restores and saves its variables."""
        raise NotImplementedError  # only cells of Python have a session

    def carried(self) -> Carried:
        """Return what later cells of the session need to load what this one leaves."""
        return Carried()

    def signed_in(self) -> Start:
        """Return the request with its credentials; the user may be asked for them.

        Raises:
            OptionError: credentials are missing.
        """
        return self.request

    def sizes(self) -> Iterator[tuple[str, Mapping[str, int]]]:
        """Yield the parts packed into the request: a heading, and name -> size in bytes."""
        yield from ()

    def say_what_will_come(self) -> None:
        """Print where the results of a detached run will be."""

    def bring_home(self, run: Run, bind: Bind) -> None:
        """Take the values and files that a run sends when it has ended.

        Raises:
            TransferError: something is missing.
        """


def run_cell(cell: Cell, defaults: Defaults, bind: Bind) -> None:
    """Run one cell and return when it has ended.

    Raises:
        OptionError: an option cannot be met; nothing was started.
        RunFailed: the run did not complete, and --no-raise was not given.
        TransferError: it completed, and a value or file did not arrive.
        LyceumError: it could not be started, or not be followed.
    """
    spec = cell.spec
    if spec.dry_run:
        show_request(cell)
        return
    here = workspace()
    client = here.client(cast(Place, spec.place))
    here.accounts.check_machine(client, cell.request.execution_type)
    next_one = None
    with ExitStack() as until_noted:
        if cell.session:
            is_agreed = getattr(spec, "yes", False)
            next_one = next_in_session(cell.session, client, is_agreed=is_agreed)
            holding = held(here, client, next_one, cell.request.timeout)
            next_one = until_noted.enter_context(holding)
            cell.join(next_one)
        run, request = _new_run(cell, client, defaults)
        if next_one is not None:
            write_down(here, client, run, next_one, cell.carried())
    bind("_run", run)
    if spec.as_name:
        bind(spec.as_name, run)
    if spec.detach:
        from .detached import detach_in_cell

        detach_in_cell(run, request)
        cell.say_what_will_come()
        return
    run_in_cell(run, defaults, request, may_fail=spec.may_fail)
    if next_one is not None:
        say_end_in_session(run, next_one, settle(here, client, run, next_one))
    cell.bring_home(run, bind)
    text = None if cell.python is None else "\n" * (spec.first_line - 1) + cell.python
    failure = failure_of(run, text, cell.request.kind)
    if failure is not None and not spec.may_fail:
        raise failure


def _new_run(cell: Cell, client: Client, defaults: Defaults) -> tuple[Run, Start]:
    """Return a run that has not begun, and its request; see `Workspace.new_run`."""
    return workspace().new_run(
        client,
        for_server(cell.signed_in(), client.account.bootstrap),
        budget=cell.spec.budget,
        # The embedded server uses the packages of this environment, from any source.
        notes=[] if client.account.is_embedded else cell.notes,
        allow_pickle=cell.allow_pickle,
        callback_base=defaults.callback_base_url,
    )


def show_request(cell: Cell) -> None:
    """Print the request as it would travel.

    Raises:
        OptionError: its budget does not pay for a run, or it is larger than a server takes.
    """
    from .dry_run import describe

    spec, request, notes = cell.spec, cell.request, cell.notes
    if spec.place != "local" and (spec.place == "cloud" or config.find_account()):
        here = workspace()
        client = here.client("cloud")
        place = client.account.base_url
        request = for_server(request, client.account.bootstrap)
        request, price, more = here.spending.priced(client, request, spec.budget)
        notes = [*notes, *more, *request.cloud_remarks]
    else:
        place, price = "the embedded server of this machine (LOCAL)", 0.0
    text = describe(
        spec, request, place=place, price_per_hour=price, sizes=cell.sizes(), notes=notes
    )
    print(f"{text}\nnothing was sent")  # noqa: T201 - a cell shows what it prints
    check_body(request)


def run_in_cell(
    run: Run, defaults: Defaults, request: Start | None = None, *, may_fail: bool = False
) -> None:
    """Show a run in the current cell until it has ended.

    Args:
        request: starts the run; None follows one that was started before.
        may_fail: show an error of the run as text, since the cell does not raise it.

    Raises:
        KeyboardInterrupt: the second interrupt; the first one aborts the run. In a session the
            first one interrupts the cell, and the second one aborts it.
        LyceumError: it could not be started or followed.
    """
    strip = Strip(lambda: run.request_interrupt("stopped by its Stop button"))
    body = CellBody(
        lambda: run.id,
        run.mark,
        max_lines=defaults.max_lines,
        max_bytes=defaults.max_bytes,
        on_cleared=strip.show_again,
    )
    view = View(run, strip, body, says_raised=may_fail)
    view.open()
    try:
        _show_to_its_end(run, view, request)
    finally:
        view.close()
    run.wait(0)


def _show_to_its_end(run: Run, view: View, request: Start | None) -> None:
    """Start the run, if there is a request, and hand its news to the view until there are none."""
    before, backlog = run.watch()
    interrupts = asked = 0
    # The cell of a session is interrupted first, and then aborted; any other is aborted at once.
    most = 2 if run.following.ending.is_session else 1

    def note() -> bool:
        nonlocal interrupts
        interrupts += 1
        backlog.wake()
        return interrupts > most + 1  # should the loop below hang, the next one breaks it

    with noted_interrupts(note), closing(backlog):
        if request is not None:
            run.begin(request)
        for output in before:  # what an attached run had printed earlier
            view.take(output)
            view.publish_due()
        while not backlog.is_drained:
            if asked < interrupts <= most:
                asked = interrupts
                run.request_interrupt("interrupted in the notebook")
                view.say_aborting(is_interrupt=asked < most)
            elif interrupts > most:
                view.say_left()
                raise KeyboardInterrupt(
                    f"left run {run.id}" if run.id else "left before the server had answered"
                )
            for item in backlog.get(view.due_in_s()):
                view.take(item)
            view.publish_due()
