"""Waiting for a run: in a thread, or in the user's own event loop; an interrupt aborts the run."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager

import anyio

from ..protocol.states import State
from .ending import CONFIRM_S
from .following import CALLBACK_GRACE_S, Following
from .interrupts import noted_interrupts

#: Seconds after which a wait in the user's own event loop lets Python notice an interrupt.
TICK_S = 0.1


class Waiting:
    """The waits of one run's users.

    Args:
        script_waits: called after a wait; see `SafeMoments.script_waits`.
    """

    def __init__(self, following: Following, script_waits: Callable[[], None]) -> None:
        self._following = following
        self._script_waits = script_waits

    def for_start(self) -> None:
        """Wait until the server has answered the start.

        Raises:
            LyceumError: the run could not be started.
        """
        self._until_any([self._following.known], None)
        self._script_waits()
        if not self._following.run_id and self._following.error is not None:
            raise self._following.error

    def for_end(self, left_s: float | None, timeout_s: float | None) -> State:
        """Wait until the run has ended, and return its state.

        Args:
            left_s: seconds that this wait may take; None for no limit.
            timeout_s: seconds that the user allowed, for the message.

        Raises:
            TimeoutError: it has not ended in time.
            LyceumError: its end cannot be learnt.
        """
        following = self._following
        if not self._until_any([following.ended], left_s):
            raise TimeoutError(f"run {following.run_id} has not ended within {timeout_s} s")
        self._script_waits()
        if following.error is not None:
            raise following.error
        return following.state

    def for_callback(self, timeout_s: float | None) -> State:
        """Wait until a callback has told of the end, or no callback is to be expected any more."""
        following = self._following
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        done = self._until_any([following.heard, following.ended], timeout_s)
        if done and not following.heard.done() and following.run_id:
            # A stream that is lost says nothing about the end: the callback may be all that comes.
            limit_s = following.entry.timeout_s if following.is_out_of_sight else 0
            more_s = CALLBACK_GRACE_S + limit_s
            self._until_any([following.heard], min(more_s, deadline - time.monotonic()))
        if following.heard.done():
            self._script_waits()
            return following.state
        left_s = None if timeout_s is None else max(0.0, deadline - time.monotonic())
        return self.for_end(left_s, timeout_s)

    def _until_any(self, milestones: Sequence[Future[None]], timeout_s: float | None) -> bool:
        if not any(milestone.done() for milestone in milestones):
            self._following.check_process()
        try:
            return bool(futures.wait(milestones, timeout_s, futures.FIRST_COMPLETED).done)
        except KeyboardInterrupt:
            self._following.request_interrupt("interrupted")
            futures.wait([self._following.ended], CONFIRM_S)
            raise KeyboardInterrupt(
                f"run {self._following.run_id}: {self._following.state}"
            ) from None

    async def in_asyncio(self) -> None:
        """Wait in asyncio's running loop until the run has ended."""
        ended = asyncio.wrap_future(self._following.ended)
        with self._interrupt() as interrupted:
            try:
                while not ended.done():
                    # A short tick: an interrupt does not wake a selector that is idle.
                    await asyncio.wait([ended], timeout=TICK_S)
            except asyncio.CancelledError:
                if not interrupted:
                    raise  # the run goes on: its user alone has stopped waiting
                self._following.request_interrupt("interrupted")
                await asyncio.wait([ended], timeout=CONFIRM_S)

    async def in_another_loop(self) -> None:
        """Wait in the running loop, trio's for one, until the run has ended."""
        ended = self._following.ended
        with self._interrupt() as interrupted:
            try:
                while not ended.done():  # noqa: ASYNC110 - set on another loop's thread
                    await anyio.sleep(TICK_S)
            except (KeyboardInterrupt, anyio.get_cancelled_exc_class()):
                if interrupted:
                    self._following.request_interrupt("interrupted")
                    with anyio.move_on_after(CONFIRM_S, shield=True):
                        while not ended.done():  # noqa: ASYNC110
                            await anyio.sleep(TICK_S)
                raise

    @contextmanager
    def _interrupt(self) -> Iterator[list[bool]]:
        """Yield a list that gets an item at an interrupt: a cancellation does not say its cause."""
        if not self._following.ended.done():
            self._following.check_process()
        interrupted: list[bool] = []

        def note() -> bool:
            interrupted.append(True)
            return True

        with noted_interrupts(note):
            yield interrupted
