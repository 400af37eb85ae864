"""Pickles of a session -> values: the functions that such pickles call; see `reducers`."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
import os
import pickle
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:  # its text travels with the cell
    cloudpickle: Any = importlib.import_module(f"{__name__.rpartition('.')[0]}.cloudpickle")
except ImportError:
    cloudpickle = importlib.import_module("cloudpickle.cloudpickle")

MAIN = "__main__"
PACKAGE = __name__.rpartition(".")[0]
#: This package under its names in tests and on machines.
PACKAGES = ("lyceum_magic_remote.", "lyceum_magic.remote.", "cloudpickle.")

#: The namespace of the cell, and what names in it stood for when they were saved.
_namespace: dict[str, Any] = {}
_definitions: dict[str, Any] = {}


def bind(namespace: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Let pickles that are loaded from now on have functions of this namespace.

    Args:
        definitions: name -> the function or class that was saved under it, or its value.
    """
    global _namespace, _definitions
    _namespace, _definitions = namespace, definitions


class NotRestored(pickle.UnpicklingError):
    """A function or class that a pickle needs was not restored; one sentence."""


class Unpickler(pickle.Unpickler):
    """A loader of a pickle, which finds this package by any of its names."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(PACKAGES):
            own = module.rpartition(".")[2]
            if own == "cloudpickle":
                return getattr(cloudpickle, name)
            module = f"{PACKAGE}.{own}"
        return super().find_class(module, name)


def load(content: bytes, buffers: list[Any]) -> Any:
    return Unpickler(io.BytesIO(content), buffers=buffers).load()


def by_name(name: str) -> Any:
    try:
        return _definitions[name]
    except KeyError:
        raise NotRestored(f"it needs {name}, which was not restored") from None


def make_function(code: types.CodeType, name: str, cells: Any, where: Any) -> types.FunctionType:
    if where is None:
        scope = _namespace
    elif isinstance(where, str):
        scope = vars(importlib.import_module(where))
    else:
        scope = where
    return types.FunctionType(code, scope, name, None, cells)


def fill_function(function: Any, state: Any) -> None:
    contents, attributes, qualname, module, doc, annotations, defaults, by_keyword = state
    for cell, content in contents:
        cell.cell_contents = content
    if attributes:
        function.__dict__.update(attributes)
    function.__qualname__, function.__module__, function.__doc__ = qualname, module, doc
    function.__defaults__, function.__kwdefaults__ = defaults, by_keyword
    if annotations:
        setattr(function, *annotations)


def make_instance(base: Any, kind: Any, *value: Any) -> Any:
    return base.__new__(kind, *value)


def fill_instance(obj: Any, state: Any) -> None:
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        object.__getattribute__(obj, "__dict__").update(attributes)
    for name, value in (slots or {}).items():
        object.__setattr__(obj, name, value)


def make_cell() -> types.CellType:
    return types.CellType()


def fill_cell(cell: types.CellType, content: tuple[Any]) -> None:
    (cell.cell_contents,) = content


def make_class(
    kind: Any, name: str, bases: tuple[Any, ...], options: dict[str, Any], tracker: str
) -> Any:
    """Return a new class without its members, and call no hook of the session's own classes."""
    real_bases = types.resolve_bases(bases)
    hooks = [
        (base, vars(base)["__init_subclass__"])
        for base in {base for above in real_bases for base in above.__mro__}
        if base.__module__ == MAIN and "__init_subclass__" in vars(base)
    ]
    for base, _ in hooks:
        type.__delattr__(base, "__init_subclass__")
    try:
        library_kind = next(base for base in kind.__mro__ if base.__module__ != MAIN)
        if library_kind is kind:
            options = {sys.intern(key): value for key, value in options.items()}
            made = types.new_class(
                name, bases, {"metaclass": kind}, lambda scope: scope.update(options)
            )
        else:
            scope = dict(options)
            if real_bases is not bases:
                scope["__orig_bases__"] = bases
            made = library_kind.__new__(kind, name, real_bases, scope)
    finally:
        for base, hook in hooks:
            type.__setattr__(base, "__init_subclass__", hook)
    return cloudpickle._lookup_class_or_track(tracker, made)


# --- the standard library --------------------------------------------------------------------


def make_cache(parameters: dict[str, Any], function: Any) -> Any:
    return functools.lru_cache(**parameters)(function)


def closed_file(name: Any, mode: str, encoding: str | None, buffering: int) -> Any:
    """Return a closed file that says the same of itself."""
    # The file itself may be gone, and must not be emptied.
    with open(os.devnull, mode.replace("x", "w"), buffering, encoding=encoding) as file:
        stream: Any = file
        getattr(getattr(stream, "buffer", stream), "raw", stream).name = name
        if encoding is not None:
            stream.mode = mode
    return file


def found_again(pattern: Any, text: Any, start: int, end: int, how: str, number: int) -> Any:
    """Return a match of a regular expression: that of a search, or one of several."""
    found = getattr(pattern, how)(text, start, end)
    if how != "finditer":
        return found
    return next(match for at, match in enumerate(found) if at == number)


def make_exception(kind: Any, given: tuple[Any, ...]) -> Any:
    made = kind.__new__(kind, *given)
    made.args = given
    return made


def fill_exception(error: BaseException, state: Any) -> None:
    attributes, cause, context, suppressed = state
    error.__dict__.update(attributes)
    error.__cause__, error.__context__ = cause, context
    error.__suppress_context__ = suppressed


def missing_default() -> Any:
    return dataclasses.MISSING


def make_cached_property(function: Any, name: str | None) -> Any:
    made = functools.cached_property(function)
    made.attrname = name
    return made


def make_view(mapping: dict[Any, Any], view: str) -> Any:
    return getattr(mapping, view)()


def make_memoryview(owner: Any, start: int, length: int, form: str, shape: Any) -> Any:
    view: Any = memoryview(owner).cast("B")[start : start + length]
    return view.cast(form, shape) if length else view


def looked_up(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class Place:
    """Stands for a list or dict of a library, which pickle would copy."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def __reduce__(self) -> Any:
        return looked_up, self._place


def main_module() -> Any:
    return sys.modules[MAIN]


def the_shell() -> Any:
    import builtins

    return builtins.get_ipython()  # type: ignore[attr-defined]
