"""The namespace of a cell -> pickles in groups, and the reason for each name that is not kept."""

from __future__ import annotations

import gc
import io
import pickle
import re
import sys
import threading
import time
import types
import warnings

from .descriptions import a_type, describe
from .groups import Part, group, is_atomic
from .library_reducers import by_base, by_type
from .packs import Broken, TooMuch
from .rebuilding import MAIN, Place
from .reducers import Pickler, Refused, Surroundings
from .refusals import said
from .replayed import module_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

#: Names of a namespace that are no variables of the user.
NOT_KEPT = frozenset(
    {"In", "Out", "__getattr__", "_dh", "_ih", "_oh", "exit", "get_ipython", "quit"}
)

#: Bytes of the stack, and depth of calls, of the thread for values that nest deep.
_STACK_BYTES = 1 << 30
_DEEP = 400_000

_CANNOT = re.compile(r"cannot pickle '([^']+)' object")
_WORDS = {
    "_io.TextIOWrapper": "an open file",
    "async_generator": "an async generator",
    "builtin_function_or_method": "a function of a C library",
    "coroutine": "a coroutine that has not ended",
    "frame": "a frame",
    "traceback": "a traceback",
}


class SaveTimeout(BaseException):
    """The save takes longer than its limit."""


class _Limited(io.BytesIO):
    """A file in memory that takes a limited number of bytes."""

    def __init__(self, max_bytes: int, deadline: float) -> None:
        super().__init__()
        self._left = max_bytes
        self._deadline = deadline

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise TooMuch("it takes more memory as a pickle than the limit allows")
        if time.monotonic() > self._deadline:
            raise SaveTimeout
        return super().write(data)


class Saved:
    """The result of pickling a namespace.

    Attributes:
        parts: in the order of their restore.
        imports: name -> module, of names that are modules.
        variables: name -> its description for the manifest.
        lost: name -> the reason.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.imports: dict[str, str] = {}
        self.variables: dict[str, dict[str, Any]] = {}
        self.lost: dict[str, str] = {}


def is_kept(name: str) -> bool:
    return name not in NOT_KEPT and not (name.startswith("__") and name.endswith("__"))


def pickle_namespace(
    namespace: dict[str, Any], values: dict[str, Any], max_bytes: int, deadline: float
) -> Saved:
    """Pickle values of a namespace.

    Args:
        namespace: of the cell, the globals of its functions.
        values: the names to keep.
        max_bytes: maximum size of all pickles, without the buffers beside them.
        deadline: moment of time.monotonic().

    Raises:
        SaveTimeout: the deadline has passed.
    """
    saved = Saved()
    objects = {}
    for name, value in values.items():
        module = module_of(value)
        if module is not None:
            saved.imports[name] = module
        else:
            objects[name] = value
    around = Surroundings(namespace, objects, by_type(), by_base())
    around.deadline = deadline
    main, was_enabled = sys.modules[MAIN], gc.isenabled()
    gc.disable()
    # Nothing of the cell's is to be found by its name there.
    sys.modules[MAIN] = types.ModuleType(MAIN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _pickle_all(around, max_bytes, saved)
    finally:
        sys.modules[MAIN] = main
        around.close()
        if was_enabled:
            gc.enable()
    return saved


def _pickle_all(around: Surroundings, max_bytes: int, saved: Saved) -> None:
    parts: dict[str, Part] = {}
    left = max_bytes
    for name in around.values:
        part = _pickled(around, [name], left, saved.lost)
        if part is not None:
            left -= len(part.content)
            parts[name] = part
    groups, around.regions = group(parts, around.name_of)
    starts = around.regions
    for names in groups:
        part = parts[names[0]]
        if len(names) > 1 or (starts and _is_in(part, starts)):
            left += sum(len(parts[name].content) for name in names)
            together = _pickled(around, names, left, saved.lost)
            if together is None:
                continue
            left -= len(together.content)
            part = together
        saved.parts.append(part)
        for name in names:
            saved.variables[name] = describe(around.values[name], parts[name].size)
        for name in names:
            parts[name].memo = {}
    _drop_what_needs_lost(saved)


def _is_in(part: Part, regions: list[tuple[int, int]]) -> bool:
    return any(low <= start < high for start, _, _ in part.ranges for low, high in regions)


def _pickled(
    around: Surroundings, names: list[str], max_bytes: int, lost: dict[str, str]
) -> Part | None:
    """Return the pickle of some names; None if it fails, with the reason in `lost`."""

    def dump() -> tuple[bytes, Pickler]:
        file = _Limited(max_bytes, around.deadline)
        pickler = Pickler(file, around, names)
        values = {name: around.values[name] for name in names}
        for name, value in values.items():
            if type(value) in (list, dict) and (place := around.singletons.get(id(value))):
                values[name] = Place(*place)
        pickler.dump(values)
        return file.getvalue(), pickler

    try:
        try:
            content, pickler = dump()
        except (RecursionError, pickle.PicklingError) as exc:
            if not _is_too_deep(exc):
                raise
            content, pickler = _with_large_stack(dump)
    except SaveTimeout:
        raise
    except BaseException as exc:  # noqa: BLE001 - a class of the cell may raise anything
        for name in names:
            lost[name] = reason(around.values[name], exc)
        return None
    part = Part(names, content, pickler)
    value = around.values[names[0]]
    if len(names) > 1 or isinstance(value, (tuple, frozenset)) or not is_atomic(type(value)):
        part.memo = pickler.memo.copy()
    return part


def _is_too_deep(exc: BaseException) -> bool:
    return isinstance(exc, RecursionError) or isinstance(exc.__cause__, RecursionError)


def _with_large_stack(work: Callable[[], T]) -> T:
    """Return the result of work on values that nest deep, such as a list of linked nodes."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((work(), None))
        except BaseException as exc:  # noqa: BLE001 - it is raised again
            found.append((None, exc))

    before, limit = threading.stack_size(_STACK_BYTES), sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEP))
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
        sys.setrecursionlimit(limit)
    result, problem = found[0]
    if problem is not None:
        raise problem
    return result  # type: ignore[no-any-return]


def _drop_what_needs_lost(saved: Saved) -> None:
    known = {name for part in saved.parts for name in part.names}
    for part in [*saved.parts]:
        missing = sorted(name for name in part.needs if name not in known)
        if missing:
            saved.parts.remove(part)
            known.difference_update(part.names)
            for name in part.names:
                saved.variables.pop(name, None)
                saved.lost[name] = f"it needs {missing[0]}, which cannot be kept"


def reason(value: object, exc: BaseException) -> str:
    """Return in a few words why a value cannot be kept."""
    if isinstance(exc, Refused):
        return exc.what if exc.obj is value else f"it holds {exc.what}"
    if isinstance(exc, (TooMuch, Broken)):
        return str(exc)
    if _is_too_deep(exc):
        return f"{a_type(value)} that nests too deep"
    found = _CANNOT.search(str(exc))
    if found:
        kind = found[1]
        name = kind.rpartition(".")[2]
        what = _WORDS.get(kind) or f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
        is_itself = type(value).__name__ == name
        return what if is_itself else f"it holds {what}"
    return f"{a_type(value)} that cannot be pickled ({said(exc)})"


def needed(groups: list[dict[str, Any]], names: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the groups that hold these names, and before each of them those that it needs."""
    from .used_names import EVERYTHING

    wanted = set(names)
    if EVERYTHING not in wanted:
        by_name = {name: entry for entry in groups for name in entry["names"]}
        left = list(wanted & by_name.keys())
        while left and EVERYTHING not in wanted:
            entry = by_name[left.pop()]
            more = {*entry["names"], *entry["needs"], *entry["uses"]} - wanted
            wanted |= more
            left += more & by_name.keys()
    chosen = [entry for entry in groups if EVERYTHING in wanted or wanted & set(entry["names"])]
    yield from _after_their_needs(chosen)


def _after_their_needs(groups: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each group after those that it needs, which a later cell may have saved again."""
    by_name = {name: entry for entry in groups for name in entry["names"]}
    seen: set[int] = set()
    done: set[int] = set()
    for first in groups:
        waiting = [first]
        while waiting:
            entry = waiting[-1]
            needs = [by_name[name] for name in entry["needs"] if name in by_name]
            if id(entry) not in seen:
                seen.add(id(entry))
                waiting += [other for other in needs if id(other) not in seen]
                continue
            waiting.pop()
            if id(entry) not in done:
                done.add(id(entry))
                yield entry
