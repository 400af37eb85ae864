"""Displays of a cell arrive as IPython would have shown them."""

from __future__ import annotations

import base64
import collections
import functools
import io
import re
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.lib.pretty import pretty as as_ipython

from lyceum_magic.outputs.decoding import ClearOutput, Decoded, Display, Raised, decode
from lyceum_magic.protocol.events import Output
from lyceum_magic.remote.display import bundle_of, jsonable, merged, readable
from lyceum_magic.remote.pretty import pretty
from lyceum_magic.submission.wrapping import wrap_cell
from tests.tools.samples import examples
from tests.unit.remote.interpreters import INTERPRETERS
from tests.unit.remote.marked import run_marked

MARK = "0123456789ab"
LIMIT_S = 60


@pytest.fixture(params=INTERPRETERS.values(), ids=INTERPRETERS.keys())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shown(python: str, tmp_path: Path) -> Any:
    """Run a cell in each Python and return what it shows."""
    return functools.partial(run, python, tmp_path)


def run(python: str, folder: Path, cell: str, *flags: str) -> list[Decoded]:
    script = folder / "cell.py"
    script.write_text(wrap_cell(cell, mark=MARK), encoding="utf-8")
    done = subprocess.run(
        [python, "-W", "error", *flags, str(script)],
        capture_output=True, encoding="utf-8", timeout=LIMIT_S, check=False, cwd=folder,
    )  # fmt: skip
    return list(decode([Output(done.stdout, "stdout"), Output(done.stderr, "stderr")], MARK))


def texts(items: list[Decoded]) -> list[str]:
    """The text of each item, whatever it is."""
    return [
        item.text if isinstance(item, Output) else str(getattr(item, "data", {}).get("text/plain"))
        for item in items
    ]


# Text.


class Nested:
    """An object whose representation uses all of the pretty printer's protocol."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def _repr_pretty_(self, p: Any, cycle: bool) -> None:
        p.begin_group(2, "Nested<")
        for item in self.items:
            with p.indent(3), p.group(1, "|", "|"):
                p.breakable("")
                p.pretty(item)
            p.break_()
        p.end_group(2, ">")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=60)
    | st.sampled_from([int, len, Ellipsis, ValueError("x", 1), re.compile(r"a\d", re.I), range(3)])
    | st.builds(types.SimpleNamespace, a=st.text(max_size=50), b=st.integers())
    | st.sets(st.integers() | st.text(max_size=9))
    | st.frozensets(st.integers())
    | st.builds(collections.Counter, st.text()),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.builds(collections.OrderedDict, st.dictionaries(st.text(), inner))
        | st.builds(collections.deque, st.lists(inner), st.none() | st.integers(0, 20))
        | st.lists(inner).map(collections.UserList)
        | st.dictionaries(st.text(), inner).map(types.MappingProxyType)
        | st.builds(RuntimeError, inner, inner)
        | st.builds(Nested, inner, inner)
        | st.builds(types.SimpleNamespace, a=inner, b=inner)
    ),
    max_leaves=60,
)


@given(values)
@settings(max_examples=examples(300), deadline=None)
def test_text_is_laid_out_as_ipython_does(value: object) -> None:
    assert pretty(value) == as_ipython(value)


@given(st.booleans() | st.integers() | st.floats() | st.text())
def test_simple_values_need_no_layout(value: object) -> None:
    assert bundle_of(value) == ({"text/plain": as_ipython(value)}, {})


class Bare:
    pass


class Meta(type):
    def __repr__(cls) -> str:
        return "<a class>"


class OfMeta(metaclass=Meta):
    pass


class Lines:
    def __repr__(self) -> str:
        return "a\nb\r\nc"


class Everything:
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "value",
    [
        list(range(999)), list(range(1000)), list(range(1001)), dict.fromkeys(range(1500)),
        set(range(1200)), set(range(999)), {1, "a", None}, {Bare, int}, (), (1,), [()] * 40,
        Bare(), [Bare()] * 3, Bare, OfMeta, [OfMeta], Lines(), [Lines(), {"k": Lines()}],
        Everything(), collections.defaultdict(list, a=[1]), lambda x, *, y=1: x, "".join,
        str.join, dict.fromkeys, functools.partial(int, base=2), super(Meta, OfMeta),
        collections.namedtuple("P", "x y")(1, "a" * 90), KeyError(), OSError(2, "no", "f"),
        type("Sub", (dict,), {})(a=1), type("Sub", (list,), {})([1]), type("Sub", (int,), {})(5),
        subprocess.CalledProcessError(1, ["a"]), sys.version_info, sys.implementation,
        re.compile(b"x\\\\", re.X | re.S), slice(1), NotImplemented, io.StringIO, types, {},
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_text_of_special_values_is_as_in_ipython(value: object) -> None:
    assert pretty(value) == as_ipython(value)


def test_recursive_values_end() -> None:
    inner: list[object] = [1]
    inner += [inner, {"self": inner}, (inner,), types.SimpleNamespace(a=inner)]
    namespace = types.SimpleNamespace()
    namespace.me = namespace
    queue: collections.deque[object] = collections.deque()
    queue.append(queue)
    for value in (inner, namespace, queue):
        assert pretty(value) == as_ipython(value)


# What displays are.


def test_display_has_ipythons_signature() -> None:
    from inspect import Parameter, signature

    from IPython.core import display_functions

    from lyceum_magic.remote import display as ours

    def parameters(function: object) -> list[tuple[str, object, object]]:
        return [
            (p.name, p.kind, p.default)
            for p in signature(function).parameters.values()  # type: ignore[arg-type]
            if p.kind is not Parameter.VAR_KEYWORD
        ]

    for name in ("display", "update_display", "clear_output"):
        assert parameters(getattr(ours, name)) == parameters(getattr(display_functions, name))


def test_a_result_and_displays(shown: Any) -> None:
    items = shown("print('a')\ndisplay(1, 'b')\nprint('c')\nNone\n[1]")
    assert texts(items) == ["a\n", "1", "'b'", "c\n", "[1]"]


def test_every_representation_has_its_type(shown: Any) -> None:
    cell = """class Rich:
    def _repr_html_(self): return "<p>", {"isolated": True}
    def _repr_png_(self): return b"png"
    def _repr_json_(self): return {"a": [1, float("nan")]}
    def _repr_svg_(self): return None
    def _repr_latex_(self): raise NotImplementedError
    def __repr__(self): return "rich"
Rich()"""
    (item,) = shown(cell)
    assert item.data == {
        "text/plain": "rich",
        "text/html": "<p>",
        "image/png": base64.b64encode(b"png").decode(),
        "application/json": {"a": [1, "nan"]},
    }
    assert item.metadata == {"text/html": {"isolated": True}}


def test_a_representation_that_raises_costs_no_other(shown: Any) -> None:
    cell = """class Broken:
    def _repr_html_(self): return 1 / 0
    def _repr_markdown_(self): return "**fine**"
    def __repr__(self): raise ValueError("no text")
display(Broken())
print("went on")"""
    display, out, err = shown(cell)
    assert display.data == {"text/markdown": "**fine**"}
    assert out.text == "went on\n"
    assert [line for line in err.text.splitlines() if not line.startswith(" ")] == [
        "Traceback (most recent call last):", "ValueError: no text",
        "Traceback (most recent call last):", "ZeroDivisionError: division by zero",
    ]  # fmt: skip
    assert "lyceum" not in err.text


def test_a_number_too_long_to_print_does_not_end_the_cell(python: str, tmp_path: Path) -> None:
    done = run_marked("display(10**9999)\nprint('went on')\n10**9999", tmp_path, python)
    assert (done.stdout, done.results, done.return_code) == ("went on\n", [], 0)
    assert done.stderr.count("ValueError: Exceeds the limit") == 2
    assert "lyceum" not in done.stderr


def test_a_representation_of_the_wrong_type_is_a_warning(python: str, tmp_path: Path) -> None:
    cell = "class Odd:\n    def _repr_html_(self): return 5\nOdd()"
    display, err = run(python, tmp_path, cell, "-W", "default")
    assert "text/html" not in display.data  # type: ignore[union-attr]
    assert "_repr_html_ of a Odd must give str, and gave int" in texts([err])[0]


def test_an_object_may_show_itself(shown: Any) -> None:
    cell = "class Own:\n    def _ipython_display_(self): print('mine')\ndisplay(Own())\nOwn()"
    assert texts(shown(cell)) == ["mine\nmine\n"]


def test_displays_are_updated_and_cleared(shown: Any) -> None:
    cell = """handle = display("a", display_id=True)
handle.update("b")
handle.display("c")
other = display(display_id="mine")
display(1, 2, clear=True)
print(handle, other.display_id)"""
    first, update, again, empty, clear, one, two, printed = shown(cell)
    assert (update.is_update, update.display_id) == (True, first.display_id)
    assert (again.is_update, again.display_id) == (False, first.display_id)
    assert (empty.data, empty.display_id) == ({}, "mine")
    assert clear == ClearOutput(wait=True)
    assert texts([one, two]) == ["1", "2"]
    assert printed.text == f"<DisplayHandle display_id={first.display_id}> mine\n"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("display(1, update=True)", "display_id required for update_display"),
        ("display(1, raw=True)", "must be dicts, got: 1"),
        ("display({}, raw=True, metadata=3)", "must be dicts, got: 3"),
    ],
)
def test_a_wrong_call_is_a_type_error(tmp_path: Path, call: str, error: str) -> None:
    cell = f"try:\n    {call}\nexcept TypeError as exc:\n    print(exc)"
    (line,) = texts(run(sys.executable, tmp_path, cell))
    assert error in line


def test_nothing_is_shown_where_no_frames_can_be_sent(tmp_path: Path) -> None:
    script = tmp_path / "cell.py"
    script.write_text(wrap_cell("[1]"), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.stdout == "[1]\n"


# In threads and processes.


def test_threads_may_display(shown: Any) -> None:
    cell = """import threading
def show(name):
    for n in range(50): display(name + str(n))
threads = [threading.Thread(target=show, args=(name,)) for name in "abcd"]
for thread in threads: thread.start()
for thread in threads: thread.join()"""
    assert sorted(texts(shown(cell))) == sorted(repr(f"{c}{n}") for c in "abcd" for n in range(50))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_may_display(python: str, tmp_path: Path, method: str) -> None:
    cell = f"""import multiprocessing
def work(n):
    display(n)
    return n
if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        pool.map(work, range(6))
        pool.close()
        pool.join()
"end" """
    *items, end = texts(run(python, tmp_path, cell))
    assert (sorted(items), end) == (list("012345"), "'end'")


# Libraries.


def test_ipythons_display_is_ours_however_it_is_imported(tmp_path: Path) -> None:
    cell = """import IPython.core.display_functions as functions
import importlib
from IPython.display import HTML, display as shown, update_display, DisplayHandle
shown(HTML("<b>"), display_id="a")
update_display(1, display_id="a")
importlib.reload(functions)
functions.display(2)
import IPython
IPython.display.display(3)
print(functions.__spec__.loader.get_source(functions.__name__)[:3])"""
    items = run(sys.executable, tmp_path, cell)
    assert texts(items) == ["<IPython.core.display.HTML object>", "1", "2", "3", '"""\n']


def test_a_module_that_is_none_keeps_no_library_out(tmp_path: Path) -> None:
    cell = "import sys\nsys.modules['nothing'] = None\nimport IPython.display as d\nd.display(1)"
    assert texts(run(sys.executable, tmp_path, cell)) == ["1"]


def test_a_library_that_is_looked_for_has_its_own_loader(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("version = 99")
    cell = (
        "import importlib.util as util\nloader = util.find_spec('pandas').loader\n"
        "print(loader.get_source('pandas'), loader.path[-9:], hasattr(loader, 'nothing'))"
    )
    assert texts(run(sys.executable, tmp_path, cell)) == ["version = 99 pandas.py False\n"]


def test_a_module_that_was_there_before_the_cell_is_prepared_too(tmp_path: Path) -> None:
    script = tmp_path / "early.py"
    cell = "IPython.display.display(1)\nimport matplotlib.pyplot as plt\nplt.plot([1]);"
    script.write_text(
        f"import IPython.display\nimport matplotlib\n{wrap_cell(cell, mark=MARK)}", encoding="utf-8"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    items = list(decode([Output(done.stdout, "stdout")], MARK))
    assert texts(items) == ["1", "<Figure size 640x480 with 1 Axes>"], done.stderr


def figures(items: list[Decoded]) -> list[bytes]:
    pngs = (item.data.get("image/png") for item in items if isinstance(item, Display))
    return [base64.b64decode(png) for png in pngs if png is not None]


def test_a_backend_of_the_users_own_wins(tmp_path: Path) -> None:
    draw = "import matplotlib.pyplot as plt\nplt.plot([1])\nprint(plt.get_backend());"
    chosen = f"import matplotlib\nmatplotlib.use('svg')\n{draw}"
    assert texts(run(sys.executable, tmp_path, chosen)) == ["svg\n"]
    by_variable = f"import os\nos.environ['MPLBACKEND'] = 'pdf'\n{draw}"
    assert texts(run(sys.executable, tmp_path, by_variable)) == ["pdf\n"]
    late = f"import matplotlib.pyplot as plt\nplt.switch_backend('agg')\n{draw}"
    assert texts(run(sys.executable, tmp_path, late)) == ["agg\n"]
    assert figures(run(sys.executable, tmp_path, draw)) != []


def test_a_process_of_the_cell_knows_nothing_of_our_backend(tmp_path: Path) -> None:
    cell = """import matplotlib.pyplot, os, subprocess, sys
code = "import matplotlib.pyplot as p; p.figure(); print(p.get_backend().lower())"
print(subprocess.check_output([sys.executable, "-c", code], text=True), "MPLBACKEND" in os.environ)
"""
    assert texts(run(sys.executable, tmp_path, cell)) == ["agg\n False\n"]


def test_a_figure_that_cannot_be_drawn_does_not_cost_the_next_one(tmp_path: Path) -> None:
    cell = """import matplotlib.pyplot as plt
plt.title("$\\\\frac{$")
plt.figure()
plt.plot([1, 2])
plt.show()
print(plt.get_fignums())"""
    items = run(sys.executable, tmp_path, cell)
    assert texts(items)[:3] == ["<Figure size 640x480 with 1 Axes>"] * 2 + ["[]\n"]
    assert len(figures(items)) == 1
    assert re.search(r"Parse\w+Exception", texts(items)[3])


def test_a_failing_cell_and_a_fork_show_each_figure_once(tmp_path: Path) -> None:
    cell = """import matplotlib.pyplot as plt, os
plt.plot([1, 2])
child = os.fork()
if child == 0:
    raise SystemExit
os.waitpid(child, 0)
1 / 0"""
    assert len(figures(run(sys.executable, tmp_path, cell))) == 1


def test_figures_of_a_spawned_worker_show(tmp_path: Path) -> None:
    cell = """import multiprocessing
def work(n):
    import matplotlib.pyplot as plt
    plt.plot([n])
    plt.show()
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.map(work, range(2))"""
    assert len(figures(run(sys.executable, tmp_path, cell))) == 2


def test_an_import_that_fails_shows_nothing_of_ours(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("1 / 0")
    cell = "import traceback\ntry: import pandas\nexcept ZeroDivisionError: traceback.print_exc()"
    (err,) = texts(run(sys.executable, tmp_path, cell))
    assert [re.sub(r".*/", "", line) for line in err.splitlines() if "File" in line] == [
        'cell.py", line 3, in <module>', 'pandas.py", line 1, in <module>',
    ]  # fmt: skip


def test_an_unknown_version_of_a_library_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("version = 99")
    cell = "import pandas\npandas.version"
    items = run(sys.executable, tmp_path, cell, "-W", "default")
    assert texts(items)[0] == "99"
    assert "does not know this version of pandas" in texts(items)[1]


def test_plotly_shows_without_ipython_there(tmp_path: Path) -> None:
    cell = """import sys
sys.modules["IPython"] = sys.modules["nbformat"] = None
import plotly.graph_objects as go
go.Figure(go.Bar(y=[1])).show()
go.Figure(go.Bar(y=[2]))"""
    items = run(sys.executable, tmp_path, cell)
    assert [list(getattr(item, "data", [item])) for item in items] == [
        ["application/vnd.plotly.v1+json"]
    ] * 2


def test_sympy_shows_formulas_also_after_init_printing(tmp_path: Path) -> None:
    cell = "import sympy\nsympy.init_printing()\nsympy.Symbol('x') ** 2"
    (item,) = run(sys.executable, tmp_path, cell)
    assert isinstance(item, Display)
    assert item.data["text/latex"] == "$\\displaystyle x^{2}$"
    assert item.data["text/plain"] == " 2\nx "  # as in a kernel


# On the way.


def png(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def test_other_readers_see_text_or_what_kind_of_picture_it_is() -> None:
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (31, 17)).save(picture, "JPEG")
    assert readable({"text/plain": "a", "image/png": png(640, 480)}) == "[image/png 640x480]"
    encoded = base64.b64encode(png(3, 2)).decode()
    assert readable({"image/png": encoded}) == "[image/png 3x2]"
    assert readable({"image/jpeg": picture.getvalue()}) == "[image/jpeg 31x17]"
    assert readable({"text/html": "<b>", "text/plain": "b"}) == "b"
    assert readable({"text/html": "<b>"}) == "[text/html]"
    assert readable({}) == ""


@given(st.binary(), st.sampled_from([b"", b"\x89PNG", b"\xff\xd8", b"\xff\xd8\xff\xe0"]))
def test_any_bytes_may_call_themselves_a_picture(data: bytes, start: bytes) -> None:
    for item in (start + data, (start + data).decode("latin-1")):
        assert readable({"image/png": item}).startswith("[image/png")


def test_data_become_json_as_in_a_kernel() -> None:
    import datetime

    import numpy as np

    value = {1: (b"a", {2}, np.float32(1.5)), "d": datetime.date(2024, 1, 2), "n": float("inf")}
    assert jsonable(value) == {1: ["YQ==", [2], 1.5], "d": "2024-01-02", "n": "inf"}
    assert jsonable(np.arange(3)) == [0, 1, 2]


def test_metadata_are_merged_in_depth() -> None:
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": 4}) == {
        "a": {"b": 1, "c": 3}, "d": 4,
    }  # fmt: skip


#: Name -> code of a cell that replaces something that every program takes for granted.
REPLACED = {
    "len": "builtins.len = lambda value: 1 / 0",
    "isinstance": "builtins.isinstance = lambda *args: False",
    "open": "builtins.open = None",
    "os.write": "os.write = lambda *args: 0",
    "os.getpid": "os.getpid = None",
    "json.dumps": "json.dumps = json.loads = None",
    "time": "time.time = time.monotonic = time.sleep = lambda *args: 1 / 0",
    "sys.stdout.flush": "sys.stdout.flush = sys.stderr.flush = None",
    "sys.__stdout__": "sys.__stdout__ = sys.__stderr__ = object()",
    "zlib.compress": "zlib.compress = zlib.compressobj = None",
    "re.sub": "re.sub = None",
    "traceback": "traceback.format_exception = traceback.print_exception = None",
    "linecache": "linecache.getlines = linecache.checkcache = None",
}


@pytest.mark.parametrize("replacement", REPLACED.values(), ids=REPLACED.keys())
def test_what_a_cell_replaces_breaks_nothing_of_its_end(
    replacement: str, python: str, tmp_path: Path
) -> None:
    cell = (
        "import builtins, json, linecache, os, re, sys, time, traceback, zlib\n"
        "display(1)\n"  # on a server all modules of ours are loaded: Python's import needs `len`
        f"{replacement}\n"
        "print('one')\nprint('two')\ndisplay(6 * 7)\nundefined"
    )
    raised = run(python, tmp_path, cell)
    assert [text for text in texts(raised) if text.strip()][:3] == ["1", "one\ntwo\n", "42"]
    (error,) = (item.error["exceptions"][0] for item in raised if isinstance(item, Raised))
    assert error["type"] == "NameError"
    assert "lyceum-magic" not in repr(raised)


@pytest.mark.parametrize("what", ["sys.modules", "sys.meta_path"])
def test_a_cell_that_empties_the_import_system_shows_no_line_of_ours(
    what: str, tmp_path: Path
) -> None:
    items = run(sys.executable, tmp_path, f"import sys\n{what}.clear()\n1 / 0")
    assert "ZeroDivisionError" in repr(items)
    assert "lyceum-magic" not in repr(items)
    assert len(repr(items)) < 2000
