"""`%lyceum callbacks [ID]|test|redeliver|rm|secret`: what became of callbacks, what signs them."""

from __future__ import annotations

import argparse
import functools
import time
from datetime import datetime
from itertools import count

from ..client.callbacks import MAX_PAGE, Callbacks
from ..display.summary import duration
from ..exceptions import OptionError, UnknownRun
from ..protocol.callbacks import AttemptRecord, DeliveryDetails, DeliveryRecord, DeliveryState
from ..runs.workspace import workspace
from ..submission.callback_urls import check_callback_urls
from .tables import Says, Table

#: Every delivery's id begins so, and no run's does.
ID_PREFIX = "msg_"
#: More of an id is shown only where this much is not unique.
_SHOWN = len(ID_PREFIX) + 8
#: How many deliveries a table of all of them has.
_NEWEST = 100


def run_callbacks(parsed: argparse.Namespace) -> object:
    """What a subcommand of `callbacks` answers.

    Raises:
        OptionError: an id that no delivery has, or several, or a URL that no callback may go to.
        UnknownRun: an id that no run has, or several.
        LyceumError: what the server says; the cloud keeps no log.
    """
    match parsed.action:
        case "test":
            return _test(parsed.url)
        case "redeliver":
            return _redeliver(parsed.id)
        case "rm":
            return _remove(parsed.id)
        case "secret":
            return _secret(is_shown=parsed.show, rotate=parsed.rotate)
    if parsed.id is None:
        callbacks = workspace().client().callbacks
        newest = workspace().ask(functools.partial(callbacks.deliveries, limit=_NEWEST))
        return _table(newest, "no callbacks yet; `--callback URL` behind %%lyceum asks for one")
    callbacks, found = _chosen(parsed.id)
    if not _is_delivery(parsed.id):
        return _table(found, "this run has no callbacks, or has not ended")
    return _attempts(workspace().ask(callbacks.delivery, found[0]["delivery_id"]))


# What an ID means.


def _is_delivery(named: str) -> bool:
    return named.startswith(ID_PREFIX)


def _chosen(named: str) -> tuple[Callbacks, list[DeliveryRecord]]:
    """The deliveries that an ID means, one by its own or all of a run, and whom to ask for them."""
    here = workspace()
    if "/" in named:  # not quoted: a URL may hold a secret
        raise OptionError(
            "The ID of a run or of a delivery (msg_...) is expected here; a URL is tried by "
            "`%lyceum callbacks test URL`."
        )
    if _is_delivery(named):
        callbacks = here.client().callbacks
        return callbacks, [_delivery(callbacks, named)]
    try:
        entry = here.history.find(named)
    except UnknownRun:
        callbacks = here.client().callbacks
        return callbacks, _of_a_run(callbacks, named)
    if entry.run_id is None:
        raise UnknownRun("The start of that run was not answered, so nobody knows its callbacks.")
    callbacks = here.accounts.client_of(entry).callbacks
    ask = functools.partial(callbacks.deliveries, entry.run_id, limit=MAX_PAGE)
    return callbacks, here.ask(ask)


def _delivery(callbacks: Callbacks, named: str) -> DeliveryRecord:
    found = [item for item in _all(callbacks) if item["delivery_id"].startswith(named)]
    exact = [item for item in found if item["delivery_id"] == named]
    if exact or len(found) == 1:
        return (exact or found)[0]
    if found:
        raise OptionError(f"More than one delivery begins with {named!r}: give more of the id.")
    raise OptionError(f"No delivery begins with {named!r}; `%lyceum callbacks` lists them.")


def _of_a_run(callbacks: Callbacks, named: str) -> list[DeliveryRecord]:
    """The deliveries of a run that this user's journal does not have: forgotten, or another's."""
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


# What is shown.


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
    """How many characters tell these ids apart, and can be typed in their place."""
    different = set(ids)
    return next(
        n for n in count(_SHOWN) if len({known[:n] for known in different}) == len(different)
    )


def _run_of(delivery: DeliveryRecord) -> str:
    return (delivery["execution_id"] or "a test")[:8]


def _took(attempt: AttemptRecord) -> str:
    return f"{attempt['took_ms']:.0f} ms"


def until(moment: str | None, now: float) -> str:
    """How long it is until a time of the wire, in words; empty where there is none."""
    try:
        left_s = datetime.fromisoformat(moment).timestamp() - now if moment else None
    except ValueError:
        return moment or ""
    if left_s is None:
        return ""
    return f"in {duration(left_s)}" if left_s > 0 else "now"


# What is done.


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
        return Says("No callback of this run is left to be sent; one alone goes by its own id.")
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
        return Says("No callback of this run was given up; one alone is removed by its own id.")
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
