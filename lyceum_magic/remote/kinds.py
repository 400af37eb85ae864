"""Values of Python's own types and dataclass instances, as `values` packs them."""

from __future__ import annotations

import sys
import types

from .refusals import UnpackError, where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    # Those of `values`, which imports this module.
    Packer = Any
    Unpacker = Any
    T = TypeVar("T")


def _pack_datetime(packer: Packer, value: Any) -> Any:
    return [
        "datetime", value.year, value.month, value.day, value.hour, value.minute, value.second,
        value.microsecond, value.fold, packer.node(value.tzinfo),
    ]  # fmt: skip


def _pack_time(packer: Packer, value: Any) -> Any:
    parts = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    return ["time", *parts, packer.node(value.tzinfo)]


def _pack_timezone(packer: Packer, value: Any) -> Any:
    offset, *name = value.__getinitargs__()
    return ["timezone", packer.node(offset), *name]


def _pack_zone(packer: Packer, value: Any) -> Any:
    if value.key is None:
        raise packer.refuse(value, "has no key")
    return ["zone", value.key]


def _pack_path(packer: Packer, value: Any) -> Any:
    return ["path", type(value).__name__, str(value)]


def _pack_uuid(packer: Packer, value: Any) -> Any:
    return ["uuid", value.hex]


#: Module and name of a class -> a function that packs its instances.
KNOWN: dict[str, Callable[[Packer, Any], Any]] = {
    "datetime.datetime": _pack_datetime,
    "datetime.date": lambda packer, value: ["date", value.year, value.month, value.day],
    "datetime.time": _pack_time,
    "datetime.timedelta": lambda packer, value: [
        "timedelta", value.days, value.seconds, value.microseconds,
    ],
    "datetime.timezone": _pack_timezone,
    "zoneinfo.ZoneInfo": _pack_zone,
    "decimal.Decimal": lambda packer, value: ["decimal", str(value)],
    "fractions.Fraction": lambda packer, value: [
        "fraction", packer.node(value.numerator), packer.node(value.denominator),
    ],
    "uuid.UUID": _pack_uuid,
    **{
        f"pathlib.{name}": _pack_path
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
}  # fmt: skip


def _datetime(unpacker: Unpacker, *parts: Any) -> Any:
    import datetime

    return _moment(unpacker, datetime.datetime, *parts)


def _date(unpacker: Unpacker, *parts: Any) -> Any:
    import datetime

    return datetime.date(*parts)


def _time(unpacker: Unpacker, *parts: Any) -> Any:
    import datetime

    return _moment(unpacker, datetime.time, *parts)


def _moment(unpacker: Unpacker, make: Callable[..., T], *parts: Any) -> T:
    *when, fold, tz = parts
    return make(*when, tzinfo=unpacker.value(tz), fold=fold)


def _timedelta(unpacker: Unpacker, *parts: Any) -> Any:
    import datetime

    return datetime.timedelta(*parts)


def _timezone(unpacker: Unpacker, offset: Any, *name: Any) -> Any:
    import datetime

    return datetime.timezone(unpacker.value(offset), *name)


def _zone(unpacker: Unpacker, key: str) -> Any:
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(key)
    except zoneinfo.ZoneInfoNotFoundError:
        raise UnpackError(f"time zone {key[:60]!r} is not known {where()}; add tzdata") from None


def _decimal(unpacker: Unpacker, text: str) -> Any:
    import decimal

    return decimal.Decimal(text)


def _fraction(unpacker: Unpacker, numerator: Any, denominator: Any) -> Any:
    from fractions import Fraction

    return Fraction(unpacker.typed(numerator, int), unpacker.typed(denominator, int))


def _uuid(unpacker: Unpacker, text: str) -> Any:
    import uuid

    return uuid.UUID(hex=text)


def _path(unpacker: Unpacker, kind: str, text: str) -> Any:
    import pathlib

    pure = {"PosixPath": pathlib.PurePosixPath, "WindowsPath": pathlib.PureWindowsPath}
    mine = type(pathlib.Path())
    if kind == mine.__name__:
        return mine(text)
    return pure["WindowsPath" if "Windows" in kind else "PosixPath"](text)


# Dataclasses.


def pack_dataclass(packer: Packer, value: Any) -> Any:
    """Return the node of a dataclass instance: its class by name, its fields, its other members."""
    kind = type(value)
    if not _is_plain(kind):
        raise packer.refuse(value)
    from dataclasses import fields

    names = [field.name for field in fields(value)]
    if _has_other_slots(kind, names):
        raise packer.refuse(value, "has slots that are no fields")
    others = {k: v for k, v in getattr(value, "__dict__", {}).items() if k not in names}
    options = kind.__dataclass_params__
    flags = [getattr(options, flag) for flag in _DATACLASS_FLAGS]
    values = [packer.node(getattr(value, name)) for name in names]
    head = ["dataclass", kind.__module__, kind.__qualname__, flags, names, values]
    return [*head, packer.node(others) if others else {}, *packer.class_of(kind)]


def _dataclass(
    unpacker: Unpacker,
    module: str,
    qualname: str,
    flags: list[bool],
    names: list[str],
    nodes: list[Any],
    others: Any,
    *pickled: Any,
) -> Any:
    values = unpacker.values(nodes)
    attributes = unpacker.typed(others, dict)
    if len(values) != len(names):
        raise UnpackError("the fields of a dataclass are missing")
    came = unpacker.class_named(f"{module}.{qualname}", *pickled)
    cls = _class_named(module, qualname, names) or came
    cls = cls or _made_class(module, qualname, flags, names)
    instance: Any = object.__new__(cls)
    for name, value in zip(names, values):
        object.__setattr__(instance, name, value)
    if attributes:
        instance.__dict__.update(attributes)
    return instance


_DATACLASS_FLAGS = ("eq", "order", "unsafe_hash", "frozen")
_made: dict[object, type] = {}


def _class_named(module: str, qualname: str, names: list[str]) -> type | None:
    """Return the dataclass of this name and these fields, if it exists here already."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    from dataclasses import fields, is_dataclass

    if not isinstance(found, type) or not is_dataclass(found):
        return None
    is_same = [field.name for field in fields(found)] == names
    return found if is_same and _is_plain(found) else None


def _is_plain(cls: Any) -> bool:
    """Return whether an instance can be made without running code of the class."""
    return cls.__new__ is object.__new__


def _has_other_slots(cls: type, names: list[str]) -> bool:
    return any(
        type(item) is types.MemberDescriptorType and name not in names
        for base in cls.__mro__
        for name, item in vars(base).items()
    )


def _made_class(module: str, qualname: str, flags: list[bool], names: list[str]) -> type:
    key = (module, qualname, tuple(map(bool, flags)), tuple(names))
    if key not in _made:
        from dataclasses import make_dataclass

        name = qualname.rpartition(".")[2]
        if not all(type(word) is str and word.isidentifier() for word in (name, *names)):
            raise UnpackError("a dataclass has no proper name")
        options = dict(zip(_DATACLASS_FLAGS, key[2]))
        made = make_dataclass(name, names, **options)  # type: ignore[arg-type]
        # So that it is its own class again where it came from.
        made.__module__, made.__qualname__ = module, qualname
        _made[key] = made
    return _made[key]


#: Kind of a node -> a function that makes the value of the rest of the node.
KINDS: dict[object, Callable[..., Any]] = {
    "int": lambda unpacker, text: int(text, 16),
    "complex": lambda unpacker, real, imag: complex(real, imag),
    "list": lambda unpacker, nodes: unpacker.values(nodes),
    "tuple": lambda unpacker, nodes: tuple(unpacker.values(nodes)),
    "set": lambda unpacker, nodes: set(unpacker.values(nodes)),
    "frozenset": lambda unpacker, nodes: frozenset(unpacker.values(nodes)),
    "dict": lambda unpacker, pairs: {unpacker.value(k): unpacker.value(v) for k, v in pairs},
    "bytes": lambda unpacker, blob: unpacker.take(blob),
    "bytearray": lambda unpacker, blob: bytearray(unpacker.take(blob)),
    "range": lambda unpacker, *parts: range(*(unpacker.typed(part, int) for part in parts)),
    "slice": lambda unpacker, *parts: slice(*map(unpacker.value, parts)),
    "datetime": _datetime,
    "date": _date,
    "time": _time,
    "timedelta": _timedelta,
    "timezone": _timezone,
    "zone": _zone,
    "decimal": _decimal,
    "fraction": _fraction,
    "uuid": _uuid,
    "path": _path,
    "dataclass": _dataclass,
}
