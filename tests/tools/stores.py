"""A store whose calls a test counts, delays or makes fail."""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from lyceum_magic.server.stores.base import StoreUnavailable
from lyceum_magic.server.stores.memory import MemoryStore

from .waiting import Tally

#: Coroutine function that is called with the arguments of a method's call.
Hook = Callable[..., Awaitable[None]]


class FaultyStore(MemoryStore):
    """A store in memory whose methods a test can watch, hold up and make fail, each by its name.

    Attributes:
        asked: how many calls of a method have begun.
        done: how many of them have ended without an error.
        before, after: what a call awaits before and after its work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: defaultdict[str, Tally] = defaultdict(Tally)
        self.done: defaultdict[str, Tally] = defaultdict(Tally)
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self._errors: dict[str, tuple[Exception, bool]] = {}

    def fail(
        self, *methods: str, error: Exception | None = None, after_the_work: bool = False
    ) -> None:
        """Make methods raise from now on, instead of their work or after it."""
        error = error or StoreUnavailable("the disk is full")
        self._errors.update(dict.fromkeys(methods, (error, after_the_work)))

    def mend(self) -> None:
        """Make no method raise any more."""
        self._errors.clear()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not inspect.iscoroutinefunction(found):
            return found
        return partial(self._call, name, found)

    async def _call(self, name: str, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.asked[name].add()
        await asyncio.sleep(0)  # as with a disk, others may come in between
        if hook := self.before.get(name):
            await hook(*args, **options)
        error, is_late = self._errors.get(name, (None, False))
        if error is not None and not is_late:
            raise error
        answer = await method(*args, **options)
        if hook := self.after.get(name):
            await hook(*args, **options)
        if error is not None:
            raise error
        self.done[name].add()
        return answer
