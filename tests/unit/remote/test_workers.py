"""Workers of `multiprocessing` get the cell's definitions, or there is one error, never a loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.remote.interpreters import INTERPRETERS
from tests.unit.remote.marked import run_marked


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


UNGUARDED = {
    "for": "for _ in [1]:",
    "with": "with open('cell.py'):",
    "if": "if True:",
    "try": "try: pass\nfinally:",
    "await": "import asyncio\nawait asyncio.sleep(0)\nif True:",
    "await under a guard": "import asyncio\nawait asyncio.sleep(0)\nif __name__ == '__main__':",
}


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("guard", UNGUARDED.values(), ids=UNGUARDED.keys())
def test_what_the_cell_defines_is_refused_where_workers_do_not_have_it(
    tmp_path: Path, method: str, guard: str
) -> None:
    done = run_marked(pool(method, guard=guard), tmp_path)
    (error, *_) = done.raised["exceptions"]
    assert error["type"] == "RuntimeError"
    assert "do not have double, which the cell defines: " in error["value"]
    assert "if __name__ == '__main__':" in error["value"]
    assert (done.stderr, done.return_code) == ("", 1)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("guard", UNGUARDED.values(), ids=UNGUARDED.keys())
def test_work_that_can_be_imported_needs_no_guard(tmp_path: Path, method: str, guard: str) -> None:
    cell = pool(method, guard=guard).replace("double,", "math.sqrt,")
    done = run_marked(f"import math\n{cell}", tmp_path)
    assert (done.stdout, done.stderr, done.return_code) == ("[1.0, 1.4142135623730951]\n", "", 0)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_and_an_executor_are_told_too(python: str, tmp_path: Path, method: str) -> None:
    cell = (
        "import math, multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor\n"
        f"context = multiprocessing.get_context({method!r})\n"
        "def own(): pass\nclass Own: pass\n"
        "try: context.Process(target=own).start()\n"
        "except RuntimeError as error: print('own' in str(error))\n"
        "with ProcessPoolExecutor(1, context) as pool:\n"
        "    print(pool.submit(math.factorial, 5).result())\n"
        "    try: pool.submit(repr, Own()).result()\n"
        "    except RuntimeError as error: print('Own' in str(error))\n"
        "    print(pool.submit(math.factorial, 4).result())\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool: print(pool.apply(own))\n"
    )
    done = run_marked(cell, tmp_path, python)
    assert (done.stdout, done.return_code) == ("True\n120\nTrue\n24\nNone\n", 0), done


def test_work_that_comes_by_value_needs_no_guard(tmp_path: Path) -> None:
    cell = (
        "import dask, dask.multiprocessing\n"
        "def own(n): return n * factor\nfactor = 10\n"
        "tasks = [dask.delayed(own)(n) for n in range(3)]\n"
        "print(dask.compute(*tasks, scheduler='processes', num_workers=2))"
    )
    done = run_marked(cell, tmp_path)
    assert (done.stdout, done.return_code) == ("(0, 10, 20)\n", 0), done


def test_a_cluster_of_processes_on_this_machine_needs_no_guard(tmp_path: Path) -> None:
    cell = (
        "from distributed import Client, LocalCluster\n"
        "def own(n): return n * factor\nfactor = 10\n"
        "cluster = LocalCluster(n_workers=1, processes=True, dashboard_address=None)\n"
        "client = Client(cluster)\n"
        "print(client.gather(client.map(own, range(3))))\n"
        "client.close(); cluster.close()"
    )
    done = run_marked(cell, tmp_path)
    assert (done.stdout, done.return_code) == ("[0, 10, 20]\n", 0), done


def test_a_cell_that_awaits_can_fork(tmp_path: Path) -> None:
    cell = f"import asyncio\nawait asyncio.sleep(0)\n{pool('fork')}"
    assert run_marked(cell, tmp_path).stdout == "[2, 4]\n"
