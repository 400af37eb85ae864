"""First calls that coincide: in threads, in greenlets, and in both orders of patching."""

from __future__ import annotations

import pytest

from tests.tools.programs import run_program

#: `together` calls a function with 0, 1, 2, ... at the same moment, in threads.
THREADS = """
import threading

def together(function, count):
    results, barrier = [None] * count, threading.Barrier(count)
    def call(number):
        barrier.wait()
        results[number] = function(number)
    threads = [threading.Thread(target=call, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
"""

#: The same, in greenlets.
GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent

def together(function, count):
    jobs = [gevent.spawn(function, number) for number in range(count)]
    gevent.joinall(jobs, raise_error=True)
    return [job.value for job in jobs]
"""

#: The same, where this package and its libraries were imported before the patches.
PATCHED_LATE = f"import lyceum_magic.api\n{GREENLETS}"

FOUR_RUNS = """
import lyceum_magic

ended = []
lyceum_magic.on_finish(ended.append)

def run(number):
    return lyceum_magic.submit(f"print({number})").result().text.strip()

print(together(run, 4))
lyceum_magic.attach("last").wait()  # hooks are called where the main thread waits
print(len(ended), len({entry.process for entry in lyceum_magic.runs()}))
"""


@pytest.mark.parametrize(
    "way", [THREADS, GREENLETS, PATCHED_LATE], ids=["threads", "greenlets", "patched late"]
)
def test_four_first_runs_share_one_workspace_and_its_hooks(way: str) -> None:
    assert run_program(way + FOUR_RUNS) == "['0', '1', '2', '3']\n4 1\n"


@pytest.mark.parametrize("way", [THREADS, GREENLETS], ids=["threads", "greenlets"])
@pytest.mark.parametrize(
    "call",
    [
        "lyceum_magic.on_finish(lambda run: None)",
        "lyceum_magic.runs()",
        "lyceum_magic.signing_secret()",
        "workspace().inbox.listening_address()",
    ],
)
def test_any_call_may_be_the_first(way: str, call: str) -> None:
    code = f"""
import lyceum_magic
from lyceum_magic.runs.workspace import workspace

def first(_number):
    {call}
    here = workspace()
    return id(here), id(here.history.journal), id(here.accounts.embedded())

print(len(set(together(first, 4))))
"""
    assert run_program(way + code) == "1\n"
