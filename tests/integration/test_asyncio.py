"""Runs that coroutines start and await, under asyncio and under trio."""

from __future__ import annotations

import pytest

from tests.tools.programs import run_program

pytestmark = pytest.mark.usefixtures("shared_server")

#: `loop_run` runs a coroutine function, `sleep` and `together` are those of its library.
ASYNCIO = """
import asyncio
sleep = asyncio.sleep

def loop_run(main):
    asyncio.run(main())

async def together(*functions):
    await asyncio.gather(*(function() for function in functions))
"""
TRIO = """
import trio
sleep = trio.sleep
loop_run = trio.run

async def together(*functions):
    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(function)
"""
EACH = pytest.mark.parametrize("library", [ASYNCIO, TRIO], ids=["asyncio", "trio"])


@EACH
def test_a_start_lets_the_loop_go_on(library: str) -> None:
    # It starts a server first, which takes many ticks.
    code = """
import lyceum_magic
ticks = 0
run = None

async def start():
    global run
    run = await lyceum_magic.submit_async("print(number)", inputs={"number": 7})

async def tick():
    global ticks
    while run is None:
        ticks += 1
        await sleep(0.01)

async def main():
    await together(start, tick)
    print(ticks > 5, (await run).text, end="")

loop_run(main)
"""
    assert run_program(library + code) == "True 7\n"


@EACH
def test_several_runs_start_and_end_side_by_side(library: str) -> None:
    code = """
import lyceum_magic
texts = []

async def one():
    run = await lyceum_magic.submit_async("print(1)")
    texts.append((await run).text)

async def main():
    await together(one, one, one)
    print(texts, len({entry.process for entry in lyceum_magic.runs()}))

loop_run(main)
"""
    assert run_program(library + code) == "['1\\n', '1\\n', '1\\n'] 1\n"


@EACH
def test_errors_are_those_of_the_blocking_form(library: str) -> None:
    code = """
import lyceum_magic

async def main():
    for start in (
        lyceum_magic.submit_async("1 +"),
        lyceum_magic.submit_async("1", place="nowhere"),
        lyceum_magic.submit_image_async(""),
        lyceum_magic.submit_compose_async(""),
    ):
        try:
            await start
        except (SyntaxError, lyceum_magic.LyceumError) as exc:
            print(type(exc).__name__)
    try:
        await (await lyceum_magic.submit_async("1 / 0"))
    except lyceum_magic.RunFailed as exc:
        print(exc.ename)

loop_run(main)
"""
    printed = run_program(library + code)
    assert printed.split() == [
        "SyntaxError", "OptionError", "OptionError", "OptionError", "ZeroDivisionError"
    ]  # fmt: skip


@EACH
def test_a_start_that_is_cancelled_leaves_no_run(library: str) -> None:
    code = """
import lyceum_magic, threading
from lyceum_magic.runs import workspace as workspace_module

# The start goes on in its thread until the test lets it.
is_starting, may_start = threading.Event(), threading.Event()
begin = workspace_module.Workspace.submit
def late(*args, **kwargs):
    is_starting.set()
    may_start.wait()
    return begin(*args, **kwargs)
workspace_module.Workspace.submit = late
endless = "import time; time.sleep(600)"

async def main():
    if "trio" in globals():
        with trio.CancelScope() as scope:
            async def cancel():
                while not is_starting.is_set():
                    await sleep(0.01)
                scope.cancel()
            async def start():
                await lyceum_magic.submit_async(endless)
            await together(start, cancel)
    else:
        task = asyncio.create_task(lyceum_magic.submit_async(endless))
        while not is_starting.is_set():
            await sleep(0.01)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
    may_start.set()
    while not (entries := lyceum_magic.runs()) or entries[0].run_id is None:
        await sleep(0.01)
    try:
        await lyceum_magic.attach("last")
    except lyceum_magic.RunAborted as exc:
        print(exc)

loop_run(main)
"""
    assert "its start was cancelled" in run_program(library + code)


def test_an_interrupt_under_trio_aborts_the_run() -> None:
    code = """
import lyceum_magic, os, signal

async def main():
    run = await lyceum_magic.submit_async("print('begun')\\nimport time; time.sleep(600)")
    is_waiting = False
    async def interrupt():
        while not is_waiting or "begun" not in run.text:
            await sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    async def wait():
        nonlocal is_waiting
        is_waiting = True
        await run
    try:
        await together(wait, interrupt)
    except* KeyboardInterrupt:
        print(run.wait())

loop_run(main)
"""
    assert run_program(TRIO + code) == "aborted\n"


def test_tracebacks_of_a_start_show_no_address() -> None:
    code = """
import asyncio, lyceum_magic, traceback

async def main():
    try:
        await lyceum_magic.submit_async("1", place="nowhere", callback_urls="https://a.example/?t=canary")
    except lyceum_magic.LyceumError as exc:
        lines = traceback.TracebackException.from_exception(exc, capture_locals=True).format()
        ours = [line for line in lines if "canary" in line and "<string>" not in line]
        print(ours)

asyncio.run(main())
"""
    assert run_program(code) == "[]\n"


def test_help_shows_the_arguments() -> None:
    code = """
import inspect, lyceum_magic
assert inspect.signature(lyceum_magic.submit_async) == inspect.signature(lyceum_magic.submit)
assert inspect.iscoroutinefunction(lyceum_magic.submit_async)
print(inspect.getdoc(lyceum_magic.submit_async))
"""
    assert run_program(code).startswith("Start a run as `submit` does, for coroutines")
