"""Objects that pickle refuses, changes or copies -> how a session keeps them; see `reducers`.

Each reducer takes the pickler and an object, and returns what `__reduce__` would; None leaves the
object to pickle. It raises `Refused` for what ends with its process.
"""

from __future__ import annotations

import functools
import gc
import io
import re
import struct
import sys
import threading
import types
import weakref

from . import rebuilding
from .reducers import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LOCK, _RLOCK = type(threading.Lock()), type(threading.RLock())
_OURS = __name__.rpartition(".")[0]


def by_type() -> dict[type, Callable[..., Any]]:
    """Return the reducers of exact types, as far as their libraries are imported."""
    import collections
    import dataclasses
    import typing

    table: dict[type, Callable[..., Any]] = {
        types.CellType: lambda pickler, cell: pickler.cell(cell),
        types.ModuleType: _module,
        type(functools.lru_cache(len)): _cache,
        functools.cached_property: _cached_property,
        types.MappingProxyType: _proxy,
        re.Match: lambda pickler, found: _match(found),
        memoryview: _memoryview,
        weakref.ref: _weakref,
        weakref.ProxyType: _weak_proxy,
        weakref.CallableProxyType: _weak_proxy,
        weakref.WeakKeyDictionary: _weak_mapping,
        weakref.WeakValueDictionary: _weak_mapping,
        struct.Struct: lambda pickler, obj: (struct.Struct, (obj.format,)),
        weakref.WeakSet: lambda pickler, obj: (weakref.WeakSet, (list(obj),)),
        _LOCK: _lock,
        _RLOCK: _lock,
        type(dataclasses.MISSING): lambda pickler, obj: (rebuilding.missing_default, ()),
    }
    for view in ("keys", "values", "items"):
        mappings: list[Any] = [{}, collections.OrderedDict()]
        for mapping in mappings:
            table[type(getattr(mapping, view)())] = functools.partial(_view, view)
    for name in ("NewType", "ParamSpec", "TypeVarTuple"):
        kind = getattr(typing, name, None)
        if isinstance(kind, type):
            table[kind] = globals()[f"_{name.lower()}"]
    if "numpy" in sys.modules:
        from .array_reducers import reduce_array

        table[sys.modules["numpy"].ndarray] = reduce_array
    return table


def by_base() -> list[tuple[type, Callable[..., Any]]]:
    """Return the reducers of classes and those that derive from them."""
    found: list[tuple[type, Callable[..., Any]]] = [
        (BaseException, _exception),
        (io.IOBase, _stream),
        (threading.Thread, _thread),
        (weakref.finalize, _refuse("a finalizer")),
        (types.ModuleType, _module),
    ]
    for name, base, reduce in (
        ("subprocess", "Popen", _process),
        ("multiprocessing.process", "BaseProcess", _refuse("a process")),
        ("multiprocessing.shared_memory", "SharedMemory", _refuse("shared memory")),
        ("tempfile", "TemporaryDirectory", _refuse("a temporary folder")),
        ("concurrent.futures", "Executor", _refuse("a pool of workers")),
        ("IPython.core.interactiveshell", "InteractiveShell", _shell),
    ):
        kind = getattr(sys.modules.get(name), base, None)
        if isinstance(kind, type):
            found.append((kind, reduce))
    if "numpy" in sys.modules:
        from .array_reducers import reduce_subclass

        found.append((sys.modules["numpy"].ndarray, reduce_subclass))
    if "pandas" in sys.modules:
        from .array_reducers import pandas_reducers

        found += pandas_reducers()
    if "torch" in sys.modules:
        from .torch_reducers import torch_reducers

        found += torch_reducers()
    if "numba" in sys.modules:
        from .array_reducers import numba_reducers

        found += numba_reducers()
    return found


def _refuse(what: str) -> Callable[..., Any]:
    def refuse(pickler: Any, obj: Any) -> Any:
        raise Refused(what, obj)

    return refuse


def _module(pickler: Any, module: types.ModuleType) -> Any:
    name = module.__name__
    if name == rebuilding.MAIN:
        return rebuilding.main_module, ()
    if sys.modules.get(name) is not module or not pickler.around.is_importable(name):
        raise Refused("a module that the program made", module)
    pickler.packages.add(name.partition(".")[0])
    return rebuilding.cloudpickle.subimport, (name,)


def _cache(pickler: Any, cache: Any) -> Any:
    if cache.__module__ != rebuilding.MAIN and pickler._is_found(cache, cache.__module__ or ""):
        return None
    attributes = {key: value for key, value in vars(cache).items() if key != "__wrapped__"}
    return rebuilding.make_cache, (cache.cache_parameters(), cache.__wrapped__), attributes


def _cached_property(pickler: Any, prop: Any) -> Any:
    return rebuilding.make_cached_property, (prop.func, prop.attrname)


def _proxy(pickler: Any, proxy: Any) -> Any:
    # Of the mapping itself, so that both still change together.
    (mapping,) = gc.get_referents(proxy)
    return types.MappingProxyType, (mapping,)


def _view(view: str, pickler: Any, obj: Any) -> Any:
    (mapping,) = gc.get_referents(obj)
    return rebuilding.make_view, (mapping, view)


def _memoryview(pickler: Any, view: memoryview) -> Any:
    from .packs import address_of

    owner = view.obj
    is_plain = isinstance(owner, (bytes, bytearray)) and view.c_contiguous
    if is_plain and view.readonly == isinstance(owner, bytes):
        start = address_of(view) - address_of(owner) if view.nbytes else 0
        given = (owner, start, view.nbytes, view.format, view.shape)
        return rebuilding.make_memoryview, given
    raise Refused("a memoryview", view)


def _weakref(pickler: Any, ref: Any) -> Any:
    target = ref()
    return weakref.ref, (target if target is not None else _Gone(),)


def _weak_proxy(pickler: Any, proxy: Any) -> Any:
    try:
        target = proxy.__reduce_ex__.__self__  # any method that the object has from `object`
    except (AttributeError, ReferenceError):
        raise Refused("a weak proxy", proxy) from None
    return weakref.proxy, (target,)


class _Gone:
    """Stands for an object that is gone."""


def _weak_mapping(pickler: Any, mapping: Any) -> Any:
    return type(mapping), (dict(mapping),)


def _lock(pickler: Any, lock: Any) -> Any:
    is_held = lock.locked() if isinstance(lock, _LOCK) else "count=0" not in repr(lock)
    if is_held:
        raise Refused("a lock that is held", lock)
    return (threading.Lock if isinstance(lock, _LOCK) else threading.RLock), ()


def _newtype(pickler: Any, kind: Any) -> Any:
    import typing

    state = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return typing.NewType, (kind.__name__, kind.__supertype__), state


def _paramspec(pickler: Any, parameters: Any) -> Any:
    return type(parameters), (parameters.__name__,), {"__module__": parameters.__module__}


def _typevartuple(pickler: Any, parameters: Any) -> Any:
    return type(parameters), (parameters.__name__,), {"__module__": parameters.__module__}


def _exception(pickler: Any, error: BaseException) -> Any:
    kind = type(error)
    state = (
        {**vars(error)},
        error.__cause__,
        error.__context__,
        error.__suppress_context__,
    )
    if kind.__reduce__ is not BaseException.__reduce__ or (
        kind.__reduce_ex__ is not object.__reduce_ex__
    ):
        return None
    if kind.__module__ == rebuilding.MAIN:  # its arguments need not be those of its `__init__`
        make, given = rebuilding.make_exception, (kind, error.args)
    else:
        make, given = kind, error.args
    return make, given, state, None, None, rebuilding.fill_exception


def _stream(pickler: Any, stream: Any) -> Any:
    if type(stream) in (io.StringIO, io.BytesIO):
        return None
    for name in ("stdout", "stderr", "stdin"):
        if stream is getattr(sys, name) or stream is getattr(sys, f"__{name}__"):
            return rebuilding.looked_up, ("sys", name)
    if isinstance(stream, (io.StringIO, io.BytesIO)):
        return None
    if not stream.closed:
        raise Refused("an open file", stream)
    raw = getattr(getattr(stream, "buffer", stream), "raw", stream)
    kinds = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)
    if type(stream) not in kinds or type(raw) is not io.FileIO:
        raise Refused("a closed file", stream)
    # As `with open(...) as file` leaves one.
    is_text = type(stream) is io.TextIOWrapper
    encoding = stream.encoding if is_text else None
    buffering = 0 if stream is raw else -1
    return rebuilding.closed_file, (raw.name, stream.mode, encoding, buffering)


def _match(pattern_match: Any) -> Any:
    """Return the search that finds a match of a regular expression again."""
    pattern, text = pattern_match.re, pattern_match.string
    between = (pattern_match.pos, pattern_match.endpos)
    for how in ("search", "match", "fullmatch"):
        found = getattr(pattern, how)(text, *between)
        if found is not None and found.regs == pattern_match.regs:
            return rebuilding.found_again, (pattern, text, *between, how, 0)
    for number, found in enumerate(pattern.finditer(text, *between)):
        if found.regs == pattern_match.regs:
            return rebuilding.found_again, (pattern, text, *between, "finditer", number)
    raise Refused("a match", pattern_match)


def _thread(pickler: Any, thread: threading.Thread) -> Any:
    if thread.is_alive():
        raise Refused("a thread that is running", thread)
    return None


def _process(pickler: Any, process: Any) -> Any:
    if process.returncode is None:
        raise Refused("a process that is running", process)
    return None


def _shell(pickler: Any, shell: Any) -> Any:
    return rebuilding.the_shell, ()
