"""`%lyceum listen`: an address for callbacks from outside; a table shows those that arrive."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from html import escape

from ... import config
from ...display.faces import is_notebook
from ...display.slot import Slot
from ...display.tables import Table
from ...exceptions import LyceumError, UnknownRun
from ...protocol.lines import one_line
from ...protocol.redaction import origin_of
from ...runs.workspace import Workspace, workspace
from . import Call

logger = logging.getLogger(__name__)

#: Maximum of arrivals that are shown, the newest.
SHOWN = 20
#: Maximum of characters of a run's name, which the sender has chosen.
_NAME_CHARACTERS = 40

_HEAD = ["arrived", "run", "name", "it says", "the server says"]


def run(call: Call) -> None:
    show(call.defaults.callback_base_url)


def show(base_url: str) -> None:
    """Show the address in the present cell, and from now on what arrives there.

    Args:
        base_url: this Jupyter's public https address, if it is set; see `inbox.public_base`.

    Raises:
        LyceumError: callbacks cannot arrive here.
    """
    address, base = workspace().inbox.listening_address(base_url)
    _listening(workspace()).show(address, _reach(base))


def _reach(base: str | None) -> str:
    if base is not None:
        return f"Programs reach it from wherever they reach {origin_of(base)}."
    return (
        "Only programs on this machine reach it; for others, set c.LyceumMagics.callback_base_url "
        "to this Jupyter's public https address."
    )


class _Listening:
    """The callbacks that have arrived for this process, and the newest cell that shows them."""

    def __init__(self, current: Workspace) -> None:
        self._queue = current.inbox.listen()
        self._rows: deque[tuple[str, ...]] = deque(maxlen=SHOWN)
        self._count = 0
        self._slot: Slot | None = None
        self._address = self._reach = ""
        self._turn = threading.Lock()
        threading.Thread(target=self._follow, name="lyceum listen", daemon=True).start()

    def show(self, address: str, reach: str) -> None:
        with self._turn:
            self._address, self._reach = address, reach
            if not is_notebook():
                sys.stdout.write(f"{self._text()}\n")
                return
            self._slot = Slot()
            self._slot.reserve()
            self._slot.fill(self._bundle())

    def _follow(self) -> None:
        while (arrival := self._queue.get()) is not None:
            event = arrival.event
            try:
                self._add(
                    time.strftime("%H:%M:%S", time.localtime(arrival.received_at)),
                    (event.run_id or "")[:8],
                    one_line(event.name or "", _NAME_CHARACTERS),
                    event.state.value if event.state else "",
                    _by_server(event.run_id or ""),
                )
            except Exception:  # the top of a thread; later arrivals are still shown
                logger.exception("a callback that arrived cannot be shown")

    def _add(self, *row: str) -> None:
        with self._turn:
            self._rows.append(row)
            self._count += 1
            if self._slot is not None:
                self._slot.fill(self._bundle())
            else:
                said = f"it says {row[3] or 'nothing'}, the server says {row[4]}"
                said = one_line(f"callback of run {row[1]} at {row[0]}: {said}")
                sys.stdout.write(f"{said}\n")

    def _table(self) -> Table:
        return Table(_HEAD, list(self._rows), empty="No callback has come yet.")

    def _more(self) -> str:
        earlier = self._count - len(self._rows)
        return f"{earlier} earlier ones are not shown." if earlier else ""

    def _text(self) -> str:
        table = repr(self._table())
        return "\n".join(filter(None, [self._address, self._says(), table, self._more()]))

    def _says(self) -> str:
        return (
            "It takes callbacks (POST) until this kernel ends. Everyone who has it can send to it, "
            f"so treat it like a password. {self._reach}"
        )

    def _bundle(self) -> dict[str, str]:
        table = self._table()
        shown = table._repr_html_() or f"<p>{escape(repr(table))}</p>"
        style = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0;padding:0"
        html = (
            f'<pre style="{style}">{escape(self._address)}</pre>'
            f"<p>{escape(self._says())}</p>{shown}"
        )
        if more := self._more():
            html += f"<p>{escape(more)}</p>"
        return {"text/html": html, "text/plain": self._text()}


def _by_server(run_id: str) -> str:
    """Return a run's state according to the server; the callback itself could be anyone's."""
    current = workspace()
    try:
        entry = current.history.find(run_id)
        if entry.run_id != run_id:
            raise UnknownRun("another run, whose id begins like this one")
        client = current.accounts.client_of(entry)
    except UnknownRun:
        account = config.find_account()
        found = (
            current.accounts.embedded_if_running() if account is None else current.client("cloud")
        )
        if found is None:
            return "unknown run"
        client = found
    except LyceumError as exc:
        return f"cannot be asked ({type(exc).__name__})"
    try:
        return str(current.ask(client.record, run_id).get("status"))
    except LyceumError as exc:
        is_unknown = getattr(exc, "status_code", None) == 404
        return "unknown run" if is_unknown else f"cannot be asked ({type(exc).__name__})"


def _listening(current: Workspace) -> _Listening:
    if not isinstance(current.listening, _Listening):
        current.listening = _Listening(current)
    return current.listening
