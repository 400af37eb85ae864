"""The cost of many past runs: the same questions to homes with 10, 1,000 and 50,000 of them.

Every home is filled through the package's own store and journal, and then used by a real server
and real kernels.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from lyceum_magic import config
from lyceum_magic.embedded import local_server
from lyceum_magic.embedded.demo import throwaway_home
from lyceum_magic.journal.journal import Entry, Journal
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Output
from lyceum_magic.protocol.limits import TAG_KEY
from lyceum_magic.protocol.requests import StartPython
from lyceum_magic.protocol.states import State
from lyceum_magic.server import retention
from lyceum_magic.server.output.spool import SpoolWriter
from lyceum_magic.server.run_folders import RunFolders
from lyceum_magic.server.runners.handle import is_supervised
from lyceum_magic.server.stores.base import RunRecord
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault
from lyceum_magic.submission.inputs import choose_inputs
from lyceum_magic.submission.python_request import python_request
from lyceum_magic.submission.start import Choices

from .kernel import Kernel, kernel
from .row import Row

SIZES = tuple(int(size) for size in os.environ.get("BENCH_RUNS", "10,1000,50000").split(","))
_DAYS = 20  # over which the runs are spread: fewer than any of them is kept
_LIMIT_S = 180
_KERNELS = 3  # fresh ones, for each first cell
#: How long a server is watched after its start; only its CPU is counted.
_WATCH_S = 10.0
#: The output of one run that is printed again and read at once.
_OUTPUT_MB = int(os.environ.get("BENCH_OUTPUT_MB", "500"))

#: What is measured -> its unit, its budget for the largest home, and for the ratio to the smallest.
_BUDGETS: dict[str, tuple[str, float | None, float | None]] = {
    "first start after the server's start": ("ms", None, 1.2),
    "sweep of a server's start, CPU": ("ms", 500, None),
    "sweep of a server's start, its longest step on the store's thread, CPU": ("ms", 20, None),
    "sweep that measures all runs for the first time, CPU": ("ms", None, None),
    "sweep that measures all runs, its longest step on the store's thread, CPU": ("ms", 20, None),
    "server, CPU of its first 10 s": ("ms", None, None),
    "GET logs/user": ("ms", 50, None),
    "trivial cell": ("ms", None, 1.2),
    "first cell of a kernel": ("ms", None, 1.2),
    "first `%lyceum list` of a kernel": ("ms", 300, 1.2),
    "`%lyceum list`": ("ms", 100, 1.2),
    "`%lyceum list --all`": ("ms", 300, None),
    "runs.sqlite3, bytes a run": ("B", 2000, None),
}


def measure() -> Iterator[Row]:
    """One row for each question: the largest home, and its ratio to the smallest."""
    found = _figures()
    smallest, largest = min(SIZES), max(SIZES)
    for what, (unit, at_most, ratio_at_most) in _BUDGETS.items():
        by_size = ", ".join(f"{size:,}: {found[size][what]:,.0f}" for size in SIZES)
        yield Row(f"{what}, {largest:,} past runs", found[largest][what], unit, at_most, 1, by_size)
        if unit == "ms":
            ratio = found[largest][what] / found[smallest][what]
            yield Row(f"  {what}, against {smallest:,}", ratio, "x", ratio_at_most, 1)
    yield from _packing()
    yield from _long_output()


def _packing(rounds: int = 5) -> Iterator[Row]:
    data = os.urandom(9 << 20)
    packing, sending, plain = [], [], []
    for _ in range(rounds):
        begun = time.process_time()
        inputs = choose_inputs(["data"], "len(data)", {"data": data})
        request = python_request("len(data)", Choices("cpu"), inputs=inputs)
        packed = time.process_time()
        request.body()
        sent = time.process_time()
        base64.b64encode(data).decode()
        packing.append(packed - begun)
        sending.append(sent - packed)
        plain.append(time.process_time() - sent)
    against = f"base64 alone: {median(plain) * 1e3:.0f} ms"
    what = "`--in` of 9 MB of random bytes, CPU"
    yield Row(what, median(packing) * 1e3, "ms", 60, rounds, against)
    yield Row("  its request as JSON, CPU", median(sending) * 1e3, "ms", None, rounds)


def _figures() -> dict[int, dict[str, float]]:
    """Measure the cost of every home. Where users wait, the homes take turns."""
    with ExitStack() as stack:
        homes = {size: stack.enter_context(throwaway_home()) for size in SIZES}
        found: dict[int, dict[str, float]] = {}
        for size, environment in homes.items():
            print(f"making {size:,} past runs ...", file=sys.stderr, flush=True)
            _in_process("fill", environment, size)
            found[size] = _in_process("sweep", environment, size)
            found[size] |= _in_process("serve", environment, size)

        def note(what: str, rounds: int, ask: Callable[[int], float]) -> None:
            times = [[ask(size) for size in homes] for _ in range(rounds)]
            for size, column in zip(homes, zip(*times, strict=True), strict=True):
                found[size][what] = median(column) * 1e3

        cell = "%%lyceum --local\nprint(1)"
        note("first `%lyceum list` of a kernel", _KERNELS,
             lambda size: _first(homes[size], "%lyceum list --all"))  # fmt: skip
        note("first cell of a kernel", _KERNELS, lambda size: _first(homes[size], cell))
        kernels = {size: stack.enter_context(kernel(homes[size])) for size in homes}
        for running in kernels.values():
            running.run("%load_ext lyceum_magic")
            running.run(cell)
        note("trivial cell", 20, lambda size: kernels[size].run(cell))
        note("`%lyceum list`", 10, lambda size: kernels[size].run("%lyceum list"))
        note("`%lyceum list --all`", 10, lambda size: kernels[size].run("%lyceum list --all"))
        return found


def _first(environment: dict[str, str], code: str) -> float:
    """The seconds that the first cell of a fresh kernel takes."""
    with kernel(environment) as fresh:
        fresh.run("%load_ext lyceum_magic")
        return fresh.run(code)


def _in_process(what: str, environment: dict[str, str], size: int) -> dict[str, float]:
    """The figures of `main` in a process that has this environment."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, what, str(size)],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    what, size = sys.argv[1], int(sys.argv[2])
    figures: dict[str, float]
    match what:
        case "fill":
            figures = asyncio.run(_fill(size))
        case "flood":
            figures = _flood(size)
        case "sweep":
            figures = asyncio.run(_sweep())
        case _:
            figures = _serve(size)
    print(json.dumps(figures))


# --- a home with a past --------------------------------------------------------------------------


async def _fill(size: int) -> dict[str, float]:
    folder = config.server_folder()
    folder.mkdir(mode=0o700, parents=True)
    store = SqliteStore(folder / "runs.sqlite3", Vault(folder / "vault.key"))
    await store.open()
    folders = RunFolders(folder / "runs")
    folders.make()
    journal = Journal(config.journal_folder())
    request = python_request("print(1)", Choices("cpu"))
    begun = time.time() - _DAYS * 86_400
    for number in range(size):
        created_at = begun + number * _DAYS * 86_400 / size
        await _add(folders, store, journal, request, number, created_at)
    journal.close()
    await store.close()
    return {}


async def _add(
    folders: RunFolders,
    store: SqliteStore,
    journal: Journal,
    request: StartPython,
    number: int,
    created_at: float,
) -> None:
    tag = uuid.uuid4().hex
    request = request.model_copy(
        update={
            "run_name": f"run {number}",
            "metadata": {**(request.metadata or {}), TAG_KEY: tag},
        }
    )
    run_id = f"{number:08x}-1f1f-4a4a-8b8b-{number:012x}"
    record = RunRecord(run_id, request, created_at)
    work = folders.of(run_id) / "work"
    work.mkdir(parents=True)
    (work / "cell.py").write_text(f"print({number})\n")
    (work.parent / "exit.json").write_text('{"return_code": 0}')
    spool = SpoolWriter(work.parent / "spool")
    spool.append("stdout", created_at + 1, f"{number}\n".encode())
    spool.close()
    await store.add(record)
    ended_at = created_at + 2
    await store.finish(
        replace(
            record, state=State.COMPLETED, return_code=0, started_at=created_at + 0.5,
            finished_at=ended_at, spool=work.parent / "spool",
        )
    )  # fmt: skip
    entry = Entry(
        tag=tag, run_id=run_id, base_url="http://127.0.0.1:1", is_embedded=True,
        server_folder=str(config.server_folder()), streaming_url=None, machine="cpu",
        name=f"run {number}", timeout_s=600, created_at=created_at,
    )  # fmt: skip
    journal.write(entry)
    log = journal.open_log(tag)
    log.claim()
    log.append(Output(f"{number}\n", timestamp=created_at + 1), "1")
    log.close()
    journal.write(replace(entry, state="completed", return_code=0, ended_at=ended_at))


# --- one run with a long output -------------------------------------------------------------------


def _long_output() -> Iterator[Row]:
    with throwaway_home() as environment:
        _in_process("flood", environment, _OUTPUT_MB)
        with kernel(environment) as running:
            running.run("%load_ext lyceum_magic\n%lyceum list")
            ours = _cpu_of(running, "%lyceum logs last")
            plain = _cpu_of(
                running,
                "import sys\nline = 'x' * 99 + '\\n'\n"
                f"for _ in range({_OUTPUT_MB}):\n    _ = sys.stdout.write(line * 10_000)",
            )
            against = f"a plain cell that prints it: {plain:.1f} s"
            yield Row(f"`%lyceum logs` of {_OUTPUT_MB} MB, CPU", ours, "s", 3, 1, against)
            yield Row("  `%lyceum logs`, against a plain cell", ours / plain, "x", 1.2, 1)
        with kernel(environment) as running:
            running.run("import lyceum_magic\nrun = lyceum_magic.attach('last')")
            before = running.forget_peak()
            running.run("text = run.text")
            peak = (running.peak_bytes() - before) / (_OUTPUT_MB * 1e6)
            yield Row(f"`run.text` of {_OUTPUT_MB} MB, its peak memory against the text", peak,
                      "x", 1.2, 1)  # fmt: skip


def _cpu_of(running: Kernel, code: str) -> float:
    """The CPU seconds that the kernel takes for a cell."""
    process = psutil.Process(running.pid)
    before = sum(process.cpu_times()[:2])
    running.run(code)
    return sum(process.cpu_times()[:2]) - before


def _flood(megabytes: int) -> dict[str, float]:
    """Put a run of that much text into the journal, in the pieces in which a server sends it."""
    journal = Journal(config.journal_folder())
    now = time.time()
    entry = Entry(
        tag="f" * 32, run_id="0" * 36, base_url="http://127.0.0.1:1", is_embedded=True,
        server_folder=str(config.server_folder()), streaming_url=None, machine="cpu", name="",
        timeout_s=600, created_at=now - 60,
    )  # fmt: skip
    journal.write(entry)
    log = journal.open_log(entry.tag)
    log.claim()
    text = ("x" * 99 + "\n") * 500
    for number in range(megabytes * 20):
        log.append(Output(text, timestamp=now - 30), str(number))
    log.close()
    journal.write(replace(entry, state="completed", return_code=0, ended_at=now - 1))
    journal.close()
    return {}


# --- a store with a past --------------------------------------------------------------------------


async def _sweep() -> dict[str, float]:
    """The first sweep that meets the runs, and the second: what each start of a server does."""
    retention.REST = 0  # the pauses are no work
    folder = config.server_folder()
    store = SqliteStore(folder / "runs.sqlite3", Vault(folder / "vault.key"))
    await store.open()
    steps: list[float] = []
    on_thread = store._file._on_thread

    async def timed(function: Callable[[], Any]) -> Any:
        def run() -> Any:
            begun = time.thread_time()
            try:
                return function()
            finally:
                steps.append(time.thread_time() - begun)

        return await on_thread(run)

    store._file._on_thread = timed  # type: ignore[method-assign]
    sweeper = retention.Retention(
        store, folder / "runs", is_in_use=lambda _: False, is_supervised=is_supervised,
        keep_s=40 * 86_400, keep_bytes=1 << 50,
    )  # fmt: skip
    found = {}
    for which, step in (
        ("sweep that measures all runs for the first time", "sweep that measures all runs"),
        ("sweep of a server's start", "sweep of a server's start"),
    ):
        steps.clear()
        begun = time.process_time()
        await sweeper.sweep()
        found[f"{which}, CPU"] = (time.process_time() - begun) * 1e3
        found[f"{step}, its longest step on the store's thread, CPU"] = max(steps) * 1e3
    await store.close()
    return found


# --- a server with a past ------------------------------------------------------------------------


def _serve(size: int) -> dict[str, float]:
    folder = config.server_folder()
    found = {"runs.sqlite3, bytes a run": _bytes_of(folder) / size}
    starts = []
    for _ in range(5):
        with _server(folder) as (client, _pid):
            starts.append(_first_start(client))
    found["first start after the server's start"] = median(starts) * 1e3
    with _server(folder) as (client, pid):
        begun = time.perf_counter()
        times = []
        while time.perf_counter() - begun < _WATCH_S:
            asked = time.perf_counter()
            client.get(paths.USER_LOGS, params={"hours": 24}).raise_for_status()
            times.append(time.perf_counter() - asked)
            time.sleep(2)
        found["GET logs/user"] = median(times) * 1e3
        found["server, CPU of its first 10 s"] = sum(psutil.Process(pid).cpu_times()[:2]) * 1e3
    return found


def _first_start(client: httpx.Client) -> float:
    body = {"code": "print(1)", "execution_type": "cpu"}
    begun = time.perf_counter()
    started = client.post(paths.START_PYTHON, json=body).raise_for_status().json()
    took_s = time.perf_counter() - begun
    client.post(paths.stream(started["execution_id"]))  # until its end
    return took_s


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("runs.sqlite3*"))


@contextmanager
def _server(folder: Path) -> Iterator[tuple[httpx.Client, int]]:
    account = local_server.ensure(folder)
    headers = {"Authorization": f"Bearer {account.token.reveal()}"}
    with httpx.Client(
        base_url=account.base_url, headers=headers, trust_env=False, timeout=_LIMIT_S
    ) as client:
        yield client, json.loads((folder / "server.json").read_text())["pid"]
    if not local_server.end(folder):
        raise RuntimeError("the server did not end")


if __name__ == "__main__":
    main()
