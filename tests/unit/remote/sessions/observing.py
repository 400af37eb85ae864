"""A namespace -> a value that is the same for namespaces that a program cannot tell apart."""

from __future__ import annotations

import types
import zlib
from typing import Any

import numpy as np


def observe(namespace: dict[str, Any]) -> Any:
    """Return all values with their aliases: equal objects that are one have one number."""
    observer = _Observer(namespace)
    names = sorted(
        name
        for name in namespace
        if not name.startswith("__") and not isinstance(namespace[name], types.ModuleType)
    )
    values = [(name, observer.see(namespace[name])) for name in names]
    return [values, observer.memory()]


class _Observer:
    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._numbers: dict[int, int] = {}
        self._arrays: list[np.ndarray[Any, Any]] = []
        self._alive: list[Any] = []

    def see(self, value: Any) -> Any:
        if value is None or isinstance(value, int | str):
            return repr(value)
        if id(value) in self._numbers:
            return ["same", self._numbers[id(value)]]
        self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        return [type(value).__name__, *self._parts(value)]

    def _parts(self, value: Any) -> list[Any]:
        if isinstance(value, list | tuple):
            return [self.see(item) for item in value]
        if isinstance(value, dict):
            return [[key, self.see(item)] for key, item in value.items()]
        if isinstance(value, np.ndarray):
            self._arrays.append(value)
            return [list(value.shape), zlib.crc32(value.tobytes())]
        if isinstance(value, types.MethodType):
            return [self.see(value.__self__), self.see(value.__func__)]
        if isinstance(value, types.FunctionType):
            cells = value.__closure__ or ()
            contents = [[self.see(cell), self.see(cell.cell_contents)] for cell in cells]
            is_bound = value.__globals__ is self._namespace
            return [value.__qualname__, is_bound, contents, self.see(value.__dict__)]
        if isinstance(value, types.CellType):
            return []
        if isinstance(value, type):
            members = {
                name: member
                for name, member in vars(value).items()
                if not name.startswith("__") or name == "__doc__"
            }
            bases = [self.see(base) for base in value.__bases__ if base is not object]
            return [value.__qualname__, bases, self.see(dict(sorted(members.items())))]
        return [self.see(type(value)), self.see(vars(value))]

    def memory(self) -> list[list[int]]:
        """Return which arrays share memory."""
        arrays = self._arrays
        return [
            [one, other]
            for one in range(len(arrays))
            for other in range(one)
            if np.shares_memory(arrays[one], arrays[other])
        ]
