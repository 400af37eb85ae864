"""The names that a cell reads and binds are found without running it."""

from __future__ import annotations

import ast
from collections.abc import Callable

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.submission.names import names_bound as bound_in
from lyceum_magic.submission.names import names_read as read_in


def names_read(code: str) -> list[str]:
    return read_in(ast.parse(code))


def names_bound(code: str) -> set[str] | None:
    return bound_in(ast.parse(code))


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("y = x + 1", "x"),
        ("x = 1\ny = x", ""),
        ("x += 1", "x"),
        ("del x", "x"),
        ("x = 1\ndel x\nx", "x"),
        ("a = b = c", "c"),
        ("a[i] = 1", "a i"),
        ("o.attr = 1", "o"),
        ("x: int = 3\nx", "int"),
        ("x: int\nx", "int x"),
        ("import numpy as np\nnp.array(d)", "d"),
        ("from m import *\nz", "z"),
        ("(n := 5)\nn", ""),
        ("f'{x!r:{w}}'", "x w"),
        ("await x", "x"),
        # Branches and loops: what may not have been bound is read.
        ("for i in xs: i\ni", "xs i"),
        ("for i in xs: z = 1\nz", "xs z"),
        ("if a: b = 1\nelse: b = 2\nb", "a"),
        ("if a: b = 1\nb", "a b"),
        ("while t: u = 1", "t"),
        ("try:\n  v = 1\nexcept E as e:\n  v = 2\nv", "E"),
        ("try:\n  v = f()\nfinally:\n  v", "f v"),
        ("with o(p) as f: f.read()", "o p"),
        ("match m:\n  case [a, *b]: a, b", "m"),
        ("x and (y := 1)\ny", "x y"),
        # Comprehensions.
        ("[a * i for i in b if c]", "b c a"),
        ("[i for i in i]", "i"),
        ("[y := 1, y**2]", ""),
        ("{k: v for k, v in d.items()}", "d"),
        # Functions: what they read counts where they are used.
        ("def f(): return x", ""),
        ("def f(): return x\nf()", "x"),
        ("def f(): return x\nx = 1\nf()", ""),
        ("def f(): return x\nmap(f, xs)", "map x xs"),
        ("def f(a, b=q): return a + b\nf(1)", "q"),
        ("def f():\n  global g\n  g = 1\nf()\ng", ""),
        ("def f():\n  global g\n  g += 1\nf()", "g"),
        ("def f():\n  def g(): return x\n  return g()\nf()", "x"),
        ("def f():\n  x = 1\n  def g():\n    nonlocal x\n    x += 1\n  g()\nf()", ""),
        ("def f(): return g()\ndef g(): return x\nf()", "x"),
        ("def f(n): return f(n - 1) + h\nf(3)", "h"),
        ("def g(): return x\ndef f(x): return g()\nf(1)", "x"),
        ("lambda v: v + w", "w"),
        ("@dec\ndef f(): return x", "dec x"),
        ("async def f():\n  async for i in s: yield i\n[j async for j in f()]", "s"),
        # Classes.
        ("class A:\n  z = q\n  def m(self): return k\nA().m()", "q k"),
        ("class A:\n  def m(self): return k", ""),
        ("class A:\n  x = x\n  y = x", "x"),
        ("def f(): return x\nclass A:\n  f = 1\nf()", "x"),
        ("class A:\n  def m(self):\n    global g\n    g = 1\nA()\ng", "g"),
        # Functions that are used again where less is bound.
        ("def a(): b(); x\ndef b(): a(); y\nif c: x = y = 1; a()\nelse: b()", "c x y"),
        ("def f(): x\nif c: x = 1; f()\nelse: f()", "c x"),
        ("def f():\n  global g\n  g = 1\ndef k(): f()\nk()\nk()\ng", ""),
        ("def f():\n  global g\n  del g\ng = 1\ndef k(): f()\nk()\ng = 2\nk()\ng", "g"),
        ("def f(): del_()\ndef del_():\n  global g\n  del g\nf\ng = 1\nf()\ng", "g"),
        ("def f(): return x\nf\ndef f(): return y\nf()", "x y"),
        ("def g(): return x\ndef f(): return g()\nx = 1\nf()\ndel x\nf()", "x"),
        ("def g(): return 1\ndef f(): return g()\nf()\ndef g(): return y\nf()", "y"),
        ("def s():\n  global h\n  def h(): return x\ndef k(): h()\nif 0: k()\ns()\nk()", "h x"),
    ],
)
def test_what_a_cell_reads_before_it_binds_it(code: str, names: str) -> None:
    assert sorted(names_read(code)) == sorted(names.split())


def everyone_calls_everyone(count: int) -> str:
    calls = "; ".join(f"f{number}()" for number in range(count))
    return "".join(f"def f{number}(): {calls}; x{number}\n" for number in range(count)) + "f0()"


def everyone_calls_the_one_before_twice(count: int) -> str:
    first = "def f0(): return x\n"
    others = (f"def f{n}(): return f{n - 1}() + f{n - 1}()\n" for n in range(1, count))
    return f"{first}{''.join(others)}f{count - 1}()"


def everyone_binds_and_calls_everyone(count: int) -> str:
    calls = "; ".join(f"f{number}()" for number in range(count))
    return "".join(
        f"def f{n}():\n  global g{n}, h\n  g{n} = 1\n  def h(): {calls}\n  {calls}\n  h()\n"
        for n in range(count)
    ) + ("f0()\nx")


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (everyone_calls_everyone(25), {f"x{number}" for number in range(25)}),
        (everyone_calls_the_one_before_twice(50), {"x"}),
        (everyone_binds_and_calls_everyone(12), {"x"}),
    ],
)
def test_functions_that_call_each_other_are_followed_to_an_end(code: str, names: set[str]) -> None:
    # What follows every path has 25! of them before it.
    assert set(names_read(code)) == names


def test_what_nests_too_deep_is_one_sentence() -> None:
    with pytest.raises(OptionError, match=r"--in auto cannot follow this cell.* nest too deep"):
        names_read("x" + " + x" * 1400)
    assert names_bound("y = x" + " + x" * 1400) is None


def test_names_bound_are_those_python_binds() -> None:
    code = "a = 1\nfor b in (1,):\n  c = [d for d in (2,)]\ndef e(f): g = 1\nimport os.path as h"
    bound: dict[str, object] = {}
    run: Callable[..., None] = exec
    run(code, bound)
    assert names_bound(code) == set(bound) - {"__builtins__"}
