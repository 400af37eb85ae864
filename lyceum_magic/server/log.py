"""The server's log: a repeated message is logged once, and then now and then as a count."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable

#: Seconds without an entry after which it is logged in full again.
FORGET_S = 600.0
#: Maximum number of different entries that are remembered.
_MOST = 500


class Repetitions(logging.Filter):
    """A filter that passes an entry the first time, then only the 10th, 100th... time, as a count.

    Two entries are the same if they report the same exception from the same line, or have the same
    text if they report none. Add it to a handler.

    Args:
        clock: Seconds of a clock that cannot be set.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._told: OrderedDict[object, tuple[int, float]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = _identity(record), self._clock()
        with self._lock:
            times, last = self._told.pop(key, (0, now))
            if now - last > FORGET_S:
                times = 0
            times += 1
            self._told[key] = times, now
            if len(self._told) > _MOST:
                self._told.popitem(last=False)
        if times == 1:
            return True
        if not _is_power_of_ten(times):
            return False
        text, _, _ = record.getMessage().partition("\n")
        record.msg, record.args = "%s (%d times so far)", (text, times)
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def _identity(record: logging.LogRecord) -> object:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return record.name, record.levelno, record.getMessage()
    # Not the text: asyncio's names objects, each with its own address.
    *_, place = [None, *traceback.walk_tb(error.__traceback__)]
    where = (place[0].f_code, place[1]) if place else None
    return record.name, record.levelno, type(error), str(error), where


def _is_power_of_ten(number: int) -> bool:
    return str(number).strip("0") == "1"
