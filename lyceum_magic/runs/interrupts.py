"""Interrupts that set a flag, where an exception between any two steps would lose text."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_interrupts(note: Callable[[], bool]) -> Iterator[None]:
    """Call `note` for every interrupt while the block runs.

    Args:
        note: called on the main thread between any two of its steps; it may set a flag or notify.
            If it returns True, the previous handler is called too: usually Python's, which raises
            KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        if note() and callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        # A block that began later, in another task, may not have ended yet; it restores us then.
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, before)
