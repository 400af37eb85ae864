"""What the user wants to happen when a run has ended: functions, called at a safe moment."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from .moments import OriginCell, SafeMoments


class Run(Protocol):
    """What is known here of a run; the functions are given the whole of it."""

    @property
    def id(self) -> str: ...


HookFunction = Callable[[Any], object]


class Hook:
    """A function that is called with every run of this process that ends, until `off()`.

    It can still be called by its own name.
    """

    def __init__(self, hooks: Hooks, key: Hashable, function: HookFunction) -> None:
        self._hooks = hooks
        self._cell = OriginCell()
        self.key = key
        self.function = function
        self.__wrapped__ = function
        self.__doc__ = function.__doc__

    def __call__(self, run: Run) -> object:
        return self.function(run)

    def __repr__(self) -> str:
        return f"<on_finish {self.name}>"

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", None) or repr(self.function)

    def off(self) -> None:
        """It is not called any more; again is no error."""
        self._hooks.remove(self)

    def call(self, run: Run) -> None:
        """Calls the function; what it raises is shown in its own cell, and goes no further."""
        self._cell.call(lambda: self._call(run))

    def _call(self, run: Run) -> None:
        try:
            self.function(run)
        except (Exception, KeyboardInterrupt, SystemExit) as exc:  # noqa: BLE001 - the user's top
            # Without the frames of this package.
            trace = exc.__traceback__.tb_next if exc.__traceback__ else None
            lines = traceback.format_exception(type(exc), exc, trace)
            sys.stderr.write(f"{self.name}, called because run {run.id[:8]} has ended, raised\n")
            sys.stderr.write("".join(lines))


class Hooks:
    """The hooks of one process, and the runs that they have not been told of."""

    def __init__(self) -> None:
        self._hooks: dict[Hashable, Hook] = {}
        self._due: deque[tuple[Hashable, Run]] = deque()
        self._moments = SafeMoments(self.run_due)
        self._is_running = False

    def add(self, function: HookFunction) -> Hook:
        """Calls a function with every run that ends from now on, in place of an earlier one of
        the same name: a cell that is run again does not double it.

        Raises:
            TypeError: it is no function, or one that is to be awaited.
        """
        if isinstance(function, Hook):
            function = function.function
        if not callable(function):
            raise TypeError(f"on_finish takes a function of one run, not {function!r:.80}")
        call = getattr(function, "__call__", None)  # noqa: B004 - of an object's class
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
            raise TypeError(
                "on_finish takes a plain function of one run, for nobody would await an `async def`"
            )
        self._moments.watch()
        key = _key_of(function)
        hook = self._hooks[key] = Hook(self, key, function)
        return hook

    def remove(self, hook: Hook) -> None:
        if self._hooks.get(hook.key) is hook:
            del self._hooks[hook.key]

    def note(self, run: Run) -> None:
        """A run has ended; from any thread."""
        keys = list(self._hooks)
        self._due.extend((key, run) for key in keys)
        if keys:
            self._moments.ring()

    def forget_due(self) -> None:
        """Forget the runs that no hook was told of; in a forked child they are the parent's."""
        self._due.clear()
        self._is_running = False

    def script_waits(self) -> None:
        """See `SafeMoments`."""
        self._moments.script_waits()

    def run_due(self) -> None:
        """Calls the hooks with the runs that have ended; on the main thread."""
        if self._is_running:
            return  # a hook waits for a run of its own
        self._is_running = True
        try:
            while self._due:
                key, run = self._due.popleft()
                if (hook := self._hooks.get(key)) is not None:
                    hook.call(run)
        finally:
            self._is_running = False


def _key_of(function: HookFunction) -> Hashable:
    """What two functions have in common of which one was written in the place of the other."""
    name = getattr(function, "__qualname__", None)
    if name is None:
        return id(function)
    code = getattr(function, "__code__", None)
    if code is not None and "<lambda>" in name:
        return code.co_filename, code.co_firstlineno, name
    return getattr(function, "__module__", None), name
