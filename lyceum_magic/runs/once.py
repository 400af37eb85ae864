"""Values that are made once, however many threads ask for one at the same time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Once(Generic[K, V]):
    """Key -> value. The first thread that asks makes the value; the others wait for it.

    No lock outlives a call: one that is made when a module is imported may be older than gevent's
    patches, and one that another thread holds stays locked for ever in a forked child.
    """

    def __init__(self) -> None:
        self._values: dict[K, Future[V]] = {}

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of a key, made by `make` if there is none.

        Raises:
            BaseException: what `make` raised in this thread. The next one to ask tries again.
        """
        while True:
            mine: Future[V] = Future()
            found = self._values.setdefault(key, mine)  # atomic, as long as keys compare in C
            if found is mine:
                try:
                    mine.set_result(make())
                except BaseException:
                    del self._values[key]
                    mine.cancel()
                    raise
            try:
                return found.result()
            except CancelledError:
                continue  # another thread failed to make it: try here

    def made(self) -> list[V]:
        """Return the values that exist by now."""
        values = list(self._values.values())
        return [value.result() for value in values if value.done() and not value.cancelled()]
