"""Random programs: the state after several cells is that of one living interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 - before the forks
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.remote.sessions.keeper import in_child, job, run_cell
from tests.unit.remote.sessions.observing import observe

NAMES = st.sampled_from(list("abcd"))
FUNCTIONS = st.sampled_from(list("fg"))
CLASSES = st.sampled_from(["A", "B"])
ANY = st.one_of(NAMES, NAMES, FUNCTIONS, CLASSES)
SMALL = st.integers(0, 3)

STATEMENTS = st.one_of(
    st.builds("{} = {}".format, NAMES, SMALL),
    st.builds("{} = []".format, NAMES),
    st.builds("{} = {}".format, NAMES, ANY),
    st.builds("{} = [{}, {}]".format, NAMES, ANY, ANY),
    st.builds("{} = {{'k': {}, 'l': ({}, 1)}}".format, NAMES, ANY, ANY),
    st.builds("{}.append({})".format, NAMES, ANY),
    st.builds("{}['k'] = {}".format, NAMES, ANY),
    st.builds("{}[0] = {}".format, NAMES, SMALL),
    st.builds("{} = np.arange({} + 2)".format, NAMES, SMALL),
    st.builds("{} = np.zeros(9000)[{}:]".format, NAMES, SMALL),
    st.builds("{} = {}[{}:4]".format, NAMES, NAMES, SMALL),
    st.builds("{} = {}[::2]".format, NAMES, NAMES),
    st.builds("{} += {}".format, NAMES, SMALL),
    st.builds("def {}(): return {}".format, FUNCTIONS, ANY),
    st.builds("def {}(x={}): return x, {}".format, FUNCTIONS, ANY, ANY),
    st.builds("{}, {} = pair({})".format, NAMES, FUNCTIONS, ANY),
    st.builds("{}({})".format, FUNCTIONS, SMALL),
    st.builds("{}.mark = {}".format, ANY, ANY),
    st.builds("class {}:\n v = {}\n def m(self): return {}".format, CLASSES, SMALL, ANY),
    st.builds("class {}({}):\n def n(self): return super().m()".format, CLASSES, CLASSES),
    st.builds("{} = {}()".format, NAMES, CLASSES),
    st.builds("{}.v = {}".format, CLASSES, ANY),
    st.builds("{} = {}.m".format, NAMES, NAMES),
    st.builds("del {}".format, ANY),
    st.builds("def {}():\n global {}\n {} = {}".format, FUNCTIONS, NAMES, NAMES, SMALL),
    st.builds("exec('{} = {}')".format, NAMES, SMALL),
)  # fmt: skip
CELLS = st.lists(st.lists(STATEMENTS, min_size=1, max_size=5), min_size=2, max_size=5)

START = (
    "import numpy as np\n"
    "def pair(v):\n    def get(): return v\n    def put(w):\n        nonlocal v\n        v = w\n"
    "    return get, put\n"
)


def source_of(statements: list[str]) -> str:
    """Each statement may fail, in a session as in a living interpreter."""
    return "".join(
        f"try:\n {statement.replace(chr(10), chr(10) + ' ')}\nexcept Exception: pass\n"
        for statement in statements
    )


def alive(sources: list[str]) -> Any:
    import sys
    import types

    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    for source in sources:
        exec(compile(source, "<cell>", "exec", dont_inherit=True), vars(main))
    return {"state": observe(vars(main))}


def one_cell(folder: str, source: str, step: dict[str, Any], is_last: bool) -> Any:
    if is_last:
        source = (
            "from tests.unit.remote.sessions.observing import observe\nresult_ = observe(globals())"
        )
    (error, told, result), _ = run_cell(Path(folder), source, step)
    return {"error": error, "told": told, "state": result}


def check(cells: list[list[str]]) -> None:
    sources = [START, *map(source_of, cells)]
    expected = in_child(alive, sources)
    with tempfile.TemporaryDirectory() as folder:
        parent = None
        for number, source in enumerate([*sources, ""], 1):
            is_last = number > len(sources)
            ended = in_child(one_cell, folder, source, job(number, parent), is_last)
            assert not ended["error"], ended
            assert ended["told"]["lost"] == []
            parent = {"id": ended["told"]["id"], "sha256": ended["told"]["sha256"]}
    values = [entry for entry in ended["state"][0] if entry[0] != "observe"]
    assert [values, ended["state"][1]] == expected["state"]


SETTINGS = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
)


@given(CELLS)
@settings(SETTINGS, max_examples=25)
def test_a_session_is_like_one_interpreter(cells: list[list[str]]) -> None:
    check(cells)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@given(CELLS)
@settings(SETTINGS, max_examples=1000, derandomize=False)
def test_a_session_is_like_one_interpreter_in_many_programs(cells: list[list[str]]) -> None:
    check(cells)
