"""`%lyceum listen`: an address for systems outside, and what comes in there, shown as it comes."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from html import escape

from .. import config
from ..display.faces import is_notebook
from ..display.slot import Slot
from ..exceptions import LyceumError, UnknownRun
from ..protocol.lines import one_line
from ..protocol.redaction import origin_of
from ..runs.workspace import Workspace, workspace
from .tables import Table

logger = logging.getLogger(__name__)

#: So many arrivals are shown, the last ones.
SHOWN = 20
#: The first characters of a name that a sender has chosen.
_NAME_CHARACTERS = 40

_HEAD = ["arrived", "run", "name", "it says", "the server says"]


def listen(setting: str) -> None:
    """Shows the address in the present cell, and from now on what comes in there.

    Args:
        setting: see `inbox.public_base`.

    Raises:
        LyceumError: nothing can come in.
    """
    here = workspace()
    address, base = here.inbox.listening_address(setting)
    _listening(here).show(address, _reach(base))


def _reach(base: str | None) -> str:
    if base is not None:
        return f"It is reached from wherever {origin_of(base)} is."
    return (
        "Only programs on this machine reach it; for others, c.LyceumMagics.callback_base_url is "
        "to name this Jupyter's public https address."
    )


class _Listening:
    """What has come in for one process, and the cell that shows it: the last that asked."""

    def __init__(self, here: Workspace) -> None:
        self._queue = here.inbox.listen()
        self._rows: deque[tuple[str, ...]] = deque(maxlen=SHOWN)
        self._count = 0
        self._slot: Slot | None = None
        self._address = self._reach = ""
        self._turn = threading.Lock()
        threading.Thread(target=self._go_on, name="lyceum listen", daemon=True).start()

    def show(self, address: str, reach: str) -> None:
        with self._turn:
            self._address, self._reach = address, reach
            if not is_notebook():
                sys.stdout.write(f"{self._text()}\n")
                return
            self._slot = Slot()
            self._slot.reserve()
            self._slot.fill(self._bundle())

    def _go_on(self) -> None:
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
            except Exception:  # the top of a thread: the others are shown
                logger.exception("a callback that came in cannot be shown")

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
            "It takes callbacks (POST) until this kernel ends. Whoever has it can send, so give it "
            f"away like a password. {self._reach}"
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
    """The state of a run as the server knows it: a callback is a hint, which anybody could send."""
    here = workspace()
    try:
        entry = here.history.find(run_id)
        if entry.run_id != run_id:
            raise UnknownRun("another run, whose id begins so")
        client = here.accounts.client_of(entry)
    except UnknownRun:
        account = config.find_account()
        found = here.accounts.embedded_if_running() if account is None else here.client("cloud")
        if found is None:
            return "unknown run"
        client = found
    except LyceumError as exc:
        return f"cannot be asked ({type(exc).__name__})"
    try:
        return str(here.ask(client.record, run_id).get("status"))
    except LyceumError as exc:
        is_unknown = getattr(exc, "status_code", None) == 404
        return "unknown run" if is_unknown else f"cannot be asked ({type(exc).__name__})"


def _listening(here: Workspace) -> _Listening:
    if not isinstance(here.listening, _Listening):
        here.listening = _Listening(here)
    return here.listening
