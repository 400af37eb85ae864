"""Imported by the notebooks of these tests: a run without a server, and the loop of its cell."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lyceum_magic.display.strip import Strip
from lyceum_magic.display.summary import RunFacts
from lyceum_magic.display.text import TextFeed
from lyceum_magic.protocol.events import Event, Finished, Output, Progress
from lyceum_magic.protocol.states import State

RUN_ID = "3f2a9c1e-0000-4000-8000-000000000000"
FACTS = RunFacts(RUN_ID, State.PENDING, "gpu.a100", name="train resnet", is_local=True)
STOP = object()


def wait_for(file: str) -> None:
    """Block until the test has made `file`."""
    while not Path(file).exists():
        time.sleep(0.01)


def run_cell(story: Callable[[], Iterator[Event]], facts: RunFacts = FACTS) -> None:
    """Block like a cell of the magic: a thread tells the story, this one publishes it."""
    events: queue.SimpleQueue[Event | object] = queue.SimpleQueue()
    started = time.monotonic()

    def tell() -> None:
        for event in story():
            events.put(event)

    def now(**changes: object) -> RunFacts:
        return replace(facts, elapsed_s=time.monotonic() - started, **changes)  # type: ignore[arg-type]

    strip = Strip(lambda: events.put(STOP))
    feed = TextFeed(RUN_ID)
    strip.open(facts)
    threading.Thread(target=tell, daemon=True).start()
    try:
        while not facts.state.is_final:
            waits = [wait for wait in (strip.due_in_s(), feed.due_in_s()) if wait is not None]
            try:
                event = events.get(timeout=min(waits, default=None))
            except queue.Empty:
                event = None
            match event:
                case Output():
                    feed.add(event)
                case Progress(state, detail):
                    facts = now(state=state, detail=detail)
                    strip.update(facts)
                case Finished():
                    facts = now(
                        state=event.final_state, detail=event.error, return_code=event.return_code
                    )
            if event is STOP:
                facts = now(state=State.ABORTED, detail="stopped by a message")
            if strip.due_in_s() == 0:
                strip.publish()
            if feed.due_in_s() == 0:
                feed.publish()
    except KeyboardInterrupt:
        facts = now(state=State.ABORTED, detail="interrupted")
    finally:
        feed.close()
        strip.close(facts)


def show(**changes: object) -> None:
    """Show one moment of a run."""
    facts = replace(FACTS, **changes)  # type: ignore[arg-type]
    strip = Strip(lambda: None)
    strip.open(facts)
    if facts.state.is_final:
        strip.close(facts)
    else:
        strip.publish()
    print("epoch 1")
