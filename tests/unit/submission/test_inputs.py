"""Inputs are packed as the user meant, and impossible outputs are refused before a start."""

from __future__ import annotations

import ast
import functools
import math
import threading
from typing import Any

import numpy as np
import pytest

from lyceum_magic.api import submit
from lyceum_magic.exceptions import OptionError
from lyceum_magic.remote.values import unpack
from lyceum_magic.submission import inputs as inputs_module
from lyceum_magic.submission.inputs import PackedInputs, check_load, pack_values
from lyceum_magic.submission.inputs import check_outputs as check_outputs_of
from lyceum_magic.submission.inputs import choose_inputs as choose_inputs_of


def tree_of(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except SyntaxError:
        return None


def choose_inputs(
    names: list[str], code: str, namespace: dict[str, object], **options: Any
) -> PackedInputs:
    return choose_inputs_of(names, tree_of(code), namespace, **options)


def check_outputs(code: str, names: list[str], inputs: list[str]) -> None:
    check_outputs_of(tree_of(code), names, inputs)


def test_auto_says_so_where_the_cell_is_no_python_of_this_version() -> None:
    with pytest.raises(OptionError, match="--in auto cannot read this cell"):
        choose_inputs(["auto"], "x = = 1", {})


NAMESPACE: dict[str, object] = {
    "a": 1,
    "b": [2.5],
    "math": math,
    "helper": lambda: 0,
    "Kind": type("Kind", (), {}),
    "_private": 3,
    "__name__": "__main__",
    "In": ["x"],
    "Out": {},
    "exit": lambda: None,
    "open": open,
    "print": print,
    "sum": 7,
    "get_ipython": lambda: None,
    "lock": threading.Lock(),
}
OF_SHELL = {name: NAMESPACE[name] for name in ("In", "Out", "exit", "open", "get_ipython")}


def test_auto_takes_what_the_cell_reads_and_the_notebook_has() -> None:
    code = (
        "c = a + sum\nprint(c, math.pi, b, In, Out, _private, __name__, unknown, exit)\n"
        "open('x'); get_ipython()"
    )
    inputs = choose_inputs(["auto"], code, NAMESPACE, of_shell=OF_SHELL)
    assert {name: unpack(data) for name, data in inputs.packed.items()} == {
        "a": 1,
        "sum": 7,
        "b": [2.5],
        "_private": 3,
    }
    assert inputs.left_out == ()


@pytest.mark.parametrize("name", ["open", "display", "exit", "In", "Out", "_", "_3", "sum"])
def test_auto_takes_what_is_the_users_whatever_its_name(name: str) -> None:
    namespace = {**NAMESPACE, name: [name]}
    inputs = choose_inputs(["auto"], name, namespace, of_shell=OF_SHELL)
    assert {name: unpack(data) for name, data in inputs.packed.items()} == {name: [name]}


@pytest.mark.parametrize("name", ["open", "display", "quit"])
def test_auto_says_of_a_function_of_the_users_that_it_stays_whatever_its_name(name: str) -> None:
    namespace = {**NAMESPACE, name: lambda: 0}
    inputs = choose_inputs(["auto"], f"{name}()", namespace, of_shell=OF_SHELL)
    assert inputs.left_out == (f"{name} is a function, which only --pickle would send",)


def test_auto_says_of_every_function_that_it_stays() -> None:
    namespace = {"a": 1, "sqrt": math.sqrt, "add": [].append, "part": functools.partial(print, 1)}
    inputs = choose_inputs(["auto"], "sqrt, add, part, a", namespace)
    assert list(inputs.packed) == ["a"]
    assert [sentence.split()[0] for sentence in inputs.left_out] == ["sqrt", "add", "part"]


def notebook(source: str) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(source, namespace)
    return namespace


@pytest.mark.parametrize(
    ("source", "code", "names"),
    [
        ("a = b = 1\ndef f(): return g()\ndef g(): return a", "f()", ["f", "g", "a"]),
        ("a = 1\ndef f():\n    return [(lambda: a) for _ in range(2)]", "f()", ["f", "a"]),
        ("a = 1\ndef f(): return f() + a\nb = f", "b()", ["b", "f", "a"]),
        (
            "a = b = 1\nclass A: m = lambda _: a\nclass K(A): p = property(lambda _: b)\nk = K()",
            "k.p",
            ["k", "a", "b"],
        ),
        (
            "import functools\na = 1\ndef f(x): return a\np = functools.partial(f, 2)",
            "p()",
            ["p", "a"],
        ),
        (
            "a = 1\ndef wrapped(f): return lambda: f()\n@wrapped\ndef f(): return a",
            "f()",
            ["f", "a"],
        ),
        (
            "import functools\na = 1\n@functools.cache\ndef f(): return a",
            "f()",
            ["f", "a"],
        ),
        ("def f(): return len(open.__name__), math\nimport math", "f()", ["f"]),
    ],
)
def test_auto_follows_what_functions_read(source: str, code: str, names: list[str]) -> None:
    namespace = notebook(source)
    inputs = choose_inputs(["auto"], code, namespace, allow_pickle=True)
    assert list(inputs.packed) == names
    named = choose_inputs([names[0], "auto"], "1", namespace, allow_pickle=True)
    assert list(named.packed) == names


def test_what_functions_read_makes_their_modules_travel() -> None:
    namespace = notebook("import httpx, numpy.linalg\ndef f(): return httpx, numpy.linalg.norm")
    inputs = choose_inputs(["f"], "1", namespace, allow_pickle=True)
    assert {"httpx", "numpy"} <= inputs.needs


def test_a_value_that_arrives_as_something_else_says_so_and_stays_with_a_pickle() -> None:
    class Tensor:
        def __array__(self, *_: object, **__: object) -> Any:
            return np.arange(2)

    inputs = choose_inputs(["t"], "t", {"t": Tensor(), "u": 1})
    assert len(inputs.changed) == 1
    assert "Tensor, which arrives as a numpy array; --pickle keeps" in inputs.changed[0]
    data = choose_inputs(["t"], "t", {"t": [Tensor()]}, allow_pickle=True).packed["t"]
    assert type(unpack(data, allow_pickle=True)[0]).__name__ == "Tensor"


def test_auto_leaves_out_functions_and_classes_and_says_so() -> None:
    inputs = choose_inputs(["auto"], "helper(); Kind(); a", NAMESPACE)
    assert list(inputs.packed) == ["a"]
    assert inputs.left_out == (
        "helper is a function, which only --pickle would send",
        "Kind is a class, which only --pickle would send",
    )
    inputs = choose_inputs(["auto"], "helper(); Kind()", NAMESPACE, allow_pickle=True)
    assert list(inputs.packed) == ["helper", "Kind"]
    assert "cloudpickle" in inputs.needs


def test_names_beside_auto_are_sent_whether_they_are_read_or_not() -> None:
    inputs = choose_inputs(["b", "auto"], "a", NAMESPACE)
    assert list(inputs.packed) == ["b", "a"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["mathh"], "--in: the notebook has no variable mathh. Did you mean math?"),
        (["nothing"], "--in: the notebook has no variable nothing."),
        (
            ["lock"],
            (
                "--in: lock is a _thread.lock, which cannot travel as data; --pickle would send it "
                "as a pickle."
            ),
        ),
    ],
)
def test_what_cannot_be_sent_is_one_sentence(names: list[str], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose_inputs(names, "", NAMESPACE)
    assert str(caught.value) == said


def test_more_than_ten_mebibytes_is_refused_and_names_the_storage() -> None:
    with pytest.raises(OptionError) as caught:
        pack_values({"small": 1, "large": b"x" * 2**24})
    assert str(caught.value) == (
        "--in: large takes more than the 10 MiB left for it: 10 MiB in all may travel with a cell; "
        "put it in the account's storage, and read it there."
    )


def test_sizes_are_judged_together() -> None:
    check_load({"a": 2**20}, may_be_large=False)
    with pytest.raises(OptionError) as caught:
        check_load({"a": 2**20, "data.csv": 12}, may_be_large=False)
    assert str(caught.value) == (
        "Values and files take 1.0 MiB (a 1.0 MiB, data.csv 12 bytes); add --yes to send more than "
        "1 MiB."
    )
    check_load({"a": 2**20, "data.csv": 12}, may_be_large=True)
    with pytest.raises(OptionError, match=r"at most 10 MiB .* in the account's storage"):
        check_load({"a": 6 * 2**20, "b": 6 * 2**20}, may_be_large=True)


@pytest.mark.parametrize(
    "chosen",
    [{"inputs": {"lock": threading.Lock()}}, {"outputs": "a b"}, {"files": "nowhere"}, {"save": 3}],
)
def test_nothing_goes_with_a_raw_cell_whether_it_could_travel_or_not(
    chosen: dict[str, Any],
) -> None:
    with pytest.raises(OptionError, match=f"sent raw goes as it is: {next(iter(chosen))} cannot"):
        submit("1", raw=True, **chosen)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="inputs takes names of variables, not 'a b'"):
        pack_values({"a b": 1})


@pytest.mark.parametrize(
    "code",
    [
        "c = 1",
        "c += 1",
        "for c in x: pass",
        "with x as c: pass",
        "import c",
        "import a as c",
        "import c.d",
        "from a import c",
        "def c(): pass",
        "class c: pass",
        "(c := 1)",
        "[(c := i) for i in x]",
        "try: pass\nexcept E as c: pass",
        "match x:\n  case {**c}: pass",
        "match x:\n  case [1, *c]: pass",
        "def f():\n  global c\n  c = 1",
        "if 0: c = 1",
        "a, (b, *c) = x",
        "c: int = 1",
        # These may bind any name:
        "from a import *",
        "exec(x)",
        "globals()['c'] = 1",
        "import __main__",
        "setattr(x, 'c', 1)",
        "import sys\nsys.modules['__main__'].c = 1",
        "this is = no Python",
    ],
)
def test_a_cell_that_may_bind_the_name_is_let_through(code: str) -> None:
    check_outputs(code, ["c"], [])


@pytest.mark.parametrize(
    "code",
    [
        "1",
        "c",
        "d = c",
        "def f(): c = 1",
        "[c for c in x]",
        "lambda c: c",
        "class A: c = 1",
        "x.c = 1",
        "f(c=1)",
    ],
)
def test_a_cell_that_can_never_bind_the_name_is_refused(code: str) -> None:
    with pytest.raises(OptionError, match=r"^--out: the cell never sets c\."):
        check_outputs(code, ["c"], [])
    check_outputs(code, ["c"], ["c"])


def test_a_slip_in_a_name_is_told() -> None:
    with pytest.raises(OptionError, match=r"never sets resutl\. Did you mean result\?"):
        check_outputs("result = 1", ["resutl"], [])


def test_a_cell_without_outputs_is_not_read_for_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(tree: ast.Module | None) -> set[str]:
        raise AssertionError("nobody has asked which names it binds")

    monkeypatch.setattr(inputs_module, "names_bound", never)
    check_outputs("x = 1", [], ["a"])
    with pytest.raises(AssertionError):
        check_outputs("x = 1", ["x"], [])
