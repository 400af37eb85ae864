"""Values are the same after they travelled; what cannot travel is one sentence."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
import threading
import uuid
import venv
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lyceum_magic.exceptions import TransferError
from lyceum_magic.outputs.decoding import Harvest, decode
from lyceum_magic.outputs.values import Values
from lyceum_magic.protocol.events import Output
from lyceum_magic.remote.refusals import MAX_BYTES, PackError, TooLarge, UnpackError
from lyceum_magic.remote.values import Packer, encode_inputs, pack, unpack
from lyceum_magic.submission.wrapping import wrap_cell
from tests.tools.samples import examples
from tests.unit.remote.interpreters import INTERPRETERS, LIMIT_S

MARK = "abcdefabcdef"
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata"]


@dataclasses.dataclass
class Point:
    x: object
    y: object = None


@dataclasses.dataclass(frozen=True, order=True)
class Frozen:
    name: str

    def __post_init__(self) -> None:
        counted.append(self.name)


counted: list[str] = []


@dataclasses.dataclass
class Slotted:
    __slots__ = ("a",)
    a: int


class PlainSub(Point):
    more: object

    @functools.cached_property
    def double(self) -> list[object]:
        return [self.x] * 2


class SlottedSub(Slotted):
    __slots__ = ("b",)


def round_trip(value: Any) -> Any:
    return unpack(pack(value))


def assert_same(got: Any, sent: Any) -> None:
    """The same type and content, all the way down; stricter than `==`."""
    assert type(got) is type(sent)
    match sent:
        case float():
            assert np.float64(got).tobytes() == np.float64(sent).tobytes() or (got != got) == (
                sent != sent
            )
            assert math.copysign(1, got) == math.copysign(1, sent) or sent != sent
        case complex():
            assert repr(got) == repr(sent)
        case list() | tuple():
            assert len(got) == len(sent)
            for one, other in zip(got, sent, strict=True):
                assert_same(one, other)
        case dict():
            assert_same(list(got.items()), list(sent.items()))
        case set() | frozenset():
            assert got == sent
            kinds = [sorted(type(item).__name__ for item in items) for items in (got, sent)]
            assert kinds[0] == kinds[1]
        case datetime.datetime() | datetime.time():
            assert repr(got) == repr(sent)
            assert got.fold == sent.fold
        case np.ndarray():
            assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
            assert got.dtype.str == sent.dtype.str
            assert got.flags.f_contiguous == sent.flags.f_contiguous or not sent.flags.contiguous
            if sent.dtype == object:
                assert_same(got.ravel().tolist(), sent.ravel().tolist())
            else:
                assert got.tobytes() == sent.tobytes()
            assert got.flags.owndata
            assert got.flags.writeable
        case Point():
            assert_same([got.x, got.y], [sent.x, sent.y])
        case _:
            assert repr(got) == repr(sent)


# Python's own.

offsets = st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)).map(
    datetime.timezone
)
zones = st.none() | st.sampled_from(ZONES).map(zoneinfo.ZoneInfo) | offsets
any_text = st.text(st.characters())  # lone surrogates too
keys = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | any_text
    | st.binary()
    | st.dates()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
)
leaves = (
    keys
    | st.floats()
    | st.complex_numbers()
    | st.binary().map(bytearray)
    | st.decimals()
    | st.datetimes(timezones=zones)
    | st.times(timezones=st.none() | offsets)
    | st.timedeltas()
    | zones
    | st.builds(range, st.integers(), st.integers(), st.integers(1))
    | st.builds(slice, st.integers(), st.none(), any_text)
    | st.sampled_from([Path("a/b"), pathlib.PurePosixPath("/"), pathlib.PureWindowsPath("c:/x")])
)
hashables = st.recursive(keys, lambda inner: st.tuples(inner, inner) | st.frozensets(inner))
nested = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(keys, inner)
        | st.dictionaries(any_text, inner)
        | st.tuples(inner, inner)
        | st.sets(keys)
        | st.tuples(hashables)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=20,
)


@given(nested)
@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_what_python_brings_is_the_same_after_it_travelled(value: object) -> None:
    assert_same(round_trip(value), value)


@pytest.mark.parametrize(
    "value",
    [
        2**100_000,
        -(2**63),
        2**63 - 1,
        -0.0,
        float("-inf"),
        "\ud83d\ude00",  # two lone surrogates, and no emoji
        {"\udc00": 1, "": 2},
        {True: 1, None: 2, (1, 2): 3},
        [1, 2**70, True],
        [[], {}, (), set(), b""],
        datetime.datetime(2024, 10, 27, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
        datetime.timezone(datetime.timedelta(hours=1), "a name"),
        datetime.datetime.max,
        decimal.Decimal("-0E-30"),
        decimal.Decimal("sNaN12"),
        fractions.Fraction(-1, 3),
        uuid.UUID(int=7),
        list(range(100_000)),
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, int) else "int",
)
def test_edges_are_exact(value: object) -> None:
    got = round_trip(value)
    assert type(got) is type(value)
    if not isinstance(value, decimal.Decimal):
        assert got == value
    else:
        assert repr(got) == repr(value)
    if isinstance(value, float):
        assert math.copysign(1, got) == math.copysign(1, value)


def test_what_is_in_two_places_arrives_as_two() -> None:
    shared = [1]
    got = round_trip([shared, shared])
    assert got == [[1], [1]]
    assert got[0] is not got[1]


# Dataclasses.


def test_a_dataclass_is_its_own_class_again_and_none_of_its_code_runs() -> None:
    sent = [Frozen("a"), Point(Frozen("b"), np.arange(3)), Slotted(1)]
    counted.clear()
    got = round_trip(sent)
    assert counted == []
    assert (got[0], got[1].x, got[2]) == (Frozen("a"), Frozen("b"), Slotted(1))
    assert_same(got[1].y, np.arange(3))


def test_a_dataclass_that_is_not_here_is_made_with_its_name_and_fields() -> None:
    sent = dataclasses.make_dataclass("Gone", ["a", "b"], frozen=True, order=True)(1, 2)
    type(sent).__module__ = "nowhere.at_all"
    got, again = round_trip([sent, sent])
    assert (type(got).__name__, got.a, got.b) == ("Gone", 1, 2)
    assert dataclasses.is_dataclass(got)
    assert repr(got) == repr(sent) == "Gone(a=1, b=2)"
    assert type(got) is type(again)
    assert len({got, again}) == 1
    assert "nowhere" not in sys.modules
    # And is its own class again where it came from.
    assert type(got).__module__ == "nowhere.at_all"


def test_what_else_a_dataclass_instance_was_given_comes_along() -> None:
    sent = PlainSub(1)
    sent.more = {"a": np.arange(2)}
    assert sent.double == [1, 1]
    got = round_trip(sent)
    assert type(got) is PlainSub
    assert vars(got).keys() == {"x", "y", "more", "double"}
    assert_same(got.more, sent.more)
    gone = dataclasses.make_dataclass("Gone", ["a"])(1)
    gone.other = 2
    assert vars(round_trip(gone)) == {"a": 1, "other": 2}
    with pytest.raises(PackError, match="has slots that are no fields"):
        pack(SlottedSub(1))


def test_a_class_of_other_fields_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack(Point(1, 2))
    monkeypatch.setattr(
        sys.modules[__name__], "Point", dataclasses.make_dataclass("Point", ["x", "z"])
    )
    got = unpack(data)
    assert type(got) is not Point
    assert (got.x, got.y) == (1, 2)


# numpy.

any_array = st.one_of(
    arrays.arrays(dtype=dtype, shape=arrays.array_shapes(min_dims=0, min_side=0))
    for dtype in (
        arrays.boolean_dtypes(),
        arrays.integer_dtypes(),
        arrays.unsigned_integer_dtypes(),
        arrays.floating_dtypes(endianness=">"),
        arrays.floating_dtypes(),
        arrays.complex_number_dtypes(),
        arrays.datetime64_dtypes(),
        arrays.timedelta64_dtypes(endianness=">"),
        arrays.byte_string_dtypes(),
        arrays.unicode_string_dtypes(),
        arrays.nested_dtypes(max_leaves=3),
    )
)


@given(any_array, st.booleans())
@settings(max_examples=examples(150), deadline=None)
def test_arrays_are_the_same(array: np.ndarray[Any, Any], is_fortran: bool) -> None:
    if is_fortran:
        array = np.asfortranarray(array)
    assert_same(round_trip(array), array)


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, [1, {"a": (np.int8(1),)}], np.nan, "ü"], dtype=object),
        np.array([[1, None], ["a", 2.5]], dtype=object, order="F"),
        np.array(None, dtype=object),
        np.empty((0, 3), dtype=object),
        np.empty((2, 0), dtype=">f4"),
        np.empty(2, dtype="U0"),
        np.array([(1, 2.5, "x")], dtype=[("a", ">i4"), ("b", "f8", (2,)), ("c", "S3")]),
        np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.array([1.5], dtype=np.longdouble),
        np.array(["a", "ßß"], dtype=np.dtypes.StringDType()),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_of_a_special_kind_are_the_same(array: np.ndarray[Any, Any]) -> None:
    got = round_trip(array)
    assert (got.dtype, got.shape, repr(got)) == (array.dtype, array.shape, repr(array))
    assert got.flags.f_contiguous == array.flags.f_contiguous
    assert got.flags.owndata


def test_a_slice_of_an_array_is_sent_without_the_rest() -> None:
    whole = np.arange(1_000_000)
    data = pack(whole[::100_000])
    assert len(data) < 500
    assert unpack(data).tolist() == whole[::100_000].tolist()


@pytest.mark.parametrize(
    "scalar",
    [
        np.float32(1.5),
        np.int8(-1),
        np.bool_(True),
        np.str_("a\0"),
        np.bytes_(b"a\0"),
        np.datetime64("NaT"),
        np.datetime64("2024-01-01T00", "h"),
        np.timedelta64(3, "D"),
        np.complex64(1j),
        np.float64("nan"),
        np.void(b"ab"),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])[0],
    ],
    ids=lambda scalar: type(scalar).__name__,
)
def test_numpy_scalars_are_the_same(scalar: np.generic) -> None:
    got = round_trip(scalar)
    assert (type(got), got.dtype, repr(got)) == (type(scalar), scalar.dtype, repr(scalar))


@pytest.mark.parametrize("mask", [[False, True, False], np.ma.nomask])
def test_masked_arrays_are_the_same(mask: Any) -> None:
    sent: Any = np.ma.array([1, 2, 3], mask=mask, fill_value=7, hard_mask=True)
    got = round_trip(sent)
    assert type(got) is np.ma.MaskedArray
    assert (got.data.tolist(), got.fill_value, got.hardmask) == ([1, 2, 3], 7, True)
    assert np.array_equal(got.mask, sent.mask)
    assert (got.mask is np.ma.nomask) == (sent.mask is np.ma.nomask)


class Tensor:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.arange(3, dtype=">i2")


def test_what_offers_array_arrives_as_one() -> None:
    assert_same(round_trip(Tensor()), np.arange(3, dtype=">i2"))
    assert_same(round_trip(np.array([1, 2]).view(np.recarray)), np.array([1, 2]))


# pandas.

INDEXES = [
    pd.RangeIndex(1, 9, 3, name="r"),
    pd.RangeIndex(0),
    pd.Index([1, 2], dtype="int8"),
    pd.Index([1.5, float("nan")], name=("x", 1)),
    pd.Index([True, False]),
    pd.Index(["a", None]),
    pd.Index(["a", "b"], dtype=object),
    pd.Index(["a", None, 1.5, float("nan"), pd.NA, pd.NaT], dtype=object),
    pd.Index([(1, 2), (3, 4)], tupleize_cols=False),
    pd.Index([], dtype=object),
    pd.Index([1, None], dtype="Int32"),
    pd.MultiIndex.from_product([[1, 2], ["a", None]], names=["x", None]),
    pd.MultiIndex.from_tuples([(1, pd.Timestamp("2024", tz="UTC"))])[:0],
    pd.date_range("2024", periods=3, tz="Europe/Berlin", freq="D"),
    pd.date_range("2024-10-27 00:30", periods=4, tz="Europe/Berlin", freq="h"),
    pd.date_range("2024", periods=3, unit="s"),
    pd.DatetimeIndex(["2024", None]),
    pd.bdate_range("2024", periods=3),
    pd.timedelta_range("1h", periods=3),
    pd.period_range("2024", periods=3, freq="M"),
    pd.interval_range(0, 3, closed="both"),
    pd.IntervalIndex.from_breaks(pd.date_range("2024", periods=3, tz="UTC")),
    pd.CategoricalIndex(["a", "b", None], categories=["b", "a"], ordered=True),
]


@pytest.mark.parametrize(
    "index", INDEXES, ids=lambda index: f"{type(index).__name__}-{index.dtype}"
)
def test_indexes_are_the_same(index: Any) -> None:
    got = round_trip(index)
    pd.testing.assert_index_equal(got, index, exact=True)
    assert (type(got), got.dtype, list(got.names)) == (type(index), index.dtype, list(index.names))
    assert getattr(got, "freq", None) == getattr(index, "freq", None)
    assert list(map(type, got)) == list(map(type, index))


COLUMNS = {
    "text": ["a", None, "c"],
    "objects": pd.Series([None, float("nan"), {"a": [1, "x"]}], dtype=object),
    "missing": pd.Series([pd.NA, pd.NaT, None], dtype=object),
    "texts as objects": pd.Series(["a", "b", "c"], dtype=object),
    "numbers": np.array([1.5, np.nan, -0.0]),
    "small": np.array([1, 2, 3], dtype="i1"),
    "truth": [True, False, True],
    "Int8": pd.array([1, None, 3], dtype="Int8"),
    "UInt64": pd.array([2**64 - 1, None, 3], dtype="UInt64"),
    "Float32": pd.array([1.5, None, 3], dtype="Float32"),
    "boolean": pd.array([True, None, False]),
    "string": pd.array(["a", None, "\N{SNOWMAN}"], dtype="string"),
    "string[python]": pd.array(["a", None, "c"], dtype="string[python]"),
    "category": pd.Categorical(["a", None, "b"], categories=["b", "a", "z"], ordered=True),
    "category of numbers": pd.Categorical([3, 1, 3]),
    "time": pd.to_datetime(["2024", None, "2025"]),
    "time in s": pd.array(["2024", None, "2025"], dtype="datetime64[s]"),
    "time with zone": pd.to_datetime(["2024", None, "2025"]).tz_localize("Asia/Kolkata"),
    "time with offset": pd.to_datetime(["2024", None, "2025"]).tz_localize(
        datetime.timezone(datetime.timedelta(hours=-3))
    ),
    "duration": pd.to_timedelta([1, 2, None]),
    "period": pd.PeriodIndex(["2024-01", None, "2024-03"], freq="M"),
    "interval": pd.IntervalIndex.from_tuples([(0.0, 1.0), None, (1.0, 2.5)]),
    "arrow numbers": pd.array([1, None, 2], dtype="int64[pyarrow]"),
    "arrow texts": pd.array(["1", None, "2"], dtype=pd.ArrowDtype(pa.string())),
    "complex": np.array([1j, 2, 3]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_are_the_same(kind: str) -> None:
    frame = pd.DataFrame({kind: COLUMNS[kind]})
    assert_same_frame(round_trip(frame), frame)
    series = frame[kind].iloc[::-1]
    got = round_trip(series)
    pd.testing.assert_series_equal(got, series, check_exact=True, check_index_type="exact")
    assert got.dtype == series.dtype


def test_a_frame_of_all_of_them_is_the_same() -> None:
    frame = pd.DataFrame(COLUMNS)
    frame.attrs = {"unit": ["m", {"a": 1}]}
    got = round_trip(frame)
    assert_same_frame(got, frame)
    assert got.attrs == frame.attrs
    assert [getattr(t, "storage", None) for t in got.dtypes] == [
        getattr(t, "storage", None) for t in frame.dtypes
    ]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(),
        pd.DataFrame(index=[1, 2]),
        pd.DataFrame(columns=["a", "b"]),
        pd.DataFrame([[1, "x"], [3, "y"]], columns=["a", "a"]),
        pd.DataFrame(
            [[1, 2, 3]], columns=pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, "a")])
        ),
        pd.DataFrame({0: [1], ("a", 1): [2], None: [3], pd.Timestamp("2024"): [4]}),
        pd.DataFrame({"a": []}, dtype="datetime64[s]"),
        pd.DataFrame({"a": [1]}, index=["x"]).rename_axis(index="i", columns="c"),
        pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
        pd.DataFrame(np.arange(6).reshape(2, 3)[:, ::-1]),
    ],
    ids=lambda frame: str(frame.columns.tolist()),
)
def test_frames_of_a_special_shape_are_the_same(frame: pd.DataFrame) -> None:
    assert_same_frame(round_trip(frame), frame)


def assert_same_frame(got: Any, sent: Any) -> None:
    pd.testing.assert_frame_equal(
        got,
        sent,
        check_exact=True,
        check_freq=True,
        check_flags=True,
        check_index_type="exact",
        check_column_type="exact",
    )
    assert list(got.dtypes) == list(sent.dtypes)
    for at in range(sent.shape[1]):
        if sent.dtypes.iloc[at] == np.dtype(object):  # None, NaN, NA and NaT are equal to pandas
            assert list(map(type, got.iloc[:, at])) == list(map(type, sent.iloc[:, at]))


@pytest.mark.parametrize(
    "value",
    [
        pd.NA,
        pd.NaT,
        pd.Timestamp("2024-10-27 01:30", tz="UTC").tz_convert("Europe/Berlin"),
        pd.Timestamp("2024").as_unit("s"),
        pd.Timestamp.max,
        pd.Timedelta("1s"),
        pd.Timedelta(3, "D").as_unit("ms"),
        pd.Period("2024-01", "M"),
        pd.Interval(0, 1.5, "both"),
        pd.array([1, None], dtype="Int8"),
        pd.Categorical(["a"]),
    ],
    ids=repr,
)
def test_pandas_scalars_and_arrays_are_the_same(value: Any) -> None:
    got = round_trip(value)
    assert (type(got), repr(got)) == (type(value), repr(value))
    assert getattr(got, "unit", None) == getattr(value, "unit", None)


# Arrow.


def test_polars_and_pyarrow_objects_are_the_same() -> None:
    frame = pl.DataFrame(
        {
            "a": [1, None],
            "category": pl.Series(["u", "v"], dtype=pl.Categorical),
            "enum": pl.Series(["u", "v"], dtype=pl.Enum(["v", "u"])),
            "list": [[1], []],
            "time": [datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), None],
            "decimal": [decimal.Decimal("1.50"), None],
        }
    )
    got = round_trip(frame)
    assert got.equals(frame)
    assert got.schema == frame.schema
    assert round_trip(frame["list"]).equals(frame["list"])
    assert round_trip(frame["a"]).name == "a"
    assert round_trip(frame.clear()).schema == frame.schema
    table = pa.table({"a": [1, None]}, metadata={"k": "v"})
    assert round_trip(table).equals(table, check_metadata=True)
    batch = table.to_batches()[0]
    assert round_trip(batch).equals(batch)
    assert round_trip(table["a"]).equals(table["a"])
    assert round_trip(pa.array(["x"])).equals(pa.array(["x"]))


class Stream:
    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pa.table({"a": [1, 2]}).__arrow_c_stream__(requested_schema)


def test_what_offers_an_arrow_stream_arrives_as_a_table() -> None:
    assert round_trip(Stream()).equals(pa.table({"a": [1, 2]}))


def test_without_polars_its_table_arrives_as_pyarrows_and_without_both_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = pack(pl.DataFrame({"a": [1]}))
    monkeypatch.setitem(sys.modules, "polars", None)
    assert unpack(data).to_pylist() == [{"a": 1}]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnpackError, match=r"^polars is not installed here: pip install polars$"):
        unpack(data)


@pytest.mark.parametrize(
    ("value", "needs"),
    [
        (1, set()),
        (np.arange(3), {"numpy"}),
        (pd.DataFrame({"a": [1]}), {"numpy", "pandas"}),
        (pl.DataFrame({"a": [1]}), {"polars"}),
        (pa.table({"a": [1]}), {"pyarrow"}),
        (pd.Series(["a"]), {"pandas"}),
    ],
)
def test_a_packer_knows_what_unpacking_takes(value: object, needs: set[str]) -> None:
    packer = Packer()
    packer.pack("x", value)
    assert packer.needs == needs


# What cannot travel.


def holds_itself() -> list[object]:
    value: list[object] = []
    value.append({"a": value})
    return value


def deep() -> object:
    return functools.reduce(lambda inner, _: [inner], range(200), None)


class Unreadable:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("it is on\nthe GPU")


Colour = enum.Enum("Colour", ["RED"])
HINT = "; --pickle would send it as a pickle"
PLAIN = f", which cannot travel as data{HINT}"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (threading.Lock(), f"v is a _thread.lock{PLAIN}"),
        ([print], f"v holds a builtin_function_or_method{PLAIN}"),
        ({"a": object()}, f"v holds an object{PLAIN}"),
        (Colour.RED, f"v is a {__name__}.Colour{PLAIN}"),
        (collections.OrderedDict(), f"v is a collections.OrderedDict{PLAIN}"),
        (type("Subclass", (dict,), {"__module__": "__main__"})(), f"v is a Subclass{PLAIN}"),
        (holds_itself(), "v holds a list that holds itself, and only a pickle can"),
        (deep(), "v is nested more than 100 deep, which only a pickle can be"),
        (
            Unreadable(),
            (
                f"v is a {__name__}.Unreadable, which gives no numpy array (RuntimeError: it is on "
                f"the GPU){HINT}"
            ),
        ),
        (
            pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}),
            (
                "v holds a pandas.arrays.SparseArray, which is sparse; .sparse.to_dense() gives "
                f"what can travel{HINT}"
            ),
        ),
        (
            pl.LazyFrame({"a": [1]}),
            (
                "v is a polars.lazyframe.frame.LazyFrame, which has not been computed; .collect() "
                f"gives what can travel{HINT}"
            ),
        ),
        (
            np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")]),
            f"v is a numpy.ndarray, which has objects in its fields{HINT}",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused_in_one_sentence(value: object, said: str) -> None:
    with pytest.raises(PackError) as caught:
        pack(value, "v")
    assert str(caught.value) == said
    assert not isinstance(caught.value, TooLarge)


@pytest.mark.parametrize("version", ["9.0.0", "14.0.0", "14.0.0.dev12"])
def test_a_pyarrow_that_runs_what_comes_with_a_table_gets_none(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    table = pa.table({"a": [1]})
    data = pack(table)
    monkeypatch.setattr(pa, "__version__", "14.0.1")
    assert unpack(data) == table
    monkeypatch.setattr(pa, "__version__", version)
    with pytest.raises(UnpackError, match=f"pyarrow {version} would run code .*pyarrow>=14.0.1"):
        unpack(data)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(MAX_BYTES),
        np.broadcast_to(np.zeros(1), (10**12,)),  # made whole, it would fill any machine
        b"x" * MAX_BYTES,
        pd.DataFrame({"a": np.zeros(MAX_BYTES)}),
        ["x" * 1000] * 20_000,
    ],
    ids=["array", "broadcast", "bytes", "frame", "texts"],
)
def test_what_is_too_large_is_refused_before_it_is_made(value: object) -> None:
    with pytest.raises(TooLarge, match=r"^v takes more than the 10 MiB left for it$"):
        pack(value, "v")


def test_a_billion_laughs_are_refused_before_they_are_made() -> None:
    laughs = functools.reduce(lambda inner, _: [inner, inner], range(60), "x")
    with pytest.raises(TooLarge, match=r"^v takes more than the 1 MiB left for it$"):
        Packer(max_bytes=2**20).pack("v", laughs)


def test_several_values_share_one_limit() -> None:
    packer = Packer(max_bytes=1000)
    packer.pack("a", b"x" * 600)
    with pytest.raises(TooLarge, match=r"^b takes more than the [34].. bytes left for it$"):
        packer.pack("b", b"x" * 600)
    packer.pack("c", b"x" * 300)


# Pickles.


def test_a_pickle_travels_and_is_loaded_only_where_both_sides_allow_it() -> None:
    data = pack([lambda x: x + 1, Colour.RED], allow_pickle=True)
    function, colour = unpack(data, allow_pickle=True)
    assert function(1) == 2
    assert colour is Colour.RED
    with pytest.raises(UnpackError, match=r"^it came as a pickle, which only --pickle"):
        unpack(data)


def test_what_needs_no_pickle_is_none_even_where_it_may_be() -> None:
    assert pack([1, np.arange(3)], allow_pickle=True) == pack([1, np.arange(3)])


def test_a_pickle_keeps_cycles() -> None:
    got = unpack(pack(holds_itself(), allow_pickle=True), allow_pickle=True)
    assert got[0]["a"] is got


def test_a_pickle_of_another_python_is_refused_by_name() -> None:
    here = "{}.{}".format(*sys.version_info)
    data = pack(Colour.RED, allow_pickle=True).replace(f'"{here}"'.encode(), b'"3.99"')
    data = data[:4] + (len(data.split(b"]]")[0]) - 6).to_bytes(4, "big") + data[8:]
    with pytest.raises(UnpackError, match=rf"by Python 3\.99, .* here is {here}$"):
        unpack(data, allow_pickle=True)


def test_without_cloudpickle_one_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(PackError) as caught:
        pack(print, "p", allow_pickle=True)
    assert str(caught.value) == (
        "p needs a pickle, and cloudpickle is not installed here: "
        "pip install 'lyceum-magic[pickle]'"
    )


def test_what_no_pickle_can_hold_is_one_sentence() -> None:
    with pytest.raises(PackError, match=r"^v is a _thread.lock, which no pickle .*'_thread.lock'"):
        pack(threading.Lock(), "v", allow_pickle=True)


# Hostile bytes.

SAMPLES = [
    pack(value)
    for value in (
        [1, {"a": (2.5, None)}, b"xyz", Point(1, 2), range(3)],
        np.arange(6).reshape(2, 3),
        np.array([(1, 2.5)], dtype=[("a", ">i4"), ("b", "f8")]),
        np.ma.array([1, 2], mask=[True, False]),
        pd.DataFrame({k: v for k, v in COLUMNS.items() if "arrow" not in k}),
        pd.Series([1, 2], index=INDEXES[11][:2]),
        pd.Series([1, 2, 3], index=INDEXES[13]),
        datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    )
]


def unpack_hostile(data: bytes) -> None:
    """Unpack hostile bytes: only an `UnpackError` may leave, with a text of one line."""
    said = ""
    try:
        unpack(data)
    except UnpackError as error:
        said = str(error)
    assert "\n" not in said


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore")
def test_damaged_values_are_refused_or_harmless(sample: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(sample)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = draw.draw(st.integers(0, 255))
    end = draw.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))
    unpack_hostile(bytes(damaged[:end]))


def kinds() -> list[str]:
    from lyceum_magic.remote import arrays, kinds, tables

    return sorted(map(str, {*kinds.KINDS, *arrays.KINDS, *tables.KINDS, "pickle"}))


json_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["C", "F", "UTC", "ns", "D", "|O", "<i8", "<U9", "V0", "os", "system"])
)
nodes = st.recursive(
    json_leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(lambda kind, rest: [kind, *rest], st.sampled_from(kinds()), st.lists(inner))
    ),
    max_leaves=15,
)


def as_packed(node: object, blobs: list[bytes]) -> bytes:
    text = json.dumps([node, list(map(len, blobs))]).encode()
    return b"".join([b"lyv1", len(text).to_bytes(4, "big"), text, *blobs])


@given(nodes, st.lists(st.binary(max_size=64), max_size=3))
@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore")
def test_any_text_of_the_right_form_is_refused_or_harmless(
    node: object, blobs: list[bytes]
) -> None:
    unpack_hostile(as_packed(node, blobs))


@given(st.binary())
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UnpackError):
        unpack(data)


@pytest.mark.parametrize(
    ("node", "blobs"),
    [
        (["numpy.array", ["tuple", ["<f8", False]], [10**9], "C", 0], [b""]),
        (["numpy.array", ["tuple", ["V0", False]], [10**12], "C", 0], [b""]),
        (["numpy.array", ["tuple", ["|O", False]], [1], "C", 0], [b"\0" * 8]),
        (["numpy.array", ["tuple", ["<U1000000000", False]], [1], "C", 0], [b""]),
        (["numpy.objects", [10**12], "C", []], []),
        (["list", [["bytes", 0], ["bytes", 0]]], [b"x"]),
        (["list", [["bytearray", 7]]], [b"x"]),
        (
            [
                "pandas.Series",
                1,
                ["pandas.RangeIndex", ["list", [None]], 0, 10**12, 1],
                None,
                {},
                True,
            ],
            [],
        ),
        (["dataclass", __name__, "Point.__init__", [True] * 4, ["a b"], [1], {}], []),
        (["dataclass", __name__, "Slotted", [True] * 4, ["a"], [1], {"b": 1}], []),
        (["dataclass", __name__, "Point", [True] * 4, ["x", "y"], [1, 2], 3], []),
        (["zone", "../../etc/passwd"], []),
        (["timedelta", 10**30, 0, 0], []),
        (["int", "z"], []),
        (["pickle", "3.11", 0], [b"cos\nsystem\n(S'true'\ntR."]),
    ],
    ids=str,
)
def test_traps_are_refused(node: object, blobs: list[bytes]) -> None:
    with pytest.raises(UnpackError):
        unpack(as_packed(node, blobs))


def test_what_would_blow_up_is_refused_in_little_memory() -> None:
    """Run in a process whose memory is limited."""
    program = (
        "import resource, sys\n"
        "import numpy, pandas\n"
        "from lyceum_magic.remote.values import unpack, UnpackError\n"
        "data = sys.stdin.buffer.read()\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))\n"
        "try:\n    unpack(data)\nexcept UnpackError as error:\n    print(error)\n"
    )
    data = as_packed(["numpy.array", ["tuple", ["<f8", False]], [10**10], "C", 0], [b"12345678"])
    done = subprocess.run(
        [sys.executable, "-c", program], input=data, capture_output=True, check=True
    )
    assert done.stdout == b"an array is not of its size\n"


# There and back, as they travel.


def send_through(
    python: str, folder: Path, cell: str, inputs: dict[str, object], outputs: list[str]
) -> tuple[Values, subprocess.CompletedProcess[bytes]]:
    packed = {name: pack(value, name, allow_pickle=True) for name, value in inputs.items()}
    text = wrap_cell(cell, mark=MARK, inputs=encode_inputs(packed), outputs=outputs, pickle=True)
    script = folder / "cell.py"
    script.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [python, "-W", "error", str(script)],
        capture_output=True,
        check=False,
        timeout=LIMIT_S,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
    )
    event = Output(done.stdout.decode("utf-8", "surrogateescape"), "stdout")
    harvest = Harvest(decode([event], MARK))
    return Values(harvest.values, allow_pickle=True), done


@pytest.fixture(params=INTERPRETERS.values(), ids=INTERPRETERS.keys())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_python_values_go_there_and_back_in_every_python(python: str, tmp_path: Path) -> None:
    sent = {
        "plain": [None, True, 2**100, float("inf"), "\ud83d\ude00ü", {"a": [1, 2]}],
        "more": {(1, 2): {3, 4}, b"k": bytearray(b"v"), None: frozenset([range(3)]), 1j: -0.0},
        "times": [
            datetime.datetime(
                2024, 10, 27, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1
            ),
            datetime.date.max,
            datetime.time(1),
            datetime.timedelta(-1, 2, 3),
            datetime.UTC,
        ],
        "others": [decimal.Decimal("1.10"), fractions.Fraction(1, 3), uuid.UUID(int=1), Path("a")],
        "point": Point(Frozen("x"), [1]),
    }
    cell = "back = [plain, more, times, others, point]\nassert point.x.name == 'x'"
    values, done = send_through(python, tmp_path, cell, sent, ["back"])
    assert (done.stderr, done.returncode) == (b"", 0)
    assert_same(values["back"][:4], list(sent.values())[:4])
    assert values["back"][4] == sent["point"]


def test_tables_and_arrays_go_there_and_back(tmp_path: Path) -> None:
    sent = {"array": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3))}
    frame = pd.DataFrame(COLUMNS)
    values, done = send_through(
        sys.executable,
        tmp_path,
        "pass",
        {**sent, "frame": frame, "i": INDEXES},
        ["array", "frame", "i"],
    )
    assert (done.stderr, done.returncode) == (b"", 0)
    assert_same(values["array"], sent["array"])
    assert_same_frame(values["frame"], frame)
    for got, index in zip(values["i"], INDEXES, strict=True):
        pd.testing.assert_index_equal(got, index, exact=True)


def test_a_pickle_goes_to_the_same_python_alone(python: str, tmp_path: Path) -> None:
    _, done = send_through(python, tmp_path, "x", {"x": Colour.RED}, [])
    theirs = next(version for version, path in INTERPRETERS.items() if path == python)
    here = "{}.{}".format(*sys.version_info)
    if theirs == here:
        assert b"Colour.RED" in done.stdout
    else:
        assert f"--in x: it was pickled by Python {here}, ".encode() in done.stderr
        assert f"here is {theirs}".encode() in done.stderr
        assert done.returncode == 1


def test_a_missing_library_there_is_one_sentence_with_what_to_add(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    bare = tmp_path / "bare" / "bin" / "python"
    _, done = send_through(str(bare), tmp_path, "x", {"x": np.arange(3)}, [])
    assert b"--in x: numpy is not installed where the cell runs: add -r numpy" in done.stderr
    assert done.returncode == 1


def test_what_exists_arrives_when_the_cell_raises_and_a_problem_is_said(
    python: str, tmp_path: Path
) -> None:
    cell = "import threading\na = 1\nb = threading.Lock()\n1 / 0\nc = 2"
    values, done = send_through(python, tmp_path, cell, {}, ["a", "b", "c"])
    assert dict(values) == {"a": 1}
    assert "c" not in values.source
    problem = values.source["b"].problem
    # The oldest interpreters have no cloudpickle, which was allowed here.
    assert problem.startswith(("b is a _thread.lock, which no pickle", "b needs a pickle, and"))
    assert done.returncode == 1


@given(value=nested)
@settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_a_sample_goes_through_a_real_process(tmp_path: Path, value: object) -> None:
    values, done = send_through(sys.executable, tmp_path, "b = a", {"a": value}, ["b"])
    assert done.returncode == 0, done.stderr
    assert_same(values["b"], value)


def test_a_class_travels_once_with_all_its_instances_and_keeps_its_methods(tmp_path: Path) -> None:
    cell = (
        "from dataclasses import dataclass, field\n@dataclass\nclass Node:\n"
        "    n: int\n    children: list = field(default_factory=list)\n"
        "    def total(self): return self.n + sum(c.total() for c in self.children)\n"
        "tree = Node(1, [Node(2, [Node(3)])] + [Node(1)] * 1000)"
    )
    values, done = send_through(sys.executable, tmp_path, cell, {}, ["tree"])
    assert (done.stderr, done.returncode) == (b"", 0)
    assert values["tree"].total() == 1006
    assert len(values.source["tree"].data) < 200_000


def test_a_dataclass_of_a_module_that_is_not_here_arrives_with_its_fields(tmp_path: Path) -> None:
    (tmp_path / "only_there.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass There:\n    n: int"
    )
    cell = "import only_there\nthing = only_there.There(3)"
    values, done = send_through(sys.executable, tmp_path, cell, {}, ["thing"])
    assert done.returncode == 0, done.stderr
    assert (values["thing"].n, type(values["thing"]).__name__) == (3, "There")


@pytest.mark.parametrize(
    "cell",
    [
        (
            "open('config_helpers.py', 'w').write('class Made: n = 1')\n"
            "import config_helpers\nthing = config_helpers.Made()"
        ),
        (
            "import sys, types\nmade = types.ModuleType('config_helpers')\n"
            "sys.modules['config_helpers'] = made\nexec('class Made: n = 1', vars(made))\n"
            "thing = made.Made()"
        ),
    ],
)
def test_a_module_that_the_cell_made_is_not_looked_for_in_an_index(
    tmp_path: Path, cell: str
) -> None:
    values, done = send_through(sys.executable, tmp_path, cell, {}, ["thing"])
    assert done.returncode == 0, done.stderr
    with pytest.raises(TransferError, match="if the cell made it, bring its file home with --save"):
        values["thing"]
