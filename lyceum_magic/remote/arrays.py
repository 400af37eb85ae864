"""numpy's arrays and scalars, as `values` packs them."""

from __future__ import annotations

from .refusals import UnpackError, said

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # Those of `values`, which imports this module.
    Packer = Any
    Unpacker = Any

#: Maximum number of items that take no bytes, which the size of the data does not bound.
_MAX_EMPTY_ITEMS = 1_000_000


def pack_numpy(packer: Packer, value: Any) -> Any:
    """Return the node of an object of one of numpy's classes."""
    import numpy as np

    packer.needs.add("numpy")
    kind = type(value)
    if kind is np.str_:
        return ["numpy.str", packer.node(str.__str__(value))]
    if kind is np.bytes_:
        return ["numpy.bytes", packer.blob(bytes(value))]
    if isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise packer.refuse(value)
        return ["numpy.scalar", _pack_dtype(packer, array.dtype), packer.blob(array.tobytes())]
    if kind is np.ma.MaskedArray:
        has_mask = value.mask is not np.ma.nomask
        mask = pack_array(packer, np.asarray(value.mask)) if has_mask else None
        fill = pack_array(packer, np.asarray(value.fill_value))
        return ["numpy.masked", pack_array(packer, value.data), mask, fill, bool(value.hardmask)]
    if kind is np.ndarray:
        return pack_array(packer, value)
    if hasattr(kind, "__array__"):
        return pack_array_like(packer, value)
    raise packer.refuse(value)


def pack_array_like(packer: Packer, value: Any) -> Any:
    """Return the node of an object with `__array__`, as a numpy array."""
    try:
        import numpy as np

        array = np.asarray(value)
    except Exception as exc:
        raise packer.refuse(value, f"gives no numpy array ({said(exc)})") from exc
    packer.change(value, "a numpy array")
    return pack_array(packer, array)


def pack_array(packer: Packer, array: Any) -> Any:
    packer.needs.add("numpy")
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    shape = list(array.shape)
    if array.dtype == object or array.dtype.kind == "T":
        kind = "objects" if array.dtype == object else "strings"
        if kind == "strings" and hasattr(array.dtype, "na_object"):
            raise packer.refuse(array, "has strings that may be missing")
        packer.reserve(array.size)
        items = [packer.node(item) for item in array.ravel(order=order).tolist()]
        return [f"numpy.{kind}", shape, order, items]
    if array.dtype.hasobject:
        raise packer.refuse(array, "has objects in its fields")
    packer.check_room(array.nbytes)
    if array.dtype.itemsize == 0 and array.size > _MAX_EMPTY_ITEMS:
        raise packer.refuse(array, "has too many items of no size")
    dtype = _pack_dtype(packer, array.dtype)
    return ["numpy.array", dtype, shape, order, packer.blob(array.tobytes(order))]


def _pack_dtype(packer: Packer, dtype: Any) -> Any:
    import warnings

    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that metadata of a dtype stays behind
        descr = np.lib.format.dtype_to_descr(dtype)
    if _made_dtype(descr, dtype.isalignedstruct) != dtype:
        raise packer.refuse(dtype)
    return packer.node((descr, dtype.isalignedstruct))


def _made_dtype(descr: Any, is_aligned: bool) -> Any:
    import numpy as np

    dtype = np.lib.format.descr_to_dtype(descr)
    if not is_aligned or dtype.names is None:
        return dtype
    fields = [dtype.fields[name] for name in dtype.names]  # type: ignore[index]
    parts = {
        "names": list(dtype.names),
        "formats": [field[0] for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    return np.dtype(parts, align=True)  # type: ignore[call-overload]


def _array(unpacker: Unpacker, dtype_node: Any, shape: list[int], order: str, blob: int) -> Any:
    import numpy as np

    dtype = _dtype(unpacker, dtype_node)
    data = unpacker.take(blob)
    if dtype.itemsize * _count(shape) != len(data):
        raise UnpackError("an array is not of its size")
    if dtype.itemsize == 0 and _count(shape) > _MAX_EMPTY_ITEMS:
        raise UnpackError("an array has too many items of no size")
    array: Any = np.ndarray(tuple(shape), dtype, data, order="F" if order == "F" else "C")
    return array.copy(order="K")


def _dtype(unpacker: Unpacker, node: Any) -> Any:
    descr, is_aligned = unpacker.typed(node, tuple)
    if not isinstance(descr, (str, list, tuple)):
        raise UnpackError("an array has no type")
    dtype = _made_dtype(descr, is_aligned is True)
    if dtype.hasobject:
        raise UnpackError("an array of addresses is refused")
    return dtype


def _count(shape: list[int]) -> int:
    if len(shape) > 64:
        raise UnpackError("an array has too many dimensions")
    count = 1
    for length in shape:
        if type(length) is not int or length < 0:
            raise UnpackError("an array has no shape")
        count *= length
    return count


def _scalar(unpacker: Unpacker, dtype: Any, blob: int) -> Any:
    return _array(unpacker, dtype, [], "C", blob)[()]


def _objects(unpacker: Unpacker, shape: list[int], order: str, nodes: list[Any]) -> Any:
    import numpy as np

    if _count(shape) != len(nodes):
        raise UnpackError("an array is not of its size")
    in_order: Any = "F" if order == "F" else "C"
    array: Any = np.empty(tuple(shape), object, in_order)
    flat = array.reshape(-1, order=in_order)  # a view
    for place, item in enumerate(unpacker.values(nodes)):
        flat[place] = item  # one by one: a list among them is an item, and no row
    return array


def _strings(unpacker: Unpacker, shape: list[int], order: str, nodes: list[Any]) -> Any:
    import numpy as np

    return _objects(unpacker, shape, order, nodes).astype(np.dtypes.StringDType())


def _masked(unpacker: Unpacker, data: Any, mask: Any, fill: Any, is_hard: bool) -> Any:
    import numpy as np

    values = unpacker.value(data)
    marks: Any = np.ma.nomask if mask is None else unpacker.value(mask)
    filling = unpacker.value(fill)
    if not isinstance(values, np.ndarray) or not isinstance(filling, np.ndarray):
        raise UnpackError("a masked array has no data")
    if marks is not np.ma.nomask and np.shape(marks) != values.shape:
        raise UnpackError("a mask is not of its array's shape")
    make: Any = np.ma.MaskedArray
    return make(values, marks, fill_value=filling[()], hard_mask=bool(is_hard))


def _str(unpacker: Unpacker, text: Any) -> Any:
    import numpy as np

    return np.str_(unpacker.typed(text, str))


def _bytes(unpacker: Unpacker, blob: int) -> Any:
    import numpy as np

    return np.bytes_(unpacker.take(blob))


KINDS: dict[object, Callable[..., Any]] = {
    "numpy.array": _array,
    "numpy.scalar": _scalar,
    "numpy.objects": _objects,
    "numpy.strings": _strings,
    "numpy.masked": _masked,
    "numpy.str": _str,
    "numpy.bytes": _bytes,
}
