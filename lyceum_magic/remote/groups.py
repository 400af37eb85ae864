"""Names whose pickles share objects -> groups that are pickled together, in an order to restore."""

from __future__ import annotations

import graphlib
import re
import types

from .rebuilding import MAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

#: Types of which a program cannot tell one object from two equal ones.
_ATOMS = frozenset(
    {bool, bytes, complex, float, int, range, slice, str, type(None), tuple, frozenset, type(...)}
    | {types.BuiltinFunctionType, types.CodeType, types.ModuleType, type(NotImplemented)}
    | {re.Pattern, types.MethodDescriptorType, types.WrapperDescriptorType}
)
_ATOMIC_BASES = frozenset(
    {
        ("datetime", "date"), ("datetime", "time"), ("datetime", "timedelta"),
        ("datetime", "timezone"), ("decimal", "Decimal"), ("enum", "Enum"),
        ("fractions", "Fraction"), ("numpy", "dtype"), ("numpy", "generic"),
        ("pathlib", "PurePath"), ("uuid", "UUID"), ("zoneinfo", "ZoneInfo"), ("torch", "dtype"),
        ("torch", "device"), ("torch", "Size"), ("pyarrow.lib", "DataType"),
        ("pandas.core.dtypes.base", "ExtensionDtype"), ("logging", "Logger"),
    }
)  # fmt: skip


#: Type -> whether it is atomic.
_known: dict[type, bool] = {}


class Part:
    """The pickle of one name, or of a group.

    Attributes:
        memo: id -> (number, object) of all objects in it.
    """

    def __init__(self, names: list[str], content: bytes, pickler: Any) -> None:
        self.names = names
        self.content = content
        self.buffers: list[memoryview] = pickler.buffers
        self.ranges: list[tuple[int, int, bool]] = pickler.ranges
        self.needs: set[str] = pickler.needs
        self.uses: set[str] = pickler.uses
        self.packages: set[str] = pickler.packages
        self.has_code: bool = pickler.has_code
        self.has_cuda: bool = pickler.has_cuda
        self.memo: dict[int, tuple[int, Any]] = {}

    @property
    def size(self) -> int:
        return len(self.content) + sum(buffer.nbytes for buffer in self.buffers)


def is_atomic(kind: type) -> bool:
    """Return whether two equal objects of a type may stand for one."""
    if kind not in _known:
        bases = {(base.__module__, base.__qualname__) for base in kind.__mro__}
        _known[kind] = kind in _ATOMS or bool(bases & _ATOMIC_BASES)
    return _known[kind]


def _is_shareable(obj: Any, definitions: dict[int, str]) -> bool:
    kind = type(obj)
    if is_atomic(kind) or id(obj) in definitions:
        return False
    if isinstance(obj, type) or kind is types.FunctionType:
        return bool(obj.__module__ == MAIN)
    return True


class Joined:
    """Names in sets that grow together."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parents = {name: name for name in names}

    def of(self, name: str) -> str:
        while self._parents[name] != name:
            self._parents[name] = self._parents[self._parents[name]]
            name = self._parents[name]
        return name

    def join(self, one: str, other: str) -> None:
        self._parents[self.of(other)] = self.of(one)

    def sets(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._parents:
            found.setdefault(self.of(name), []).append(name)
        return found


def group(
    parts: dict[str, Part], definitions: dict[int, str]
) -> tuple[list[list[str]], list[tuple[int, int]]]:
    """Return names that share objects or memory together.

    Args:
        parts: name -> its pickle.
        definitions: ids of functions and classes that are pickled by name, where they are shared.

    Returns:
        Groups, in an order in which each needs only earlier ones; and the memory that several
        arrays share, as (address, end), in order.
    """
    joined = Joined(parts)
    seen: dict[int, str] = {}
    for name, part in parts.items():
        for shared in seen.keys() & part.memo.keys():
            if _is_shareable(part.memo[shared][1], definitions):
                joined.join(seen[shared], name)
        seen.update(dict.fromkeys(part.memo, name))
    regions = _shared_memory(parts, joined)
    return _in_order(parts, joined), regions


def _shared_memory(parts: dict[str, Part], joined: Joined) -> list[tuple[int, int]]:
    ranges = sorted(
        (start, end, name) for name, part in parts.items() for start, end, _ in part.ranges
    )
    found: list[tuple[int, int]] = []
    begin = until = count = 0
    first = ""
    for start, end, name in [*ranges, (1 << 70, 1 << 70, "")]:
        if start >= until:
            if count > 1:
                found.append((begin, until))
            begin, until, count, first = start, end, 1, name
            continue
        joined.join(first, name)
        count, until = count + 1, max(until, end)
    return found


def _in_order(parts: dict[str, Part], joined: Joined) -> list[list[str]]:
    while True:
        sets = joined.sets()
        needs = {
            first: {
                joined.of(need)
                for name in names
                for need in parts[name].needs
                if need in parts and joined.of(need) != first
            }
            for first, names in sets.items()
        }
        try:
            return [sets[first] for first in graphlib.TopologicalSorter(needs).static_order()]
        except graphlib.CycleError as exc:
            first, *others = exc.args[1]
            for other in others:
                joined.join(first, other)
