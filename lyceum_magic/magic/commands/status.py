"""`%lyceum status [ID]`: where cells run, or the server's record of one run."""

from __future__ import annotations

import time

from ... import config
from ...display.tables import Says, Table
from ...journal.journal import Entry
from ...protocol import money
from ...runs.run import Run
from ...runs.workspace import workspace
from ..parsing import Parser
from . import RUN_ID, Call

#: The members of a record that are shown, in this order.
_MEMBERS = (
    "execution_id", "status", "status_details", "return_code", "hardware_profile", "run_name",
    "created_at", "job_start", "job_end", "timeout", "billed",
)  # fmt: skip


def add_arguments(parser: Parser) -> None:
    parser.add_argument("id", nargs="?", help=RUN_ID)


def run(call: Call) -> Says | Table:
    if call.options.id is not None:
        return _record(workspace().attach(call.options.id))
    account = config.find_account()
    if account is None:
        where = (
            "the embedded server of this machine (LOCAL); set LYCEUM_API_KEY or use "
            "`%lyceum login` for the cloud"
        )
    else:
        where = f"{account.base_url} (key from {account.source})"
        # Raises what would keep a cell from running.
        workspace().ask(workspace().client("cloud").machine_types)
    unfinished = workspace().runs.as_now(workspace().history.unfinished())
    active = sum(not entry.is_final for entry in unfinished)
    said = (
        f"Cells run on {where}.\n{active} active run{'' if active == 1 else 's'}; "
        "%lyceum list --all shows them."
    )
    return Says("\n".join(filter(None, [said, _spent(workspace().history.paid())])))


def _spent(mine: list[Entry]) -> str:
    """Say what the runs of this notebook have cost; nothing if they were free."""
    now = time.time()
    costs = [cost for entry in mine if (cost := entry.cost(now)) is not None]
    if not costs:
        return ""
    is_billed = all(entry.billed is not None for entry in mine if entry.cost(now) is not None)
    total = money.spent(sum(costs), is_billed=is_billed)
    return f"This notebook has spent {total} on {len(costs)} run{'' if len(costs) == 1 else 's'}."


def _record(run: Run) -> Table:
    record = run.record()
    rows = [(name, record[name]) for name in _MEMBERS if record.get(name) not in (None, "")]
    if (cost := run.cost) is not None:
        rows.append(("cost", money.spent(cost, is_billed=run.billed is not None)))
    rows += [("error", text) for text in record.get("system_errors") or ()]
    return Table(["", ""], rows)
