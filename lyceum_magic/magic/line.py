"""`%lyceum SUBCOMMAND`: look at runs, end them, look at the server. One function a subcommand."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from typing import TextIO

from .. import config
from ..display.summary import duration
from ..embedded import local_server
from ..exceptions import LyceumError, OptionError, UnknownRun
from ..journal.journal import Entry
from ..outputs import tracebacks
from ..outputs.decoding import Decoded, Display, OutputDecoder, Raised
from ..protocol import money
from ..protocol.events import Output
from ..runs.backlog import Backlog
from ..runs.run import Run
from ..runs.workspace import workspace
from .asking import ask_secret
from .cell import Bind, Defaults, run_in_cell
from .doctor import examine
from .errors import failure_of
from .parsing import split
from .subcommands import line_parser
from .tables import Says, Table

#: How long a live run's log may be silent before it counts as read up to now.
CAUGHT_UP_S = 1.0

#: Characters of a log in one message. A kernel that is busy printing would make one of the
#: whole log, and take several times its size for that.
MESSAGE_CHARS = 1_000_000

#: How many runs `list` shows, of this notebook and of all, unless told otherwise.
OWN_RUNS, ALL_RUNS = 20, 50


def run_line(line: str, defaults: Defaults, bind: Bind) -> object:
    """Runs one `%lyceum` line; what it returns is shown as the cell's result.

    Raises:
        OptionError: no such subcommand, or wrong arguments.
        LyceumError: what the subcommand met.
    """
    parsed = line_parser().parse_args(split(line, "%lyceum"))
    if parsed.command is None:
        return Says(line_parser().format_help())
    return COMMANDS[parsed.command](parsed, defaults, bind)


def login(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> str:
    key = ask_secret("Lyceum API key (lk_...)", "set LYCEUM_API_KEY where the kernel starts")
    if not key.startswith("lk_"):
        raise LyceumError("An API key begins with lk_; nothing was written.")
    account = config.account_to_log_in(config.read_login(), key, "what you typed")
    workspace().accounts.check(account)
    path = config.write_login(api_key=key, refresh_token=None)
    return Says(f"Signed in: the key is in {path}. Cells run on the cloud from now on.")


def status(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> object:
    if parsed.id is not None:
        return _status_of(workspace().attach(parsed.id))
    account = config.find_account()
    where = (
        "the embedded server of this machine (LOCAL); set LYCEUM_API_KEY or use `%lyceum login` "
        "for the cloud" if account is None else f"{account.base_url} (key from {account.source})"
    )  # fmt: skip
    here = workspace()
    if account is not None:
        here.ask(here.client("cloud").machine_types)  # raises what would keep a cell from running
    active = [entry for entry in here.runs.as_now(here.history.unfinished()) if not entry.is_final]
    said = (
        f"Cells run on {where}.\n{len(active)} active run{'' if len(active) == 1 else 's'}; "
        "%lyceum list --all shows them."
    )
    return Says("\n".join(filter(None, [said, _spent(here.history.paid())])))


def _spent(mine: list[Entry]) -> str:
    """What the runs of this notebook have cost; empty where they were free."""
    now = time.time()
    costs = [cost for entry in mine if (cost := entry.cost(now)) is not None]
    if not costs:
        return ""
    is_billed = all(entry.billed is not None for entry in mine if entry.cost(now) is not None)
    total = money.spent(sum(costs), is_billed=is_billed)
    return f"This notebook has spent {total} on {len(costs)} run{'' if len(costs) == 1 else 's'}."


def _status_of(run: Run) -> Table:
    record = run.record()
    names = (
        "execution_id", "status", "status_details", "return_code", "hardware_profile", "run_name",
        "created_at", "job_start", "job_end", "timeout", "billed",
    )  # fmt: skip
    rows = [(name, record[name]) for name in names if record.get(name) not in (None, "")]
    if (cost := run.cost) is not None:
        rows.append(("cost", money.spent(cost, is_billed=run.billed is not None)))
    rows += [("error", text) for text in record.get("system_errors") or ()]
    return Table(["", ""], rows)


def machines(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> Table:
    here = workspace()
    client = here.client()
    prices = here.ask(client.machine_types)
    usable = here.ask(client.available_hardware)
    rows = [
        (name, "free" if price == 0 else "" if price is None else money.per_hour(price),
         "yes" if not usable or name in usable else "no")
        for name, price in prices.items()
    ]  # fmt: skip
    return Table(["machine", "price", "available"], rows, empty="the server names no machines")


def list_runs(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> Table:
    here = workspace()
    limit = parsed.limit or (ALL_RUNS if parsed.all else OWN_RUNS)
    entries = here.runs.as_now(
        here.history.entries(limit) if parsed.all else here.history.of_notebook(limit)
    )
    title = _said_of(len(entries), here.history.count(is_of_notebook=not parsed.all), parsed.all)
    now = time.time()
    rows: list[tuple[str, ...]] = [
        (
            (entry.run_id or "–")[:8], entry.state, entry.machine, entry.name,
            duration((entry.ended_at or now) - entry.created_at),
            f"{duration(now - entry.created_at)} ago",
            "LOCAL" if entry.is_embedded else entry.base_url,
            entry.reason,
        )
        for entry in entries
    ]  # fmt: skip
    empty = "no runs" if parsed.all else "no runs of this notebook; --all shows all others"
    head = ["run", "state", "machine", "name", "took", "started", "where", "reason"]
    if any(entry.cost(now) is not None for entry in entries):
        head.insert(5, "cost")
        rows = [
            (*row[:5], _cost(entry, now), *row[5:])
            for row, entry in zip(rows, entries, strict=True)
        ]
    return Table(head, rows, title=title, empty=empty)


def _said_of(shown: int, there_are: int, are_all: bool) -> str:
    """Which runs a list has; empty where it has none."""
    if not shown:
        return ""
    whose = "" if are_all else " of this notebook"
    if shown < there_are:
        said = f"the newest {shown} of {there_are:,} runs{whose}; --limit N shows more"
        return said if are_all else f"{said}, --all those of all notebooks"
    said = f"all {there_are:,} runs" if there_are > 1 else "the only run"
    return f"{said}{whose}" if are_all else f"{said}{whose}; --all shows those of all notebooks"


def _cost(entry: Entry, now: float) -> str:
    cost = entry.cost(now)
    return "" if cost is None else money.spent(cost, is_billed=entry.billed is not None)


def logs(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> None:
    asked_at = time.time()
    run = workspace().attach(parsed.id)
    before, backlog = run.watch()
    with closing(backlog):
        show = _Printer(parsed.grep, OutputDecoder(run.mark))
        for output in chain(before, _up_to(asked_at, backlog)):
            show(output)
    show.end()


def _up_to(moment: float, backlog: Backlog) -> Iterator[Output]:
    """What comes into an backlog until it is later, or silent."""
    while items := backlog.get(CAUGHT_UP_S):
        for item in items:
            if isinstance(item, Output):
                if (item.timestamp or 0) > moment:
                    return
                yield item


class _Printer:
    """Prints text as it is, or only the lines that hold a text, whatever the pieces."""

    def __init__(self, grep: str | None, decoder: OutputDecoder) -> None:
        self._grep = grep
        self._decoder = decoder
        self._rest = ""
        self._waiting = 0  # characters

    def __call__(self, output: Output) -> None:
        for item in self._decoder.feed(output):
            self._print(item)

    def _print(self, item: Decoded) -> None:
        match item:
            case Output():
                self._print_text(item.text, item.stream)
            case Raised():
                said = tracebacks.lines(tracebacks.rebuild(item.error, "<cell>"))
                self._print_text("".join(f"{line}\n" for line in said), "stderr")
            case Display():
                shown = item.data.get("text/plain")
                if isinstance(shown, str):
                    self._print_text(f"{shown}\n", "stdout")

    def _print_text(self, text: str, name: str) -> None:
        if self._grep is None:
            self._write(text, sys.stderr if name == "stderr" else sys.stdout)
            return
        *lines, self._rest = (self._rest + text).split("\n")
        self._write("".join(f"{line}\n" for line in lines if self._grep in line), sys.stdout)

    def _write(self, text: str, stream: TextIO) -> None:
        stream.write(text)
        self._waiting += len(text)
        if self._waiting >= MESSAGE_CHARS:
            self._waiting = 0
            stream.flush()

    def end(self) -> None:
        for item in self._decoder.close():
            self._print(item)
        if self._grep is not None and self._rest and self._grep in self._rest:
            sys.stdout.write(f"{self._rest}\n")
        sys.stdout.flush()


def attach(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> None:
    run = workspace().attach(parsed.id)
    bind("_run", run)
    run_in_cell(run, defaults)
    if (failure := failure_of(run)) is not None:
        raise failure


def abort(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> Says:
    run = workspace().own(parsed.id)
    return Says(f"run {run.id[:8]}: {run.abort()}")


def stop(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> Says:
    run = workspace().own(parsed.id)
    return Says(f"run {run.id[:8]}: {run.stop()}")


def metrics(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> object:
    from .metrics import metrics_of

    return metrics_of(workspace().attach(parsed.id))


def secrets(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> object:
    from .secrets import run_secrets

    return run_secrets(parsed)


def storage(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> object:
    from .storage import run_storage

    return run_storage(parsed)


def callbacks(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> object:
    from .callbacks import run_callbacks

    return run_callbacks(parsed)


def listen(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> None:
    from .listening import listen

    listen(defaults.callback_base_url)


def server(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> Says:
    folder = local_server.current_folder()
    client = workspace().accounts.embedded_if_running()
    if client is None and (problem := local_server.unreachable(folder)):
        return Says(problem)
    said = f"No embedded server runs; the first cell starts one. Its folder: {folder}"
    if client is not None:
        said = (
            f"The embedded server serves at {client.account.base_url} from {folder}.\n"
            "It runs code as your own user, and ends 30 minutes after the last run."
        )
    return Says("\n".join(filter(None, [said, local_server.earlier_state()])))


def forget(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> Says:
    here = workspace()
    chosen = [here.history.find(run_id) for run_id in parsed.id]
    if live := [entry for entry in chosen if not entry.is_final]:
        raise UnknownRun(
            f"Run {(live[0].run_id or '')[:8]} has not ended and is not forgotten; abort it first."
        )
    if parsed.all or parsed.older_than is not None:
        before = time.time() - (parsed.older_than or 0) * 86400
        chosen += here.history.ended_before(before)
    elif not chosen:
        raise OptionError("Name the runs to forget, or say --older-than DAYS or --all.")
    here.forget(chosen)
    return Says(f"{len(chosen)} run{'' if len(chosen) == 1 else 's'} forgotten.")


def doctor(parsed: argparse.Namespace, defaults: Defaults, bind: Bind) -> Table:
    return Table(["what", "found", "advice"], examine())


COMMANDS: dict[str, Callable[[argparse.Namespace, Defaults, Bind], object]] = {
    "login": login,
    "status": status,
    "machines": machines,
    "list": list_runs,
    "logs": logs,
    "attach": attach,
    "abort": abort,
    "stop": stop,
    "metrics": metrics,
    "secrets": secrets,
    "storage": storage,
    "callbacks": callbacks,
    "listen": listen,
    "server": server,
    "forget": forget,
    "doctor": doctor,
}
