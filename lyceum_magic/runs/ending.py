"""The requests to end one run: an abort, and the interrupt of a session's cell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from ..client.api import Client
from ..exceptions import LyceumError
from ..protocol.sessions import INTERRUPT_S

#: Seconds to wait for the end of an aborted run before the abort is sent again.
CONFIRM_S = 10.0


class Ending:
    """The requests to end one run, on the loop thread.

    Args:
        run_id: returns its id, which is empty until `known` is reached.
        known, ended: as in `Following`.
        say: shows a sentence to those who follow the run.

    Attributes:
        why: the reason of the user's request; empty as long as there is none.
        interrupted: reached when the cell of a session has taken an interrupt.
        is_session: whether the run is a cell of a session, which an interrupt does not kill.
    """

    def __init__(
        self,
        client: Client,
        run_id: Callable[[], str],
        known: Future[None],
        ended: Future[None],
        say: Callable[[str], Awaitable[None]],
    ) -> None:
        self.why = ""
        self.interrupted: Future[None] = Future()
        self.is_session = False
        self._client = client
        self._run_id = run_id
        self._known = known
        self._ended = ended
        self._say = say
        self._is_interrupting = self._is_aborting = False

    async def abort(self, why: str) -> None:
        """Abort the run as soon as its id is known, again and again until it has ended."""
        if self._is_aborting:
            return
        self._is_aborting = True
        self.why = why
        await asyncio.wait([asyncio.wrap_future(self._known)])
        ended = asyncio.wrap_future(self._ended)
        while not self._ended.done():
            try:
                await self._client.abort(self._run_id())
            except LyceumError as exc:
                await self._say(f"the abort failed: {exc}")
            await asyncio.wait([ended], timeout=CONFIRM_S)

    async def interrupt(self, why: str) -> None:
        """Interrupt the cell of a session; abort a run that takes no interrupt.

        A second interrupt aborts: the cell has had its chance.
        """
        if not self.is_session or self._is_interrupting:
            await self.abort(why)
            return
        self._is_interrupting = True
        self.why = why
        await asyncio.wait([asyncio.wrap_future(self._known)])
        effects = [asyncio.wrap_future(one) for one in (self.interrupted, self._ended)]
        # The server may answer only when the run has ended.
        stopping = asyncio.ensure_future(self._client.stop(self._run_id()))
        await asyncio.wait(effects, timeout=INTERRUPT_S, return_when=asyncio.FIRST_COMPLETED)
        if not any(effect.done() for effect in effects):
            await self.abort(why)
        with contextlib.suppress(LyceumError):  # the effect counts, and the abort says its errors
            await stopping
