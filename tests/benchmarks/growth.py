"""The cost of many past runs: the same questions to homes with 10, 1,000 and 50,000 of them.

Every home is filled through the package's own store and journal, and then used by a real server
and real kernels.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import httpx
import psutil

from lyceum_magic import config, local_server
from lyceum_magic.demo import throwaway_home
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Output
from lyceum_magic.protocol.limits import TAG_KEY
from lyceum_magic.protocol.states import State
from lyceum_magic.runs.journal import Entry, Journal
from lyceum_magic.server.run_folders import RunFolders
from lyceum_magic.server.spool import SpoolWriter
from lyceum_magic.server.stores.base import RunRecord
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault
from lyceum_magic.submission.inputs import choose_inputs
from lyceum_magic.submission.python_request import python_request
from lyceum_magic.submission.start import Choices

from .kernel import kernel
from .row import Row

SIZES = tuple(int(size) for size in os.environ.get("BENCH_RUNS", "10,1000,50000").split(","))
_DAYS = 20  # over which the runs are spread: fewer than any of them is kept
_LIMIT_S = 180
#: How long a server works after its start until its sweep is surely over; only its CPU is counted.
_SWEEP_S = float(os.environ.get("BENCH_SWEEP_S", "30"))

#: What is measured -> its unit, its budget for the largest home, and for the ratio to the smallest.
_BUDGETS: dict[str, tuple[str, float | None, float | None]] = {
    "first start after the server's start": ("ms", None, 1.2),
    "server, CPU of its first 30 s": ("ms", None, None),
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
    found = {size: _figures(size) for size in SIZES}
    smallest, largest = min(SIZES), max(SIZES)
    for what, (unit, at_most, ratio_at_most) in _BUDGETS.items():
        by_size = ", ".join(f"{size:,}: {found[size][what]:,.0f}" for size in SIZES)
        yield Row(f"{what}, {largest:,} past runs", found[largest][what], unit, at_most, 1, by_size)
        if unit == "ms":
            ratio = found[largest][what] / found[smallest][what]
            yield Row(f"  against {smallest:,} past runs", ratio, "x", ratio_at_most, 1)
    yield from _packing()


def _packing(rounds: int = 5) -> Iterator[Row]:
    data = os.urandom(9 << 20)
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        inputs = choose_inputs(["data"], "len(data)", {"data": data})
        python_request("len(data)", Choices("cpu"), inputs=inputs)
        times.append(time.process_time() - begun)
    yield Row("`--in` of 9 MB of random bytes, CPU", median(times) * 1e3, "ms", 60, rounds)


def _figures(size: int) -> dict[str, float]:
    with throwaway_home() as environment:
        print(f"making {size:,} past runs ...", file=sys.stderr, flush=True)
        _in_process("fill", environment, size)
        found = _in_process("serve", environment, size)
        with kernel(environment) as running:
            running.run("%load_ext lyceum_magic")
            found["first `%lyceum list` of a kernel"] = running.run("%lyceum list --all") * 1e3
        with kernel(environment) as running:
            running.run("%load_ext lyceum_magic")
            cell = "%%lyceum --local\nprint(1)"
            found["first cell of a kernel"] = running.run(cell) * 1e3
            for what, code, rounds in (
                ("trivial cell", cell, 20),
                ("`%lyceum list`", "%lyceum list", 10),
                ("`%lyceum list --all`", "%lyceum list --all", 10),
            ):
                found[what] = median(running.run(code) for _ in range(rounds)) * 1e3
        return found


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
    print(json.dumps(asyncio.run(_fill(size)) if what == "fill" else _serve(size)))


# --- a home with a past --------------------------------------------------------------------------


async def _fill(size: int) -> dict[str, float]:
    folder = config.server_folder()
    folder.mkdir(mode=0o700, parents=True)
    store = SqliteStore(folder / "runs.sqlite3", Vault(folder / "vault.key"))
    await store.open()
    folders = RunFolders(folder / "runs")
    folders.make()
    journal = Journal(config.journal_folder())
    begun = time.time() - _DAYS * 86_400
    for number in range(size):
        await _add(folders, store, journal, number, begun + number * _DAYS * 86_400 / size)
    journal.close()
    await store.close()
    return {}


async def _add(
    folders: RunFolders, store: SqliteStore, journal: Journal, number: int, created_at: float
) -> None:
    choices = Choices("cpu", name=f"run {number}")
    request = python_request(f"print({number})", choices)
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
    tag = (request.metadata or {})[TAG_KEY]
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
        while time.perf_counter() - begun < _SWEEP_S:
            asked = time.perf_counter()
            client.get(paths.USER_LOGS, params={"hours": 24}).raise_for_status()
            times.append(time.perf_counter() - asked)
            time.sleep(2)
        found["GET logs/user"] = median(times) * 1e3
        found["server, CPU of its first 30 s"] = sum(psutil.Process(pid).cpu_times()[:2]) * 1e3
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
