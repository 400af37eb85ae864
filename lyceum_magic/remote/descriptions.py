"""A variable -> its type, shape, size and first words, for a list of variables."""

from __future__ import annotations

import types

from . import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_TEXT = 80
_SHOWN = (bool, int, float, complex, str, bytes, type(None))


def a_type(value: object) -> str:
    """Return the type of a value with its article: "a generator", "an open_file"."""
    kind = type(value)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def describe(value: Any, size: int) -> dict[str, Any]:
    """Return what a list of variables shows; no code of the cell is called for it."""
    found: dict[str, Any] = {"type": _type_name(value), "size": size, "text": _text(value)}
    shape = _shape(value)
    if shape is not None:
        found["shape"] = shape
    return found


def _type_name(value: Any) -> str:
    if isinstance(value, type):
        return "class"
    if isinstance(value, types.FunctionType):
        return "function"
    kind = type(value)
    top = kind.__module__.partition(".")[0]
    return kind.__qualname__ if top in ("builtins", "__main__") else f"{top}.{kind.__qualname__}"


def _is_of_library(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in (
        "geopandas", "numpy", "pandas", "polars", "pyarrow", "scipy", "torch", "xarray",
    )  # fmt: skip


def _shape(value: Any) -> list[int] | None:
    if type(value) in (list, tuple, dict, set, frozenset):
        return [len(value)]
    if not _is_of_library(value):
        return None
    try:
        return [int(length) for length in value.shape]
    except Exception:  # noqa: BLE001 - it is a description
        return None


def _text(value: Any) -> str:
    text = ""
    if isinstance(value, (type, types.FunctionType)):
        text = value.__qualname__
    elif type(value) in (str, bytes):
        text = repr(value[: _MAX_TEXT + 1])
    elif type(value) in _SHOWN:
        try:
            text = repr(value)
        except ValueError:  # an int with too many digits
            text = ""
    elif _is_of_library(value):
        try:
            text = _columns(value)
        except Exception:  # noqa: BLE001 - it is a description
            text = ""
    if any(secret and secret in text for secret in frames.secrets):
        return ""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def _columns(value: Any) -> str:
    columns = getattr(value, "columns", None)
    if columns is not None and not callable(columns):
        return ", ".join(str(name) for name in list(columns)[:10])
    dtype = getattr(value, "dtype", None)
    return "" if dtype is None else str(dtype)
