"""Workers of `multiprocessing` get the cell's definitions, or there is one error, never a loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.submission.interpreters import INTERPRETERS
from tests.unit.submission.marked import run_marked


@pytest.fixture(params=INTERPRETERS.values(), ids=INTERPRETERS.keys())
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pool(method: str, *, guard: str = "if __name__ == '__main__':") -> str:
    return (
        "import multiprocessing\ndef double(n): return 2 * n\n"
        f"{guard}\n"
        f"    with multiprocessing.get_context({method!r}).Pool(2) as pool:\n"
        "        print(pool.map(double, [1, 2]))\n"
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_guarded_pool_works(python: str, tmp_path: Path, method: str) -> None:
    done = run_marked(pool(method), tmp_path, python)
    assert (done.stdout, done.stderr, done.return_code) == ("[2, 4]\n", "", 0)


def test_a_cell_with_a_shell_works_too(python: str, tmp_path: Path) -> None:
    done = run_marked("%cd .\n" + pool("spawn"), tmp_path, python)
    assert "[2, 4]\n" in done.stdout
    assert done.return_code == 0


def test_workers_send_nothing_home(python: str, tmp_path: Path) -> None:
    done = run_marked(pool("spawn") + "'once'", tmp_path, python)
    assert done.results == ["'once'"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("guard", ["for _ in [1]:", "with open('cell.py'):"])
def test_an_unguarded_pool_is_one_error_where_it_would_never_end(
    tmp_path: Path, method: str, guard: str
) -> None:
    done = run_marked(pool(method, guard=guard), tmp_path)
    (error,) = done.raised["exceptions"]
    assert error["type"] == "RuntimeError"
    assert "would start others at line" in error["value"]
    assert "if __name__ == '__main__':" in error["value"]
    assert (done.stderr, done.return_code) == ("", 1)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_cell_that_awaits_cannot_spawn(python: str, tmp_path: Path, method: str) -> None:
    cell = f"import asyncio\nawait asyncio.sleep(0)\n{pool(method)}"
    done = run_marked(cell, tmp_path, python)
    assert "await at its top level" in done.raised["exceptions"][0]["value"]
    assert done.return_code == 1


def test_a_cell_that_awaits_can_fork(tmp_path: Path) -> None:
    cell = f"import asyncio\nawait asyncio.sleep(0)\n{pool('fork')}"
    assert run_marked(cell, tmp_path).stdout == "[2, 4]\n"
