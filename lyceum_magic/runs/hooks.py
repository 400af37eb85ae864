"""The user's functions that are called when a run has ended, at a safe moment."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from .moments import OriginCell, SafeMoments


class Run(Protocol):
    """The part of a run that this module uses; the functions are given the whole run."""

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
        """Stop calling it; no error if it is off already."""
        self._hooks.remove(self)

    def call(self, run: Run) -> None:
        """Call the function; an exception is shown in the function's cell, and goes no further."""
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
    """The hooks of one process, and the ended runs that they are still to be called with."""

    def __init__(self) -> None:
        self._hooks: dict[Hashable, Hook] = {}
        self._due: deque[tuple[Hashable, Run]] = deque()
        self._moments = SafeMoments(self.run_due)
        self._is_running = False

    def add(self, function: HookFunction) -> Hook:
        """Call a function with every run that ends from now on.

        It replaces an earlier function of the same name, so that a cell can be run again.

        Raises:
            TypeError: it is no function, or an `async def`.
        """
        if isinstance(function, Hook):
            function = function.function
        if not callable(function):
            raise TypeError(f"on_finish takes a function of one run, not {function!r:.80}")
        call = getattr(function, "__call__", None)  # noqa: B004 - of an object's class
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
            raise TypeError(
                "on_finish takes a plain function of one run, not an `async def`: it is not awaited"
            )
        self._moments.watch()
        key = _key_of(function)
        hook = self._hooks[key] = Hook(self, key, function)
        return hook

    def remove(self, hook: Hook) -> None:
        """Stop calling a hook."""
        if self._hooks.get(hook.key) is hook:
            del self._hooks[hook.key]

    def note(self, run: Run) -> None:
        """Note that a run has ended; from any thread."""
        keys = list(self._hooks)
        self._due.extend((key, run) for key in keys)
        if keys:
            self._moments.ring()

    def forget_due(self) -> None:
        """Forget the ended runs, which in a forked child are the parent's."""
        self._due.clear()
        self._is_running = False

    def script_waits(self) -> None:
        """Call the hooks that are due if a script waits; see `SafeMoments.script_waits`."""
        self._moments.script_waits()

    def run_due(self) -> None:
        """Call the hooks with the runs that have ended; on the main thread."""
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
    """Return what a function shares with its next version, when its cell is run again."""
    name = getattr(function, "__qualname__", None)
    if name is None:
        return id(function)
    code = getattr(function, "__code__", None)
    if code is not None and "<lambda>" in name:
        return code.co_filename, code.co_firstlineno, name
    return getattr(function, "__module__", None), name
