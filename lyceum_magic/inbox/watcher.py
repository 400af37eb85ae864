"""The inbox on the workspace's loop thread: addresses out, callbacks of this process in.

Nothing is polled: the receiver of a callback sends an empty datagram to this process's port.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from ..exceptions import OptionError
from . import jupyter_servers
from .loopback import PATH, LoopbackReceiver
from .store import Arrival, InboxStore

logger = logging.getLogger(__name__)

#: The pause before a store that could not be read is read again.
AGAIN_S = 1.0
#: The pause between two reads: any program of this machine can poke, at any rate.
PAUSE_S = 0.05


class InboxWatcher:
    """The reader of the callbacks that arrive for this process.

    Args:
        folder: the folder of the store.
        process: see `Address`.
        deliver: called with every new arrival in a task of its own, in the order of arrival.
    """

    def __init__(
        self, folder: Path, process: str, deliver: Callable[[Arrival], Awaitable[None]]
    ) -> None:
        self._folder = folder
        self._process = process
        self._deliver = deliver
        self._inbox: InboxStore
        self._loopback: LoopbackReceiver
        self._poked = asyncio.Event()
        self._port = 0
        self._seen = 0
        self._reading = asyncio.Lock()  # of what has come up to `_seen`
        self._is_receiving = asyncio.Lock()
        self._tasks: anyio.abc.TaskGroup

    async def live(self, *, task_status: anyio.abc.TaskStatus[InboxWatcher]) -> None:
        """Deliver what arrives, until cancelled."""
        self._inbox = await anyio.to_thread.run_sync(InboxStore, self._folder)
        self._loopback = LoopbackReceiver(self._inbox)
        await anyio.to_thread.run_sync(self._inbox.prune)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Pokes(self._poked), local_addr=("127.0.0.1", 0)
        )
        self._port = transport.get_extra_info("sockname")[1]
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started(self)
                while True:
                    await self._poked.wait()
                    self._poked.clear()
                    await self._look()
                    await anyio.sleep(PAUSE_S)
        finally:
            transport.close()
            with anyio.CancelScope(shield=True), contextlib.suppress(OSError, sqlite3.Error):
                await anyio.to_thread.run_sync(self._inbox.retire, self._process)

    async def _look(self) -> None:
        def new() -> list[Arrival]:
            return self._inbox.arrivals(self._process, after=self._seen)

        for attempt in itertools.count():  # there may be no other poke
            try:
                async with self._reading:
                    arrivals = await anyio.to_thread.run_sync(new)
                    if arrivals:
                        self._seen = arrivals[-1].number
                break
            except (OSError, sqlite3.Error) as exc:
                if attempt == 0:
                    logger.warning("callbacks that came in cannot be read now: %s", exc)
                await anyio.sleep(AGAIN_S)
        self._hand_on(arrivals)

    def _hand_on(self, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            # A task each: one may wait long for a server that does not answer.
            self._tasks.start_soon(self._deliver_one, arrival)

    async def _deliver_one(self, arrival: Arrival) -> None:
        try:
            await self._deliver(arrival)
        except Exception:  # the top of a task: the others go on
            logger.exception("what to do about a callback failed")

    async def local_url(self) -> str:
        """Return the part of an address before its secret, for senders on this machine."""
        url = await anyio.to_thread.run_sync(jupyter_servers.url_of_mine, self._folder)
        if url is not None:
            return url
        async with self._is_receiving:
            if not self._loopback.port:
                await self._tasks.start(self._loopback.serve)
        return self._loopback.url

    async def new_address(self, base: str | None, tag: str | None) -> str:
        """Return a new address that cannot be guessed.

        Args:
            base: the URL at which senders reach this user's Jupyter server; None for senders on
                this machine.
            tag: the tag of the run that it is for; None for any run.

        Raises:
            OptionError: no Jupyter server receives callbacks at the base.
        """
        if base is None:
            url = await self.local_url()
        elif await anyio.to_thread.run_sync(jupyter_servers.is_any_receiving, self._folder):
            url = base.rstrip("/") + PATH
        else:
            raise OptionError(
                "callback_base_url is where others reach this Jupyter, and no Jupyter server of "
                "yours here receives callbacks: install lyceum-magic where Jupyter itself is "
                "installed, and restart it."
            )
        secret = secrets.token_urlsafe(32)

        def register() -> None:
            self._inbox.register(secret, process=self._process, tag=tag, poke_port=self._port)

        await anyio.to_thread.run_sync(register)
        return url + secret

    async def adopt(self, tag: str) -> bool:
        """Take over the callbacks of a run that another process started.

        Those that have come already are delivered too. False if the run has no address.
        """

        def adopt() -> bool:
            return self._inbox.adopt(tag, process=self._process, poke_port=self._port)

        async with self._reading:
            if not await anyio.to_thread.run_sync(adopt):
                return False
            arrivals = await anyio.to_thread.run_sync(self._inbox.arrivals_of_run, tag)
            self._hand_on([arrival for arrival in arrivals if arrival.number <= self._seen])
        self._poked.set()  # the others are new here
        return True


class _Pokes(asyncio.DatagramProtocol):
    """The port at which receivers poke this process."""

    def __init__(self, poked: asyncio.Event) -> None:
        self._poked = poked

    def datagram_received(self, data: bytes, address: object) -> None:
        self._poked.set()
