"""One cell of any cell magic, from what it asks for to its last output: `run_cell` names every
step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, cast

from .. import config
from ..display.body import CellBody
from ..display.strip import Strip
from ..protocol.requests import Start
from ..runs.accounts import Place
from ..runs.interrupts import noted_interrupts
from ..runs.run import Run
from ..runs.starting import check_body
from ..runs.workspace import workspace
from ..submission.wrapping import for_server
from .defaults import Bind, Defaults
from .errors import failure_of
from .options import RunOptions
from .view import View

if TYPE_CHECKING:
    from ..submission.start import Choices


class Cell:
    """What a magic has made of its line and its text; each magic has a class of its own.

    Attributes:
        options: what the line says of any run.
        request: what travels, but for credentials.
        notes: what the reader should know about it.
        python: the text, where it is Python whose errors are the notebook's own.
        allow_pickle: see `Run`.
    """

    options: RunOptions
    request: Start
    notes: list[str]
    python: str | None = None
    allow_pickle = False

    def signed_in(self) -> Start:
        """The request with the credentials that it needs, which may be asked for.

        Raises:
            OptionError: they cannot be had.
        """
        return self.request

    def sizes(self) -> Iterator[tuple[str, Mapping[str, int]]]:
        """What is packed into the request: a heading, and name -> size in bytes."""
        yield from ()

    def say_what_will_come(self) -> None:
        """Says, of a detached run, where its results will be."""

    def bring_home(self, run: Run, bind: Bind) -> None:
        """Takes what a run that has ended sends beside its outputs.

        Raises:
            TransferError: something is missing.
        """


def run_cell(cell: Cell, defaults: Defaults, bind: Bind) -> None:
    """Runs one cell and returns when it has ended.

    Raises:
        OptionError: what it asks for cannot be had; nothing was started.
        RunFailed: the run ended other than completed, unless --no-raise was given.
        TransferError: it completed, and a value or file did not come home.
        LyceumError: it could not be started, or not be followed.
    """
    options, notes = cell.options, cell.notes
    if options.dry_run:
        show_request(cell)
        return
    here = workspace()
    client = here.client(cast(Place, options.place))
    here.accounts.check_machine(client, cell.request.execution_type)
    # What is installed here is installed for the embedded server, wherever it came from.
    notes = [] if client.account.is_embedded else notes
    run, request = here.new_run(
        client,
        for_server(cell.signed_in(), client.account.bootstrap),
        budget=options.budget,
        notes=notes,
        allow_pickle=cell.allow_pickle,
        callback_base=defaults.callback_base_url,
    )
    bind("_run", run)
    if options.as_name:
        bind(options.as_name, run)
    if options.detach:
        from .detached import detach_in_cell

        detach_in_cell(run, request)
        cell.say_what_will_come()
        return
    run_in_cell(run, defaults, request, may_fail=options.may_fail)
    cell.bring_home(run, bind)
    failure = failure_of(run, cell.python, cell.request.kind)
    if failure is not None and not options.may_fail:
        raise failure


def choices_of(options: RunOptions, defaults: Defaults) -> Choices:
    """What is chosen for a run of any kind: by its line, else by the configuration."""
    from ..submission.start import Choices

    return Choices(
        options.machine or defaults.machine,
        options.timeout_s or defaults.timeout_s,
        name=options.name,
        labels=options.labels,
        metadata=options.metadata,
        callback_urls=[*defaults.callback_urls, *options.callback_urls],
    )


def show_request(cell: Cell) -> None:
    """Prints the request as it would travel.

    Raises:
        OptionError: its budget pays for no run, or it is larger than a server takes.
    """
    from .dry_run import describe

    options, request, notes = cell.options, cell.request, cell.notes
    if options.place != "local" and (options.place == "cloud" or config.find_account()):
        here = workspace()
        client = here.client("cloud")
        place = client.account.base_url
        request = for_server(request, client.account.bootstrap)
        request, price, more = here.spending.priced(client, request, options.budget)
        notes = [*notes, *more, *request.cloud_remarks]
    else:
        place, price = "the embedded server of this machine (LOCAL)", 0.0
    text = describe(request, place=place, price_per_hour=price, sizes=cell.sizes(), notes=notes)
    print(f"{text}\nnothing was sent")  # noqa: T201 - a cell shows what it prints
    check_body(request)


def run_in_cell(
    run: Run, defaults: Defaults, request: Start | None = None, *, may_fail: bool = False
) -> None:
    """Shows a run in the current cell until it has ended.

    Args:
        request: starts the run; None follows one that was started before.
        may_fail: what it raises is shown as text, for nobody will raise it here.

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
