"""The log takes a repeated message once and counts it, and every failed task is logged."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from lyceum_magic.server.log import FORGET_S, Repetitions
from lyceum_magic.server.tasks import log_failure
from tests.tools.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Iterator[io.StringIO]:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(Repetitions(clock))
    logger = logging.getLogger("lyceum_magic.test")
    logger.addHandler(handler)
    logger.propagate = False
    yield text
    logger.removeHandler(handler)
    logger.propagate = True


def say(*arguments: object) -> None:
    logging.getLogger("lyceum_magic.test").error(*arguments)


def fail(text: str, about: object) -> None:
    try:
        raise OSError(24, text)
    except OSError:
        logging.getLogger("lyceum_magic.test").exception("in the callback %r", about)


def test_a_sentence_is_said_once_and_counted(log: io.StringIO) -> None:
    for _ in range(250):
        say("no %s", "descriptors")
    say("no %s", "memory")
    assert log.getvalue().splitlines() == [
        "no descriptors",
        "no descriptors (10 times so far)",
        "no descriptors (100 times so far)",
        "no memory",
    ]


def test_an_exception_is_the_same_whatever_is_said_beside_it(log: io.StringIO) -> None:
    for _ in range(12):
        fail("Too many open files", object())
    fail("Out of memory", object())
    assert log.getvalue().count("Traceback") == 2
    assert "(10 times so far)" in log.getvalue()


def test_what_comes_back_after_a_while_is_said_again(log: io.StringIO, clock: Clock) -> None:
    say("full")
    clock.now += FORGET_S + 1
    say("full")
    assert log.getvalue() == "full\nfull\n"


def test_it_remembers_a_limited_number(log: io.StringIO) -> None:
    for number in range(10_000):
        say("run %d", number)
    assert log.getvalue().count("\n") == 10_000


async def _fail() -> None:
    raise ValueError("lost")


def test_the_failure_of_a_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        task = asyncio.create_task(_fail(), name="the sweep")
        task.add_done_callback(log_failure)
        cancelled = asyncio.create_task(asyncio.sleep(60))
        cancelled.add_done_callback(log_failure)
        cancelled.cancel()
        await asyncio.wait([task, cancelled])

    asyncio.run(main())
    (record,) = caplog.records
    assert record.getMessage() == "the sweep failed"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "lost"
