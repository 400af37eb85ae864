"""Cells of a session share their variables, although each runs in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lyceum_magic.outputs.decoding import SessionInterrupted
from tests.unit.remote.sessions.cells import LIMIT_S, Chain, decoded


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path / "session")


def test_values_functions_classes_and_arrays_reach_the_next_cell(chain: Chain) -> None:
    saved = chain.run(
        "import numpy as np\nx = 1\nshared = [1]\nalso = {'l': shared}\n"
        "a = np.arange(100_000.0)\nview = a[10:20]\n"
        "def f(): return later\n"
        "class A:\n    def m(self): return f()\no = A()"
    )
    assert (saved.return_code, saved.session.error) == (0, "")
    assert saved.session.variables == 8
    ended = chain.run(
        "later = 7\nview[0] = 99\nshared.append(2)\n"
        "print(o.m(), x, also['l'] is shared, a[10], np.shares_memory(a, view))"
    )
    assert ended.stdout == "7 1 True 99.0 True\n"
    assert chain.value("(a[10], also, isinstance(o, A), x)") == (
        "(np.float64(99.0), {'l': [1, 2]}, True, 1)"
    )


def test_what_is_not_kept_is_named_once_and_explained_when_it_is_used(chain: Chain) -> None:
    first = chain.run("g = (i for i in range(3))\nx = 1")
    assert first.lost == {"g": "a generator"}
    assert chain.run("x += 1").lost == {}
    ended = chain.run("g")
    value = ended.raised["exceptions"][0]["value"]
    hint = "session 'a' did not keep it after cell 1: a generator"
    assert value == f"name 'g' is not defined ({hint})"


def test_a_cell_that_raises_keeps_what_it_assigned(chain: Chain) -> None:
    ended = chain.run("x = 1\n1 / 0\nx = 2")
    assert ended.return_code == 1
    assert chain.value("x") == "1"


def test_names_that_a_cell_does_not_use_are_passed_on_without_being_restored(
    chain: Chain,
) -> None:
    chain.run("import decimal\nbig = decimal.Decimal(1)\nx = 1")
    ended = chain.run("print(x)")
    assert ended.stdout == "1\n"
    groups = {tuple(entry["names"]): entry for entry in chain.manifest["groups"]}
    assert groups["big",]["pickle"][0] == f"{1:032x}"
    assert chain.value("big") == "Decimal('1')"


def test_a_class_that_is_replaced_stays_that_of_its_instances(chain: Chain) -> None:
    chain.run("class A:\n    v = 1\na = A()\nb = [a]")
    chain.run("class A:\n    v = 2\nc = A()")
    assert chain.value("a.v, c.v, isinstance(a, A), isinstance(c, A), b[0] is a") == (
        "(1, 2, False, True, True)"
    )


def test_an_interrupt_is_a_keyboard_interrupt_and_keeps_the_state(
    chain: Chain, tmp_path: Path
) -> None:
    code = "import time\nx = 1\nprint('up', flush=True)\ntime.sleep(100)\nx = 2"
    work = tmp_path / "work"
    work.mkdir()
    (work / "main.py").write_text(chain.program(code))
    process = subprocess.Popen(
        [sys.executable, "main.py"], cwd=work, env=chain.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first == "up\n"
    os.kill(process.pid, signal.SIGTERM)
    rest, stderr = process.communicate(timeout=LIMIT_S)
    ended = decoded(process.returncode, first + rest, stderr)
    assert SessionInterrupted("a") in ended.items
    assert ended.raised["exceptions"][0]["type"] == "KeyboardInterrupt"
    chain.move_to(ended.session)
    assert chain.value("x") == "1"


def test_a_class_that_was_saved_after_its_instance_is_restored_before_it(chain: Chain) -> None:
    chain.run("class A:\n    count = 0\na, b = A(), A()")
    chain.run("A.count += 1")
    assert chain.value("(b.count, type(a) is type(b))") == "(1, True)"


def test_a_named_tuple_keeps_its_methods_and_defaults(chain: Chain) -> None:
    chain.run(
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: float\n    y: float = 0.5\n"
        "    def both(self): return self.x + self.y\np = P(1)"
    )
    assert chain.value("p, p.both(), P(2), P._fields, P.__bases__, p == (1, 0.5)") == (
        "(P(x=1, y=0.5), 1.5, P(x=2, y=0.5), ('x', 'y'), (<class 'tuple'>,), True)"
    )


def test_a_closed_file_is_kept_and_no_file_is_changed(chain: Chain, tmp_path: Path) -> None:
    file = tmp_path / "data.txt"
    file.write_text("text")
    first = chain.run(
        f"with open({str(file)!r}) as f, open({str(file)!r}, 'rb') as b: pass\n"
        f"with open({str(file)!r}, 'a') as w: pass"
    )
    assert first.lost == {}
    assert chain.value("[(x.closed, x.name, x.mode) for x in (f, b, w)]") == str(
        [(True, str(file), mode) for mode in ("r", "rb", "a")]
    )
    assert file.read_text() == "text"


def test_a_match_of_a_regular_expression_is_kept(chain: Chain) -> None:
    chain.run(
        "import re\np = re.compile(r'(\\w)(\\d)')\nfirst = p.search('a1 b2 c3')\n"
        "*_, last = p.finditer('a1 b2 c3')\nwhole = p.fullmatch('z9')"
    )
    assert chain.value("first.groups(), last.span(), last[0], whole[2], last.re is p") == (
        "(('a', '1'), (6, 8), 'c3', '9', True)"
    )
