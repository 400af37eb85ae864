"""`%lyceum callbacks [ID]|test|redeliver|rm|secret`: deliveries, and the secret that signs them."""

from __future__ import annotations

import functools
import time
from datetime import datetime
from itertools import count

from ...client.callbacks import MAX_PAGE, Callbacks
from ...display.summary import duration
from ...display.tables import Says, Table
from ...exceptions import OptionError, UnknownRun
from ...protocol.callbacks import AttemptRecord, DeliveryDetails, DeliveryRecord, DeliveryState
from ...runs.workspace import workspace
from ...submission.callback_urls import check_callback_urls
from ..parsing import Parser
from . import RUN_ID, Call

#: The beginning of every delivery's id; no run's id begins like this.
ID_PREFIX = "msg_"
#: Minimum of characters that are shown of an id; more, if they are not unique.
_SHOWN = len(ID_PREFIX) + 8
#: Maximum of deliveries that are shown, the newest.
_NEWEST = 100


def add_arguments(parser: Parser) -> None:
    add_action = parser.subcommand_adder(title="actions", dest="action", metavar="ACTION")
    parser.default = "list"
    add_action("list", "all deliveries, those of a run, or one with its attempts").add_argument(
        "id", metavar="ID", nargs="?", help=f"{RUN_ID}; or a delivery"
    )
    add_action("test", "send a test callback").add_argument("url", metavar="URL")
    add_action("redeliver", "send again what was not delivered").add_argument(
        "id", metavar="ID", help=f"a delivery; or {RUN_ID}"
    )
    add_action("rm", "remove a delivery, or those of a run that were given up").add_argument(
        "id", metavar="ID", help=f"a delivery; or {RUN_ID}"
    )
    secret = add_action("secret", "what callbacks are signed with")
    secret.add_argument("--show", action="store_true", help="print it whole, into the notebook")
    secret.add_argument("--rotate", action="store_true", help="change it; both sign for a day")


def run(call: Call) -> Says | Table:
    options = call.options
    match options.action:
        case "test":
            return _test(options.url)
        case "redeliver":
            return _redeliver(options.id)
        case "rm":
            return _remove(options.id)
        case "secret":
            return _secret(is_shown=options.show, rotate=options.rotate)
    return _list(options.id)


def _list(named: str | None) -> Table:
    if named is None:
        callbacks = workspace().client().callbacks
        newest = workspace().ask(functools.partial(callbacks.deliveries, limit=_NEWEST))
        return _table(newest, "no callbacks yet; `--callback URL` after %%lyceum asks for one")
    callbacks, found = _chosen(named)
    if not _is_delivery(named):
        return _table(found, "this run has no callbacks, or has not ended")
    return _attempts(workspace().ask(callbacks.delivery, found[0]["delivery_id"]))


# The meaning of an ID.


def _is_delivery(named: str) -> bool:
    return named.startswith(ID_PREFIX)


def _chosen(named: str) -> tuple[Callbacks, list[DeliveryRecord]]:
    """Return the deliveries that an ID names, one or all of a run, and the client that has them."""
    if "/" in named:  # not quoted: a URL may hold a secret
        raise OptionError(
            "The ID of a run or of a delivery (msg_...) is expected here; try a URL with "
            "`%lyceum callbacks test URL`."
        )
    if _is_delivery(named):
        callbacks = workspace().client().callbacks
        return callbacks, [_delivery(callbacks, named)]
    try:
        entry = workspace().history.find(named)
    except UnknownRun:
        callbacks = workspace().client().callbacks
        return callbacks, _of_a_run(callbacks, named)
    if entry.run_id is None:
        raise UnknownRun("The start of that run was not answered, so its callbacks are not known.")
    callbacks = workspace().accounts.client_of(entry).callbacks
    ask = functools.partial(callbacks.deliveries, entry.run_id, limit=MAX_PAGE)
    return callbacks, workspace().ask(ask)


def _delivery(callbacks: Callbacks, named: str) -> DeliveryRecord:
    found = [item for item in _all(callbacks) if item["delivery_id"].startswith(named)]
    exact = [item for item in found if item["delivery_id"] == named]
    if exact or len(found) == 1:
        return (exact or found)[0]
    if found:
        raise OptionError(f"More than one delivery begins with {named!r}: give more of the id.")
    raise OptionError(f"No delivery begins with {named!r}; `%lyceum callbacks` lists them.")


def _of_a_run(callbacks: Callbacks, named: str) -> list[DeliveryRecord]:
    """Return the deliveries of a run that is not in this user's journal."""
    found = [item for item in _all(callbacks) if (item["execution_id"] or "").startswith(named)]
    if len({item["execution_id"] for item in found}) == 1:
        return found
    raise UnknownRun(
        f"More than one run begins with {named!r}: give more of the id."
        if found
        else f"No run begins with {named!r}; `%lyceum callbacks` lists those with callbacks."
    )


def _all(callbacks: Callbacks) -> list[DeliveryRecord]:
    found: list[DeliveryRecord] = []
    while True:
        ask = functools.partial(callbacks.deliveries, limit=MAX_PAGE, offset=len(found))
        page = workspace().ask(ask)
        found += page
        if len(page) < MAX_PAGE:
            return found


# Tables.


def _table(found: list[DeliveryRecord], empty: str) -> Table:
    shown = _shown_length([item["delivery_id"] for item in found])
    now = time.time()
    rows: list[tuple[object, ...]] = [
        (
            item["delivery_id"][:shown],
            _run_of(item),
            item["url"],
            item["state"],
            item["attempts"],
            item["error"],
            until(item["next_attempt_at"], now),
        )
        for item in found
    ]
    if len(found) == _NEWEST:
        rows.append(("… and older ones; name a run", "", "", "", "", "", ""))
    head = ["delivery", "run", "to", "state", "attempts", "reason", "next try"]
    return Table(head, rows, empty=empty)


def _attempts(delivery: DeliveryDetails) -> Table:
    rows = [
        (
            attempt["number"],
            attempt["started_at"][:19],
            attempt["address"] or "",
            attempt["error"] or f"took it ({attempt['status_code']})",
            _took(attempt),
            (attempt["next_attempt_at"] or "")[:19],
        )
        for attempt in delivery["log"]
    ]
    run = f"run {_run_of(delivery)}" if delivery["execution_id"] else "a test"
    title = " · ".join([delivery["delivery_id"], run, delivery["url"], delivery["state"]])
    head = ["attempt", "at", "address", "answer", "took", "next try"]
    return Table(head, rows, title=title, empty="not tried yet")


def _shown_length(ids: list[str]) -> int:
    """Return how many characters are enough to tell these ids apart."""
    different = set(ids)
    return next(
        n for n in count(_SHOWN) if len({known[:n] for known in different}) == len(different)
    )


def _run_of(delivery: DeliveryRecord) -> str:
    return (delivery["execution_id"] or "a test")[:8]


def _took(attempt: AttemptRecord) -> str:
    return f"{attempt['took_ms']:.0f} ms"


def until(moment: str | None, now: float) -> str:
    """Say how long it is until a time of the wire; nothing if there is none."""
    try:
        left_s = datetime.fromisoformat(moment).timestamp() - now if moment else None
    except ValueError:
        return moment or ""
    if left_s is None:
        return ""
    return f"in {duration(left_s)}" if left_s > 0 else "now"


# Actions.


def _test(url: str) -> Says:
    check_callback_urls([url])
    delivery = workspace().ask(workspace().client().callbacks.test, url)
    if not delivery["log"]:
        return Says(f"{delivery['url']} has not been tried yet; {_see(_short(delivery))}.")
    attempt = delivery["log"][-1]
    facts = ", ".join(filter(None, [_took(attempt), attempt["address"]]))
    if not attempt["error"]:
        answer = f"answered {attempt['status_code']} ({facts})"
        return Says(f"{delivery['url']} took the test callback: it {answer}.")
    said = f"The test callback was not taken: {attempt['error'].rstrip('.')} ({facts})."
    if delivery["next_attempt_at"]:
        said += f" It is tried again {until(delivery['next_attempt_at'], time.time())}; "
        said += f"{_see(_short(delivery))}."
    return Says(said)


def _redeliver(named: str) -> Says:
    callbacks, found = _chosen(named)
    if not _is_delivery(named):
        found = [item for item in found if item["state"] != DeliveryState.DELIVERED]
    if not found:
        return Says(
            "No callback of this run is left to be sent; to send one again, give its own id."
        )
    for item in found:
        workspace().ask(callbacks.redeliver, item["delivery_id"])
    if len(found) == 1:
        return Says(
            f"The callback to {found[0]['url']} is sent again now; {_see(_short(found[0]))}."
        )
    return Says(f"{len(found)} callbacks are sent again now; {_see(named)}.")


def _remove(named: str) -> Says:
    callbacks, found = _chosen(named)
    if not _is_delivery(named):
        found = [item for item in found if item["state"] == DeliveryState.DEAD]
    if not found:
        return Says("No callback of this run was given up; to remove one, give its own id.")
    for item in found:
        workspace().ask(callbacks.remove, item["delivery_id"])
    if len(found) > 1:
        return Says(f"{len(found)} callbacks that were given up are removed.")
    said = f"The callback to {found[0]['url']} is removed"
    if found[0]["state"] == DeliveryState.PENDING:
        said += ": it is tried no more, but a try that is under way may still arrive"
    return Says(f"{said}.")


def _short(delivery: DeliveryRecord) -> str:
    return delivery["delivery_id"][:_SHOWN]


def _see(named: str) -> str:
    return f"`%lyceum callbacks {named}` shows what comes of it"


def _secret(*, is_shown: bool, rotate: bool) -> Says:
    callbacks = workspace().client().callbacks
    ask = callbacks.rotate_signing_secret if rotate else callbacks.signing_secret
    signing = workspace().ask(ask)
    value = signing.secret.reveal()
    lines = [
        f"{value if is_shown else f'whsec_…{value[-4:]}'} signs the callbacks of this account."
    ]
    if signing.earlier_until:
        lines.append(
            f"The one before it signs beside it until {signing.earlier_until[:19]}: "
            "give every receiver the new one by then."
        )
    if not is_shown:
        lines.append(
            "`lyceum_magic.signing_secret()` gives it to a receiver and not to the notebook; "
            "--show prints it here, where the notebook saves it; --rotate changes it."
        )
    return Says("\n".join(lines))
