"""Arrays of numpy, and what holds them -> what a session keeps of them; see `library_reducers`.

Arrays that share memory are found by their addresses. They are kept as views of one region of
bytes, so that they still share it when they are restored.
"""

from __future__ import annotations

import array as arrays
import bisect
import pickle
import sys

from .packs import address_of, memory_at
from .reducers import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def extent_of(array: Any) -> tuple[int, int]:
    """Return the address of an array's first byte, and that after its last."""
    start = end = array.__array_interface__["data"][0]
    if array.size == 0:
        return start, start
    for length, stride in zip(array.shape, array.strides):
        if stride < 0:
            start += (length - 1) * stride
        else:
            end += (length - 1) * stride
    return start, end + array.itemsize


def reduce_array(pickler: Any, array: Any) -> Any:
    """Take a note of an array's memory; reduce it to a view if others share that."""
    start, end = extent_of(array)
    if start == end:
        return None
    has_objects = array.dtype.hasobject
    owner = _owner_of(array)
    if isinstance(owner, (bytearray, arrays.array)) and not has_objects:
        at = array.__array_interface__["data"][0] - address_of(owner)
        given = (owner, at, array.shape, array.strides, array.dtype, array.flags.writeable)
        return view_of, given
    pickler.ranges.append((start, end, not has_objects))
    pickler.packages.add("numpy")
    region = region_at(pickler.around, start)
    if region is None:
        return None
    if has_objects:
        return _view_of_objects(array)
    at = array.__array_interface__["data"][0] - region.start
    given = (region, at, array.shape, array.strides, array.dtype, array.flags.writeable)
    return view_of, given


def reduce_subclass(pickler: Any, array: Any) -> Any:
    numpy = sys.modules["numpy"]
    if isinstance(array, numpy.memmap) and array._mmap is not None:
        raise Refused("an array that is mapped from a file", array)
    start, end = extent_of(array)
    if start == end:
        return None
    pickler.ranges.append((start, end, not array.dtype.hasobject))
    if region_at(pickler.around, start) is None:
        return None
    plain = array.view(numpy.ndarray)
    pickler._alive.append(plain)
    attributes = getattr(array, "__dict__", None)
    return view_as, (plain, type(array)), attributes, None, None, fill_attributes


def _owner_of(array: Any) -> Any:
    """Return the object that an array's memory belongs to, if it is no array of numpy."""
    owner = array
    while type(owner) is type(array):
        owner = owner.base
    return owner.obj if isinstance(owner, memoryview) else owner


class Region:
    """Memory that several arrays share."""

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end

    def __reduce_ex__(self, protocol: Any) -> Any:
        return region_of, (pickle.PickleBuffer(memory_at(self.start, self.end - self.start)),)


def region_at(around: Any, address: int) -> Any:
    """Return the region in which an address lies, or None; the same one each time."""
    if not around.regions:
        return None
    at = bisect.bisect_right(around.regions, (address, float("inf"))) - 1
    if at < 0 or address >= around.regions[at][1]:
        return None
    made = around.__dict__.setdefault("made_regions", {})
    start, end = around.regions[at]
    if start not in made:
        made[start] = Region(start, end)
    return made[start]


def _view_of_objects(array: Any) -> Any:
    """Reduce a view of an array of objects to its owner and a place in it."""
    owner = array
    while getattr(owner, "base", None) is not None:
        owner = owner.base
    if owner is array:
        return None
    if type(owner) is not type(array) or not owner.flags.c_contiguous:
        raise Refused("a view of an array of objects", array)
    at = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    if owner.dtype != array.dtype or at % owner.itemsize:
        raise Refused("a view of an array of objects", array)
    given = (owner, at // owner.itemsize, array.shape, array.strides, array.flags.writeable)
    return view_of_objects, given


# --- restoring


def region_of(buffer: Any) -> Any:
    import numpy

    return numpy.frombuffer(buffer, numpy.uint8)


def view_of(region: Any, at: int, shape: Any, strides: Any, dtype: Any, writeable: bool) -> Any:
    import numpy

    made = numpy.ndarray(shape, dtype, region, at, strides)
    made.flags.writeable = writeable
    return made


def view_as(array: Any, kind: Any) -> Any:
    return array.view(kind)


def fill_attributes(array: Any, attributes: Any) -> None:
    vars(array).update(attributes)


def view_of_objects(owner: Any, at: int, shape: Any, strides: Any, writeable: bool) -> Any:
    from numpy.lib.stride_tricks import as_strided

    return as_strided(owner.reshape(-1)[at:], shape, strides, writeable=writeable)


# --- pandas and numba


def pandas_reducers() -> list[tuple[type, Callable[..., Any]]]:
    internals = sys.modules.get("pandas._libs.internals")
    block = getattr(internals, "Block", None)
    return [(block, _block)] if isinstance(block, type) else []


def _block(pickler: Any, block: Any) -> Any:
    """Reduce a block whose values others refer to, with a copy of the values.

    pandas copies such values before it writes to them. It would not know of the others when they
    are restored, and write to all of them.
    """
    pandas = sys.modules["pandas"]
    refs = getattr(block, "refs", None)
    if refs is None or not refs.has_reference():
        return None
    if int(pandas.__version__.partition(".")[0]) < 3 and not pandas.options.mode.copy_on_write:
        return None
    make, (values, *given), *rest = block.__reduce__()
    copied = values.copy()
    pickler._alive.append(copied)
    return (make, (copied, *given), *rest)


def numba_reducers() -> list[tuple[type, Callable[..., Any]]]:
    found = []
    for module, name in (
        ("numba.core.dispatcher", "Dispatcher"),
        ("numba.np.ufunc.dufunc", "DUFunc"),
    ):
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and hasattr(kind, "_reduce_states"):
            found.append((kind, _numba))
    return found


def _numba(pickler: Any, compiled: Any) -> Any:
    """Reduce a compiled function to the Python function, which numba compiles again.

    numba itself would pickle that function with a copy of its globals.
    """
    pickler.packages.add("numba")
    return rebuild_numba, (type(compiled), compiled._reduce_states())


def rebuild_numba(kind: Any, states: dict[str, Any]) -> Any:
    return kind._rebuild(**states)
