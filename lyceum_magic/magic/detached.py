"""A run that goes on after its cell: `--detach`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

from ..display.faces import is_attended, is_notebook
from ..display.panel import Panel
from ..display.strip import Strip
from ..display.summary import to_text
from ..outputs.decoding import Decoded
from ..protocol.requests import Start
from ..runs.backlog import Backlog
from ..runs.run import Run
from .view import View, facts_of

#: Seconds that the end of a cell may wait for the last outputs of a run that has ended.
SHOWN_S = 2.0


def detach_in_cell(run: Run, request: Start) -> None:
    """Start a run and return; its outputs go on arriving under the cell.

    A terminal cannot show them there: one line says how to see them.

    Raises:
        KeyboardInterrupt: interrupted before the server had accepted the run, which is aborted.
        LyceumError: it could not be started.
    """
    if not is_notebook():
        run.begin(request)
        run.wait_started()
        sys.stdout.write(f"{to_text(facts_of(run, is_detached=True))}\n")
        return
    strip = Strip(lambda: run.request_interrupt("stopped by its Stop button"))
    panel = Panel(lambda: run.id, is_attended=is_attended())
    view = View(run, strip, panel, is_detached=True, says_raised=True)
    view.open()
    panel.reserve()
    before, backlog = run.watch()
    try:
        run.begin(request)
        run.wait_started()
        strip.update(view.facts())
        strip.publish()
        panel.promise()
        # A daemon: the kernel may end while the run goes on; `attach` shows the rest.
        thread = threading.Thread(
            target=_go_on, args=(view, before, backlog), name=f"lyceum {run.id[:8]}", daemon=True
        )
        thread.start()
    except BaseException:
        backlog.close()
        view.close()
        raise

    def show_again() -> None:
        thread.join(SHOWN_S)
        strip.close(view.facts())
        panel.refill()

    _after_next_cell(run, show_again)


def _after_next_cell(run: Run, action: Callable[[], None]) -> None:
    """Call `action` once, at the end of the first cell that ends after the run.

    nbclient ends the kernel after the last cell, and drops outputs that come between two cells.
    """
    from IPython import get_ipython

    events = get_ipython().events

    def finish(_result: object) -> None:
        if run.state.is_final:
            events.unregister("post_run_cell", finish)
            action()

    events.register("post_run_cell", finish)


def _go_on(view: View, before: Iterator[Decoded], backlog: Backlog) -> None:
    with closing(backlog):
        for output in before:
            view.take(output)
        while not backlog.is_drained:
            for item in backlog.get(view.due_in_s()):
                view.take(item)
            view.publish_due()
    view.close()
