"""One `%%lyceum` cell, from its line to its last output: `run_cell` names every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import cast

from .. import config
from ..display.body import CellBody
from ..display.strip import Strip
from ..protocol.requests import Start, StartPython
from ..runs.interrupts import noted_interrupts
from ..runs.run import Run
from ..session import Place, check_body, session
from ..submission.files import sizes_of
from ..submission.request import python_request
from ..submission.source import code_of
from .errors import failure_of
from .options import CellOptions, parse_cell_line
from .transfer import Transfer, bring_home, gather, say_what_will_come
from .view import View


@dataclass(frozen=True)
class Defaults:
    """What the configuration says where the line says nothing.

    Attributes:
        max_lines, max_bytes: how much text a cell shows before it keeps only the tail.
    """

    machine: str
    timeout_s: int
    max_lines: int
    max_bytes: int


def run_cell(
    line: str,
    cell: str,
    defaults: Defaults,
    bind: Callable[[str, object], None],
    namespace: Mapping[str, object],
) -> None:
    """Runs one cell and returns when it has ended.

    Args:
        line, cell: as IPython gives them.
        bind: puts a value into the user's namespace.
        namespace: the user's, from which `--in` takes.

    Raises:
        OptionError, SyntaxError: the line or the cell is wrong; nothing was started.
        RunFailed: the run ended other than completed, unless --no-raise was given.
        TransferError: it completed, and a value or file did not come home.
        LyceumError: it could not be started, or not be followed.
    """
    options = parse_cell_line(line)
    code = code_of(cell, check=options.check, raw=options.raw)
    notes: list[str] = []
    transfer = gather(code, options, namespace)
    request = build_request(code, options, defaults, transfer, notes.append)
    if options.dry_run:
        show_request(request, options, transfer, notes)
        return
    here = session()
    client = here.client(cast(Place, options.place))
    here.check_machine(client, request.execution_type)
    # What is installed here is installed for the embedded server, wherever it came from.
    notes = [] if client.account.is_embedded else notes
    run, request = here.new_run(
        client, request, budget=options.budget, notes=notes, allow_pickle=options.pickle
    )
    bind("_run", run)
    if options.as_name:
        bind(options.as_name, run)
    if options.detach:
        from .detached import detach_in_cell

        detach_in_cell(run, request)
        say_what_will_come(options)
        return
    run_in_cell(run, defaults, request, may_fail=options.may_fail)
    bring_home(run, options, bind)
    if not options.may_fail and (failure := failure_of(run, code)) is not None:
        raise failure


def build_request(
    cell: str,
    options: CellOptions,
    defaults: Defaults,
    transfer: Transfer,
    note: Callable[[str], object],
) -> StartPython:
    """What travels for a cell.

    Args:
        note: see `python_request`.
    """
    return python_request(
        cell,
        machine=options.machine or defaults.machine,
        timeout_s=options.timeout_s or defaults.timeout_s,
        requirements=options.requirements,
        auto_requirements=options.auto_requirements,
        name=options.name,
        labels=options.labels,
        metadata=options.metadata,
        raw=options.raw,
        inputs=transfer.inputs,
        outputs=options.outputs,
        allow_pickle=options.pickle,
        files=transfer.files,
        save=options.save,
        note=note,
    )


def show_request(
    request: StartPython, options: CellOptions, transfer: Transfer, notes: list[str]
) -> None:
    """Prints the request as it would travel.

    Raises:
        OptionError: its budget pays for no run, or it is larger than a server takes.
    """
    from .dry_run import describe

    if options.place != "local" and (options.place == "cloud" or config.find_account()):
        here = session()
        client = here.client("cloud")
        place = client.account.base_url
        request, price, more = here.priced(client, request, options.budget)
        notes = [*notes, *more]
    else:
        place, price = "the embedded server of this machine (LOCAL)", 0.0
    text = describe(
        request,
        place=place,
        price_per_hour=price,
        inputs=transfer.inputs.sizes,
        files=sizes_of(transfer.files),
        notes=notes,
    )
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
    before, inbox = run.watch()
    interrupts, is_aborting = 0, False

    def note() -> bool:
        nonlocal interrupts
        interrupts += 1
        inbox.wake()
        return interrupts > 2  # should the loop below hang, the third one breaks it

    try:
        with noted_interrupts(note), closing(inbox):
            if request is not None:
                run.begin(request)
            for output in before:  # what an attached run had printed earlier
                view.take(output)
                view.publish_due()
            while not inbox.is_drained:
                if interrupts == 1 and not is_aborting:
                    is_aborting = True
                    run.request_abort("interrupted in the notebook")
                    view.say_aborting()
                elif interrupts > 1:
                    view.say_left()
                    raise KeyboardInterrupt(f"left run {run.id}")
                for item in inbox.get(view.due_in_s()):
                    view.take(item)
                view.publish_due()
    finally:
        view.close()
    run.wait(0)
