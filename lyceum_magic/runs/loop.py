"""The thread with the event loop of a process, and the ways into it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent import futures
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import anyio
from anyio import from_thread
from anyio.from_thread import BlockingPortal

from ..exceptions import LyceumError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two calls of `while_waiting` by `wait_for`.
TICK_S = 0.2

#: An identifier that no thread has.
_OTHER_THREAD = -1


def log_failure(task: Future[Any]) -> None:
    """Log the exception of a task that no caller waits for. Use it as the task's done callback."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("lyceum-magic failed in the background", exc_info=error)


class LoopThread:
    """A thread with an event loop, and the portal through which other threads call into it.

    Not anyio's `start_blocking_portal`: that is a generator, which the interpreter closes at its
    own end, and which then waits for the thread. A forked child has no such thread, and after the
    last atexit handler it runs no more. This one is a daemon that nothing waits for but `close`.

    Raises:
        LyceumError: no thread can be started any more, because Python is ending.
    """

    def __init__(self, name: str) -> None:
        ready: Future[BlockingPortal] = Future()

        async def live() -> None:
            async with BlockingPortal() as portal:
                ready.set_result(portal)
                await portal.sleep_until_stopped()

        def run() -> None:
            try:
                anyio.run(live, backend="asyncio")
            except BaseException as exc:
                if ready.done():
                    raise
                ready.set_exception(exc)

        self._thread = threading.Thread(target=run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:  # Python 3.12 and later, in an atexit handler
            raise LyceumError(
                f"Lyceum cannot be used now ({exc}): call it before the program's end."
            ) from None
        self.portal = ready.result()
        if self.portal._event_loop_thread_id == from_thread.get_ident():  # type: ignore[attr-defined]
            # gevent's "threads" are greenlets of one thread. anyio, which refuses calls from the
            # thread of its own loop, tells them apart only if it was imported after the patches
            # (with gunicorn's --preload, for one, it was not).
            self.portal._event_loop_thread_id = _OTHER_THREAD

    def ask(self, question: Callable[..., Awaitable[T]], *args: object) -> T:
        """Return the result of a coroutine function, called on the loop thread."""
        return self.portal.call(question, *args)

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Return the result of a plain function, called on the loop thread."""

        async def call() -> T:
            return function(*args)

        return self.portal.call(call)

    def wait_for(
        self, question: Callable[[], Awaitable[T]], *, while_waiting: Callable[[], object]
    ) -> T:
        """Return the result of a coroutine function; an interrupt cancels it.

        Args:
            while_waiting: called on this thread meanwhile, several times a second.
        """
        work = _Cancellable(question)
        try:
            answer = self.portal.start_task_soon(work.run)
            while not futures.wait([answer], TICK_S).done:
                while_waiting()
        except BaseException:
            self.portal.call(work.cancel)
            raise
        return answer.result()

    def close(self) -> None:
        """End the loop, once all its tasks have ended."""
        self.portal.call(self.portal.stop)
        self._thread.join()


class _Cancellable(Generic[T]):
    """A coroutine function that can be cancelled without a handle of its task.

    An interrupt may come after the task has begun, and before its handle is here.
    """

    def __init__(self, question: Callable[[], Awaitable[T]]) -> None:
        self._question = question
        self._scope: anyio.CancelScope | None = None
        self._is_cancelled = False

    async def run(self) -> T:
        self._ended = anyio.Event()
        try:
            with anyio.CancelScope() as self._scope:
                if not self._is_cancelled:
                    return await self._question()
            raise futures.CancelledError
        finally:
            self._ended.set()

    async def cancel(self) -> None:
        """Cancel it, and wait for its end if it has begun."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()
            await self._ended.wait()
