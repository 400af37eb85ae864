"""A cell, wrapped, does in every Python what it would do in a notebook here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.remote.interpreters import INTERPRETERS, live_cell, run_cell, run_merged


@pytest.fixture(params=INTERPRETERS.values(), ids=INTERPRETERS.keys())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("1 + 1", "2\n"),
        ("x = 3\nx", "3\n"),
        ("x = 3\nx;", ""),
        ("x = 3\nx  # a remark", "3\n"),
        ("None", ""),
        ("print('a')", "a\n"),
        ("'ü'", "'ü'\n"),
        ('"a docstring?"', "'a docstring?'\n"),
        ("def f():\n    return 1\n\nf()", "1\n"),
        ("if True:\n    5", ""),
        ("1; 2", "2\n"),
        ("# nothing", ""),
        ("_ = 7\n_", "7\n"),
        ("import sys\nsys.displayhook = lambda value: print('<', value)\n5", "< 5\n"),
    ],
)
def test_the_value_of_the_last_expression_is_shown(
    python: str, tmp_path: Path, cell: str, shown: str
) -> None:
    done = run_cell(python, cell, tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (shown, "", 0)


def test_a_traceback_counts_the_lines_as_the_notebook_does(python: str, tmp_path: Path) -> None:
    cell = "def f():\n    raise ValueError('x')\n\n\nf()"
    done = run_cell(python, cell, tmp_path)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if set(line.strip()) - set("^~")]
    assert said == [
        "Traceback (most recent call last):",
        '  File "<cell>", line 6, in <module>',
        "    f()",
        '  File "<cell>", line 3, in f',
        "    raise ValueError('x')",
        "ValueError: x",
    ]


def test_a_traceback_of_an_awaiting_cell_begins_at_the_cell_too(
    python: str, tmp_path: Path
) -> None:
    done = run_cell(python, "import asyncio\nawait asyncio.sleep(0)\n1 / 0", tmp_path)
    assert done.stderr.startswith('Traceback (most recent call last):\n  File "<cell>", line 4')
    assert "lyceum" not in done.stderr


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("import asyncio\nawait asyncio.sleep(0, 'late')", "'late'\n"),
        ("import asyncio\nx = await asyncio.sleep(0, 4)\nx", "4\n"),
        ("async def f():\n    return 5\nawait f()", "5\n"),
        ("async def g():\n    yield 6\n[x async for x in g()]", "[6]\n"),
        ("async def g():\n    yield 7\nasync for x in g():\n    print(x)", "7\n"),
        ("import asyncio\nprint(asyncio.run(asyncio.sleep(0, 8)))", "8\n"),
    ],
)
def test_await_works_at_the_top_level(python: str, tmp_path: Path, cell: str, shown: str) -> None:
    done = run_cell(python, cell, tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (shown, "", 0)


def test_a_future_statement_holds_for_the_cell_and_its_last_expression(
    python: str, tmp_path: Path
) -> None:
    cell = (
        '"""About."""\nfrom __future__ import annotations\n'
        "def f(x: undefined) -> None: ...\nf.__annotations__"
    )
    done = run_cell(python, cell, tmp_path)
    assert done.stdout == "{'x': 'undefined', 'return': 'None'}\n"


def test_our_own_future_statement_does_not_reach_the_cell(python: str, tmp_path: Path) -> None:
    done = run_cell(python, "def f(x: int): ...\nf.__annotations__['x']", tmp_path)
    assert done.stdout == "<class 'int'>\n"


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("exit(4)", 4),
        ("raise SystemExit", 0),
        ("import sys; sys.exit('no')", 1),
        ("import os; os._exit(5)", 5),
        ("import asyncio, sys\nawait asyncio.sleep(0)\nsys.exit(6)", 6),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15),
    ],
)
def test_the_exit_code_is_the_cells(python: str, tmp_path: Path, cell: str, code: int) -> None:
    assert run_cell(python, cell, tmp_path).returncode in (code, 128 - code)


def test_the_cell_is_main_and_nothing_of_ours_is_there(python: str, tmp_path: Path) -> None:
    names = "sorted(n for n in globals() if not n.startswith('__'))"
    done = run_cell(python, f"import sys\nprint(__name__, {names})", tmp_path)
    assert done.stdout == "__main__ ['sys']\n"


def test_a_class_of_the_cell_can_be_pickled(python: str, tmp_path: Path) -> None:
    cell = "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A())).__class__ is A"
    assert run_cell(python, cell, tmp_path).stdout == "True\n"


def test_source_of_the_cell_can_be_looked_at(python: str, tmp_path: Path) -> None:
    cell = "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f))"
    assert run_cell(python, cell, tmp_path).stdout == "def f():\n    return 1\n\n"


# Text.


def test_both_streams_keep_the_order_of_their_writes(python: str, tmp_path: Path) -> None:
    cell = (
        "import subprocess, sys, os\n"
        "for n in range(200):\n"
        "    print('out', n)\n"
        "    print('err', n, file=sys.stderr)\n"
        "    if n % 50 == 0:\n"
        "        print('before', end='', flush=False)\n"
        "        subprocess.run(['echo', ' child'])\n"
        "        print('partial', end='')\n"
        "        os.system('echo \" system\"')\n"
        "print('end', end='')"
    )
    expected = "".join(
        f"out {n}\nerr {n}\n" + ("before child\npartial system\n" if n % 50 == 0 else "")
        for n in range(200)
    )
    assert run_merged(python, cell, tmp_path) == expected + "end"


def test_a_fork_finds_neither_text_nor_thread(python: str, tmp_path: Path) -> None:
    """Text that lies in a buffer would come twice; newer Pythons warn of a thread."""
    cell = (
        "import os\n"
        "print('held', end='')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    print(' child')\n"
        "    raise SystemExit(0)\n"
        "os.waitpid(child, 0)\n"
        "print('parent')"
    )
    done = run_cell(python, cell, tmp_path)
    assert (done.stdout, done.stderr) == ("held child\nparent\n", "")


def test_workers_of_a_pool_print_once(python: str, tmp_path: Path) -> None:
    cell = (
        "import multiprocessing\n"
        "print('held', end='\\n\\n')\n"
        "def work(n):\n    print('work')\n    return n * n\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    pool.map(work, range(6))\n"
        "    pool.close()\n    pool.join()"
    )
    done = run_cell(python, cell, tmp_path)
    assert sorted(done.stdout.split()) == ["held"] + ["work"] * 6
    assert done.returncode == 0, done.stderr


def test_an_isolated_line_is_there_at_once(python: str, tmp_path: Path) -> None:
    with live_cell(python, "for n in range(3):\n    print(n)\n    input()", tmp_path) as cell:
        for n in range(3):
            assert cell.read_until("\n") == f"{n}\n"
            cell.go_on()


def test_a_line_that_is_not_ended_is_there_soon(python: str, tmp_path: Path) -> None:
    with live_cell(python, "print('50 %', end='\\r')\ninput()", tmp_path) as cell:
        assert cell.read_until("\r") == "50 %\r"
        cell.go_on()


def test_the_last_line_of_a_burst_is_there_soon(python: str, tmp_path: Path) -> None:
    with live_cell(python, "for n in range(1000): print(n)\ninput()", tmp_path) as cell:
        assert cell.read_until("\n999\n").count("\n") == 1000
        cell.go_on()


def test_a_flood_is_whole(python: str, tmp_path: Path) -> None:
    done = run_cell(python, "for n in range(200_000): print(n)", tmp_path)
    assert done.stdout == "".join(f"{n}\n" for n in range(200_000))


def test_threads_of_the_cell_may_print(python: str, tmp_path: Path) -> None:
    cell = (
        "import threading\n"
        "def speak(name):\n    for n in range(500): print(f'{name}{n}\\n', end='')\n"
        "threads = [threading.Thread(target=speak, args=(c,)) for c in 'abcd']\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()"
    )
    lines = run_cell(python, cell, tmp_path).stdout.splitlines()
    assert sorted(lines) == sorted(f"{c}{n}" for c in "abcd" for n in range(500))


@pytest.mark.parametrize(
    "cell",
    [
        "import atexit; atexit.register(print, 'bye')",
        "import atexit, sys; atexit.register(sys.stdout.write, 'bye\\n')",
        "class A:\n    def __del__(self): print('bye')\na = A()",
        "import threading\nthreading.Thread(target=print, args=('bye',)).start()",
        "import sys\nsys.stdout.write('bye\\n')\nsys.exit(0)",
    ],
)
def test_what_is_printed_at_the_very_end_is_there(python: str, tmp_path: Path, cell: str) -> None:
    done = run_cell(python, cell, tmp_path)
    assert (done.stdout.splitlines()[-1], done.stderr, done.returncode) == ("bye", "", 0)


def test_bytes_are_as_in_any_python_and_lone_surrogates_as_in_a_notebook(
    python: str, tmp_path: Path
) -> None:
    cell = (
        "import sys\nprint('a', end='', flush=True)\n"
        "sys.stdout.buffer.write(b'\\xff\\n')\nsys.stdout.flush()"
    )
    done = run_cell(python, cell, tmp_path)
    assert done.stdout == "a\udcff\n"
    cell = (
        "import os, sys\n"
        "for stream in (sys.stdout, sys.stderr):\n"
        "    print('a', chr(0xd800), os.fsdecode(b'caf\\xe9'), 'z', file=stream)"
    )
    done = run_cell(python, cell, tmp_path)
    assert done.stdout == done.stderr == "a \ufffd caf\ufffd z\n"


def test_stdout_can_be_redirected_and_reconfigured(python: str, tmp_path: Path) -> None:
    cell = (
        "import contextlib, io, sys\n"
        "with contextlib.redirect_stdout(io.StringIO()) as got: print('caught')\n"
        "sys.stdout.reconfigure(line_buffering=True)\n"
        "print(got.getvalue().upper(), sys.stdout.isatty(), sys.stdout.encoding, end='')"
    )
    assert run_cell(python, cell, tmp_path).stdout == "CAUGHT\n False utf-8"


def test_this_python_is_among_those_tested() -> None:
    assert sys.executable in INTERPRETERS.values()
