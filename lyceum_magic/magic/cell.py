"""One cell of any cell magic, from its request to its last output; `run_cell` has every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import cast

from .. import config
from ..display.body import CellBody
from ..display.strip import Strip
from ..protocol.requests import Start
from ..runs.accounts import Place
from ..runs.interrupts import noted_interrupts
from ..runs.run import Run
from ..runs.starting import check_body
from ..runs.workspace import workspace
from ..submission.specs import RunSpec
from ..submission.wrapping import for_server
from .defaults import Bind, Defaults
from .errors import failure_of
from .view import View


class Cell:
    """The run that a magic's line and text describe; each magic has a class of its own.

    Attributes:
        spec: the options of the run.
        request: the start request, without credentials.
        notes: sentences for the reader.
        python: the text, where it is Python whose errors are the notebook's own.
        allow_pickle: see `Run`.
    """

    spec: RunSpec
    request: Start
    notes: list[str]
    python: str | None = None
    allow_pickle = False

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
    spec, notes = cell.spec, cell.notes
    if spec.dry_run:
        show_request(cell)
        return
    here = workspace()
    client = here.client(cast(Place, spec.place))
    here.accounts.check_machine(client, cell.request.execution_type)
    # The embedded server uses the packages of this environment, from any source.
    notes = [] if client.account.is_embedded else notes
    run, request = here.new_run(
        client,
        for_server(cell.signed_in(), client.account.bootstrap),
        budget=spec.budget,
        notes=notes,
        allow_pickle=cell.allow_pickle,
        callback_base=defaults.callback_base_url,
    )
    bind("_run", run)
    if spec.as_name:
        bind(spec.as_name, run)
    if spec.detach:
        from .detached import detach_in_cell

        detach_in_cell(run, request)
        cell.say_what_will_come()
        return
    run_in_cell(run, defaults, request, may_fail=spec.may_fail)
    cell.bring_home(run, bind)
    failure = failure_of(run, cell.python, cell.request.kind)
    if failure is not None and not spec.may_fail:
        raise failure


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
        KeyboardInterrupt: the second interrupt; the first one aborts the run.
        LyceumError: it could not be started or followed.
    """
    strip = Strip(lambda: run.request_abort("stopped by its Stop button"))
    body = CellBody(
        lambda: run.id,
        run.mark,
        max_lines=defaults.max_lines,
        max_bytes=defaults.max_bytes,
        on_cleared=strip.show_again,
    )
    view = View(run, strip, body, says_raised=may_fail)
    view.open()
    before, backlog = run.watch()
    interrupts, is_aborting = 0, False

    def note() -> bool:
        nonlocal interrupts
        interrupts += 1
        backlog.wake()
        return interrupts > 2  # should the loop below hang, the third one breaks it

    try:
        with noted_interrupts(note), closing(backlog):
            if request is not None:
                run.begin(request)
            for output in before:  # what an attached run had printed earlier
                view.take(output)
                view.publish_due()
            while not backlog.is_drained:
                if interrupts == 1 and not is_aborting:
                    is_aborting = True
                    run.request_abort("interrupted in the notebook")
                    view.say_aborting()
                elif interrupts > 1:
                    view.say_left()
                    raise KeyboardInterrupt(
                        f"left run {run.id}" if run.id else "left before the server had answered"
                    )
                for item in backlog.get(view.due_in_s()):
                    view.take(item)
                view.publish_due()
    finally:
        view.close()
    run.wait(0)
