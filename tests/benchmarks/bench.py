"""`make bench`: the budgets of the design, measured side by side in one run, as one table.

What is compared takes turns (A, B, C, A, B, C, ...), so that a machine which slows down meanwhile
slows all of it. Times are medians, from sending a cell to its kernel until the kernel is idle
again and all its output is here. Nothing fails: a benchmark on a busy machine is no verdict.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from lyceum_magic.display.tables import Table
from lyceum_magic.embedded import local_server
from lyceum_magic.embedded.demo import throwaway_home
from lyceum_magic.protocol import paths

from . import callbacks, growth, receiver, throughput
from .kernel import Kernel, kernel
from .row import Row

_LIMIT_S = 180
#: Less than the budget's 1 GB makes a quick run.
FLOOD_MB = int(os.environ.get("BENCH_FLOOD_MB", "1000"))

TRIVIAL = "print(1)"
LINES = "for number in range(200_000):\n    print(number)"
FLOOD = f"line = 'x' * 99\nfor _ in range({FLOOD_MB} * 10_000):\n    print(line)"
ISOLATED_PRINTS = """
import time
for _ in range(20):
    time.sleep(0.5)  # the silence that isolates the next print
    print(repr(time.time()), flush=True)
"""
START_ENGINE = """
import ipyparallel
cluster = ipyparallel.Cluster(n=1, log_level=40)
cluster.start_and_connect_sync(activate=True);
"""


def take_turns(running: Kernel, cells: Sequence[str], rounds: int) -> list[float]:
    """The median seconds of each cell. A first round, which warms up, does not count."""
    times = [[running.run(cell) for cell in cells] for _ in range(rounds + 1)]
    return [median(column) for column in zip(*times[1:], strict=True)]


def trivial_cells(running: Kernel, rounds: int = 30) -> Iterator[Row]:
    running.run(START_ENGINE)
    heads = ("%%lyceum --local", "%%lyceum --local --raw", "%%script python3", "%%px")
    ours, raw, script, px = take_turns(running, [f"{head}\n{TRIVIAL}" for head in heads], rounds)
    running.run("cluster.stop_cluster_sync()")
    here = f"{ours * 1e3:.0f} ms against "
    yield Row("trivial cell, warm server, against %%script python3", ours / script, "x", 1.0,
              rounds, here + f"{script * 1e3:.0f} ms")  # fmt: skip
    yield Row("trivial cell, warm server, against %%px on one engine", ours / px, "x", 1.0,
              rounds, here + f"{px * 1e3:.0f} ms")  # fmt: skip
    yield Row("of which the bootstrap (against --raw)", (ours - raw) * 1e3, "ms", 3, rounds,
              here + f"{raw * 1e3:.0f} ms")  # fmt: skip


def many_lines(running: Kernel, rounds: int = 3) -> Iterator[Row]:
    heads = ("%%lyceum --local\n", "", "%%script python3\n")
    ours, plain, script = take_turns(running, [head + LINES for head in heads], rounds)
    for name, other, at_most in (("a plain cell", plain, 0.25), ("%%script python3", script, None)):
        yield Row(f"200 000 lines, against {name}", ours / other, "x", at_most, rounds,
                  f"{ours:.2f} s against {other:.2f} s")  # fmt: skip


def latency(running: Kernel) -> Iterator[Row]:
    delays_s: list[float] = []

    def note(message: Any) -> None:
        if message["msg_type"] == "stream":
            arrived = time.time()
            printed = re.findall(r"^\d+\.\d+$", message["content"]["text"], re.M)
            delays_s.extend(arrived - float(moment) for moment in printed)

    running.run(f"%%lyceum --local{ISOLATED_PRINTS}", note)
    yield Row("an isolated print there to its text here, p50", median(delays_s) * 1e3, "ms", 60,
              len(delays_s))  # fmt: skip


def flood(running: Kernel) -> Iterator[Row]:
    before = running.forget_peak()
    took_s = running.run(f"%%lyceum --local\n{FLOOD}")
    grown = running.peak_bytes() - before
    yield Row(f"kernel memory, peak growth in {FLOOD_MB} MB of output", grown / 2**20, "MB", 64, 1,
              f"followed in {took_s:.0f} s")  # fmt: skip


def load_ext(environment: dict[str, str], rounds: int = 5) -> Iterator[Row]:
    """In fresh kernels: a second extension would find the imports of the first."""
    names = ("lyceum_magic", "ipyparallel")
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            with kernel(environment) as fresh:
                fresh.run(
                    "import time; begun = time.perf_counter()\n"
                    f"get_ipython().run_line_magic('load_ext', {name!r})\n"
                    "took_s = time.perf_counter() - begun"
                )
                times[name].append(float(fresh.value("took_s")))
    ours, other = (median(times[name]) * 1e3 for name in names)
    yield Row("%load_ext lyceum_magic", ours, "ms", 25, rounds, f"ipyparallel {other:.0f} ms")


def server(rounds: int = 5) -> Iterator[Row]:
    starts, sizes = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="lyceum-bench-") as name:
            folder = Path(name) / "state"
            begun = time.perf_counter()
            account = local_server.ensure(folder)
            headers = {"Authorization": f"Bearer {account.token.reveal()}"}
            with httpx.Client(
                base_url=account.base_url, headers=headers, trust_env=False, timeout=_LIMIT_S
            ) as client:
                body = {"code": TRIVIAL, "execution_type": "cpu"}
                reply = client.post(paths.START_PYTHON, json=body).raise_for_status()
                starts.append(time.perf_counter() - begun)
                client.post(paths.stream(reply.json()["execution_id"]))  # until its end
            sizes.append(_idle_pss(json.loads((folder / "server.json").read_text())["pid"]))
            if not local_server.end(folder):
                raise RuntimeError("the server did not end")
    yield Row("server, cold start to the first accepted run", median(starts), "s", 1.2, rounds)
    yield Row("server, idle memory (PSS, with its pool of 2)", median(sizes) / 2**20, "MB", 120,
              rounds)  # fmt: skip


def _idle_pss(pid: int) -> int:
    """Memory of the server and its waiting interpreters, once their number has settled."""
    server = psutil.Process(pid)
    before, family = None, [server]
    while before != family:
        time.sleep(0.5)  # longer than the pool takes to start the next interpreter
        before, family = family, [server, *server.children(recursive=True)]
    return sum(int(member.memory_full_info().pss) for member in family)


def cells() -> Iterator[Row]:
    """The waits of users in a notebook, and the memory of its kernel meanwhile."""
    with throwaway_home() as environment:
        # What `%%script python3` finds should be the interpreter that the others have.
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        yield from load_ext(environment)
        with kernel(environment) as running:
            running.run("%load_ext lyceum_magic")
            yield from trivial_cells(running)
            yield from latency(running)
            yield from many_lines(running)
        # A kernel of its own: the plain cells above have left their memory in the last one.
        with kernel(environment) as running:
            running.run("%load_ext lyceum_magic")
            running.run(f"%%lyceum --local\n{TRIVIAL}")
            yield from flood(running)


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "server": server,
    "cells": cells,
    "throughput": throughput.measure,
    "callbacks": callbacks.measure,
    "receiver": receiver.measure,
    "growth": growth.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="measures the budgets of the design")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    chosen = parser.parse_args().parts or PARTS
    rows = []
    for row in itertools.chain.from_iterable(PARTS[part]() for part in chosen):
        print(f"{row.what} ...", file=sys.stderr, flush=True)
        rows.append(row)
    print(Table(["what", "measured", "budget", "", "from", "n"], [row.cells() for row in rows]))
    missed = [row.what.strip() for row in rows if row.is_kept is False]
    kept = sum(row.is_kept is True for row in rows)
    print(f"{kept} of {kept + len(missed)} budgets are kept.", *(f"MISSED: {m}" for m in missed),
          sep="\n")  # fmt: skip


if __name__ == "__main__":
    main()
