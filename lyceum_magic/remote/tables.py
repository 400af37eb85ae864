"""pandas objects, and the tables of polars and pyarrow, as `values` packs them."""

from __future__ import annotations

from .arrays import pack_array
from .refusals import IS_REMOTE, UnpackError, missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # Those of `values`, which imports this module.
    Packer = Any
    Unpacker = Any


def pack_table(packer: Packer, value: Any) -> Any:
    """Return the node of an object of pandas, polars or pyarrow, or of a derived class."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    if library == "pandas":
        return _pack_pandas(packer, value)
    if library in ("polars", "pyarrow"):
        return pack_arrow(packer, value)
    raise packer.refuse(value)  # a subclass, which knows more than its base


# pandas, packing.


def _pack_pandas(packer: Packer, value: Any) -> Any:
    import pandas as pd

    packer.needs.add("pandas")
    kind = type(value)
    if kind is pd.DataFrame:
        columns = [_pack_array(packer, value.iloc[:, at].array) for at in range(value.shape[1])]
        index, labels = _pack_index(packer, value.index), _pack_index(packer, value.columns)
        return ["pandas.DataFrame", columns, index, labels, *_pack_extras(packer, value)]
    if kind is pd.Series:
        array, index = _pack_array(packer, value.array), _pack_index(packer, value.index)
        extras = _pack_extras(packer, value)
        return ["pandas.Series", array, index, packer.node(value.name), *extras]
    if isinstance(value, pd.Index):
        return _pack_index(packer, value)
    if value is pd.NA or value is pd.NaT:
        return ["pandas.missing", "NA" if value is pd.NA else "NaT"]
    if kind is pd.Timestamp:
        zone = _pack_zone(packer, value.tz)
        return ["pandas.Timestamp", int(value.asm8.view("i8")), value.unit, zone]
    if kind is pd.Timedelta:
        return ["pandas.Timedelta", int(value.asm8.view("i8")), value.unit]
    if kind is pd.Period:
        return ["pandas.Period", value.ordinal, value.freqstr]
    if kind is pd.Interval:
        return ["pandas.Interval", packer.node(value.left), packer.node(value.right), value.closed]
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return _pack_array(packer, value)
    raise packer.refuse(value)


def _pack_extras(packer: Packer, value: Any) -> list[Any]:
    return [packer.node(dict(value.attrs)), value.flags.allows_duplicate_labels]


def _pack_zone(packer: Packer, zone: Any) -> Any:
    name = getattr(zone, "zone", None)
    if type(zone).__module__.partition(".")[0] == "pytz" and name is not None:
        return ["pandas.pytz", name]
    return packer.node(zone)


def _pack_index(packer: Packer, index: Any) -> Any:
    import pandas as pd

    kind = type(index)
    names = packer.node(list(index.names))
    if kind is pd.RangeIndex:
        return ["pandas.RangeIndex", names, index.start, index.stop, index.step]
    if kind is pd.MultiIndex:
        levels = [_pack_index(packer, level) for level in index.levels]
        codes = [pack_array(packer, code.astype("i8")) for code in map(_plain, index.codes)]
        return ["pandas.MultiIndex", names, levels, codes]
    kinds = {
        pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex, pd.IntervalIndex,
        pd.CategoricalIndex,
    }  # fmt: skip
    if kind not in kinds:
        raise packer.refuse(index)
    freq = None
    if kind in (pd.DatetimeIndex, pd.TimedeltaIndex) and index.freq is not None:
        freq = index.freqstr
        if pd.tseries.frequencies.to_offset(freq) != index.freq:
            raise packer.refuse(index, f"has a frequency that its name {freq!r} does not say")
    return ["pandas.Index", names, _pack_array(packer, index.array), freq]


def _plain(array: Any) -> Any:
    import numpy as np

    return np.asarray(array)


def _pack_array(packer: Packer, array: Any) -> Any:
    """Return the node of the values of a column or an index, of any array type."""
    import numpy as np
    import pandas as pd

    packer.needs.add("pandas")
    dtype = array.dtype
    own = getattr(pd.arrays, "NumpyExtensionArray", None) or pd.arrays.PandasArray  # its old name
    if isinstance(dtype, np.dtype) or type(array) is own:
        return pack_array(packer, array.to_numpy())
    if type(dtype) is pd.DatetimeTZDtype:
        ticks = pack_array(packer, pd.DatetimeIndex(array).asi8)
        return ["pandas.datetimes", ticks, dtype.unit, _pack_zone(packer, dtype.tz)]
    if type(dtype) is pd.PeriodDtype:
        return ["pandas.periods", pack_array(packer, array.asi8), array.freqstr]
    if type(dtype) is pd.CategoricalDtype:
        categories = _pack_index(packer, dtype.categories)
        codes = pack_array(packer, np.asarray(array.codes))
        return ["pandas.categories", codes, categories, dtype.ordered]
    if type(dtype) is pd.IntervalDtype:
        sides = (_pack_index(packer, array.left), _pack_index(packer, array.right))
        return ["pandas.intervals", *sides, dtype.closed]
    if type(dtype) is pd.StringDtype:
        items = [None if item is pd.NA or item != item else item for item in array.tolist()]
        has_nan = getattr(dtype, "na_value", pd.NA) is not pd.NA
        is_usual = dtype.storage == _string_type(pd, None, has_nan).storage
        if not is_usual and dtype.storage == "pyarrow":
            packer.needs.add("pyarrow")
        storage = None if is_usual else dtype.storage
        return ["pandas.strings", packer.node(items), storage, has_nan]
    if (maker := _nullable_maker(pd, dtype)) is not None:
        values = array.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        missing = np.asarray(array.isna(), dtype=bool)
        return ["pandas.nullable", maker, pack_array(packer, values), pack_array(packer, missing)]
    if type(dtype) is pd.ArrowDtype:
        import pyarrow as pa

        table = pa.table({"": array.__arrow_array__()})
        return ["pandas.arrow", _arrow_bytes(packer, table)]
    if type(dtype) is pd.SparseDtype:
        raise packer.refuse(array, "is sparse; .sparse.to_dense() gives what can travel")
    raise packer.refuse(array)


def _nullable_maker(pd: Any, dtype: Any) -> str | None:
    if type(dtype) is pd.BooleanDtype:
        return "BooleanArray"
    name = type(dtype).__name__
    if type(dtype) is getattr(pd, name, None):
        if name in ("Float32Dtype", "Float64Dtype"):
            return "FloatingArray"
        if name.startswith(("Int", "UInt")):
            return "IntegerArray"
    return None


def _string_type(pd: Any, storage: str | None, has_nan: bool) -> Any:
    """Return a string type; without a storage, with the one that pandas chooses."""
    if not has_nan:
        return pd.StringDtype(storage)
    return pd.StringDtype(storage, na_value=float("nan"))


# pandas, unpacking.


def _data_frame(
    unpacker: Unpacker,
    columns: list[Any],
    index: Any,
    labels: Any,
    attrs: Any,
    allows_duplicates: bool,
) -> Any:
    import pandas as pd

    rows = _index(unpacker, index)
    data = {at: _series_of(unpacker, node, rows) for at, node in enumerate(columns)}
    frame = pd.DataFrame(data, index=rows, copy=False)
    frame.columns = _index(unpacker, labels)
    return _with_extras(unpacker, frame, attrs, allows_duplicates)


def _series(
    unpacker: Unpacker, array: Any, index: Any, name: Any, attrs: Any, allows_duplicates: bool
) -> Any:
    series = _series_of(unpacker, array, _index(unpacker, index))
    series.name = unpacker.value(name)
    return _with_extras(unpacker, series, attrs, allows_duplicates)


def _series_of(unpacker: Unpacker, node: Any, index: Any) -> Any:
    import pandas as pd

    array = _column(unpacker, node)
    if len(array) != len(index):
        raise UnpackError("a column is not as long as its index")
    return pd.Series(array, index=index, dtype=array.dtype, copy=False)


def _with_extras(unpacker: Unpacker, value: Any, attrs: Any, allows_duplicates: bool) -> Any:
    value.attrs = unpacker.typed(attrs, dict)
    if not allows_duplicates:
        value.flags.allows_duplicate_labels = False
    return value


def _column(unpacker: Unpacker, node: Any) -> Any:
    """Return an array of one dimension, of numpy or pandas."""
    import numpy as np
    import pandas as pd

    array = unpacker.value(node)
    if type(array) is not np.ndarray and not isinstance(array, pd.api.extensions.ExtensionArray):
        raise UnpackError("a column has no values")
    if array.ndim != 1:
        raise UnpackError("a column has more than one dimension")
    return array


def _index(unpacker: Unpacker, node: Any) -> Any:
    import pandas as pd

    index = unpacker.value(node)
    if not isinstance(index, pd.Index):
        raise UnpackError("a table has no index")
    return index


def _range_index(unpacker: Unpacker, names: Any, start: int, stop: int, step: int) -> Any:
    import pandas as pd

    (name,) = unpacker.value(names)
    return pd.RangeIndex(start, stop, step, name=name)


def _multi_index(unpacker: Unpacker, names: Any, levels: list[Any], codes: list[Any]) -> Any:
    import pandas as pd

    return pd.MultiIndex(
        levels=[_index(unpacker, level) for level in levels],
        codes=[_column(unpacker, code) for code in codes],
        names=unpacker.value(names),
    )


def _plain_index(unpacker: Unpacker, names: Any, array: Any, freq: str | None) -> Any:
    import pandas as pd

    (name,) = unpacker.value(names)
    values = _column(unpacker, array)
    index = pd.Index(values, dtype=values.dtype, name=name, tupleize_cols=False, copy=False)
    if freq is not None:
        index.freq = freq
    return index


def _missing(unpacker: Unpacker, name: str) -> Any:
    import pandas as pd

    return pd.NA if name == "NA" else pd.NaT


def _timestamp(unpacker: Unpacker, ticks: int, unit: str, zone: Any) -> Any:
    import numpy as np
    import pandas as pd

    naive = pd.Timestamp(np.datetime64(ticks, unit))  # type: ignore[call-overload, unused-ignore]
    tz = unpacker.value(zone)
    return naive if tz is None else naive.tz_localize("UTC").tz_convert(tz)


def _timedelta(unpacker: Unpacker, ticks: int, unit: str) -> Any:
    import numpy as np
    import pandas as pd

    return pd.Timedelta(np.timedelta64(ticks, unit))  # type: ignore[call-overload, unused-ignore]


def _period(unpacker: Unpacker, ordinal: int, freq: str) -> Any:
    import pandas as pd

    return pd.Period(ordinal=ordinal, freq=freq)


def _interval(unpacker: Unpacker, left: Any, right: Any, closed: Any) -> Any:
    import pandas as pd

    return pd.Interval(unpacker.value(left), unpacker.value(right), closed)


def _pytz(unpacker: Unpacker, name: str) -> Any:
    import pytz

    return pytz.timezone(name)


def _datetimes(unpacker: Unpacker, ticks: Any, unit: str, zone: Any) -> Any:
    import pandas as pd

    times = pd.DatetimeIndex(_column(unpacker, ticks).view(f"M8[{unit}]"))
    return times.tz_localize("UTC").tz_convert(unpacker.value(zone)).array


def _periods(unpacker: Unpacker, ordinals: Any, freq: str) -> Any:
    import pandas as pd

    return pd.arrays.PeriodArray(_column(unpacker, ordinals), dtype=pd.PeriodDtype(freq))


def _categories(unpacker: Unpacker, codes: Any, categories: Any, ordered: Any) -> Any:
    import pandas as pd

    dtype = pd.CategoricalDtype(_index(unpacker, categories), ordered=ordered)
    return pd.Categorical.from_codes(_column(unpacker, codes), dtype=dtype)


def _intervals(unpacker: Unpacker, left: Any, right: Any, closed: Any) -> Any:
    import pandas as pd

    sides = _index(unpacker, left), _index(unpacker, right)
    return pd.arrays.IntervalArray.from_arrays(*sides, closed=closed)


def _strings(unpacker: Unpacker, items: Any, storage: str | None, has_nan: bool) -> Any:
    import pandas as pd

    dtype = _string_type(pd, storage, has_nan)
    return pd.array(unpacker.typed(items, list), dtype=dtype)


def _nullable(unpacker: Unpacker, maker: str, values: Any, missing: Any) -> Any:
    import pandas as pd

    makers = ("BooleanArray", "FloatingArray", "IntegerArray")
    make = getattr(pd.arrays, makers[makers.index(maker)])
    return make(_column(unpacker, values), _column(unpacker, missing))


# polars and pyarrow.


def pack_arrow(packer: Packer, value: Any) -> Any:
    """Return the node of an object with `__arrow_c_stream__`, or of a column of pyarrow."""
    library, kind = type(value).__module__.partition(".")[0], type(value).__name__
    if library == "polars":
        return _pack_polars(packer, value)
    try:
        import pyarrow as pa
    except ImportError:
        raise packer.refuse(value, "needs pyarrow to travel, which is not installed") from None
    packer.needs.add("pyarrow")
    if library == "pyarrow" and isinstance(value, (pa.Array, pa.ChunkedArray)):
        name = "ChunkedArray" if isinstance(value, pa.ChunkedArray) else "Array"
        return ["arrow", "pyarrow", name, _arrow_bytes(packer, pa.table({"": value}))]
    if library == "pyarrow" and kind == "RecordBatch":
        table = pa.Table.from_batches([value])
        return ["arrow", "pyarrow", kind, _arrow_bytes(packer, table)]
    if isinstance(value, pa.Table):
        return ["arrow", "pyarrow", "Table", _arrow_bytes(packer, value)]
    if library == "pyarrow":  # a reader among them, which packing would use up
        raise packer.refuse(value)
    packer.change(value, "a pyarrow table")
    table = pa.RecordBatchReader.from_stream(value).read_all()
    return ["arrow", "pyarrow", "Table", _arrow_bytes(packer, table)]


def _pack_polars(packer: Packer, value: Any) -> Any:
    import io

    import polars as pl

    packer.needs.add("polars")
    if type(value) is pl.LazyFrame:
        raise packer.refuse(value, "has not been computed; .collect() gives what can travel")
    if type(value) not in (pl.DataFrame, pl.Series):
        raise packer.refuse(value)
    frame = value.to_frame() if type(value) is pl.Series else value
    if any(dtype == pl.Object for dtype in frame.dtypes):
        raise packer.refuse(value, "has Python objects in a column")
    packer.check_room(int(frame.estimated_size()))
    sink = io.BytesIO()
    frame.write_ipc_stream(sink)
    return ["arrow", "polars", type(value).__name__, packer.blob(sink.getvalue())]


def _arrow_bytes(packer: Packer, table: Any) -> int:
    import pyarrow as pa

    packer.needs.add("pyarrow")
    packer.check_room(table.nbytes)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    number: int = packer.blob(sink.getvalue().to_pybytes())
    return number


def _arrow(unpacker: Unpacker, library: str, kind: str, blob: int) -> Any:
    data = unpacker.take(blob)
    if library == "polars":
        frame = _polars_frame(data)
        if frame is not None:
            return frame.to_series(0) if kind == "Series" else frame
    table = _arrow_table(data, library)
    if library != "pyarrow" or kind == "Table":
        return table
    if kind == "RecordBatch":
        import pyarrow as pa

        batches = table.to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    column = table.column(0)
    return column if kind == "ChunkedArray" else column.combine_chunks()


def _polars_frame(data: bytes) -> Any:
    try:
        import polars as pl
    except ImportError:
        return None
    return pl.read_ipc_stream(data)


def _arrow_table(data: bytes, library: str) -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise UnpackError(missing(library)) from None
    if not IS_REMOTE and _version(pa) < (14, 0, 1):
        raise UnpackError(
            f"pyarrow {pa.__version__} would run code that a table may hold (CVE-2023-47248): "
            "pip install 'pyarrow>=14.0.1'"
        )
    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return table


def _version(library: Any) -> tuple[int, ...]:
    import re

    return tuple(map(int, re.findall(r"\d+", library.__version__)[:3]))


def _pandas_arrow(unpacker: Unpacker, blob: int) -> Any:
    import pandas as pd

    return pd.arrays.ArrowExtensionArray(_arrow_table(unpacker.take(blob), "pyarrow").column(0))


KINDS: dict[object, Callable[..., Any]] = {
    "pandas.DataFrame": _data_frame,
    "pandas.Series": _series,
    "pandas.RangeIndex": _range_index,
    "pandas.MultiIndex": _multi_index,
    "pandas.Index": _plain_index,
    "pandas.missing": _missing,
    "pandas.Timestamp": _timestamp,
    "pandas.Timedelta": _timedelta,
    "pandas.Period": _period,
    "pandas.Interval": _interval,
    "pandas.pytz": _pytz,
    "pandas.datetimes": _datetimes,
    "pandas.periods": _periods,
    "pandas.categories": _categories,
    "pandas.intervals": _intervals,
    "pandas.strings": _strings,
    "pandas.nullable": _nullable,
    "pandas.arrow": _pandas_arrow,
    "arrow": _arrow,
}
