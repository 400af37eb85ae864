"""The life of one server process: uvicorn's server around the application and its state folder."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from .app import create_app
from .connections import Connection
from .peers import BATCH
from .settings import ServerSettings
from .state_folder import Residence
from .tasks import log_failure

#: Seconds that requests under way may still take once the server is told to end.
_SHUTDOWN_S = 1

#: Seconds between two checks of the server's folder.
_LOOK_EVERY_S = 1.0


def run(
    listener: socket.socket,
    settings: ServerSettings,
    on_ready: Callable[[], None],
    residence: Residence,
) -> None:
    """Serve on a listening socket until the server is told to end.

    Args:
        on_ready: Called once, when requests are accepted.
        residence: The server's place in its state folder, to be looked after.
    """

    def end_server() -> None:
        server.should_exit = True

    app = create_app(settings, end_server=end_server)
    server = _Server(app, residence, on_ready, settings.idle_exit_s)
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which opens and closes the application's parts itself.

    uvicorn would turn what a part raises into a traceback in the log.
    """

    def __init__(
        self,
        app: FastAPI,
        residence: Residence,
        on_ready: Callable[[], None],
        idle_exit_s: float | None,
    ) -> None:
        super().__init__(_config(app))
        self._app = app
        self._residence = residence
        self._on_ready = on_ready
        self._idle_exit_s = idle_exit_s
        self._parts = contextlib.AsyncExitStack()
        self._watches: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._parts.enter_async_context(self._app.router.lifespan_context(self._app))
        try:
            await super().startup(sockets)
        except BaseException:
            await self._parts.aclose()
            raise
        if self.started:
            self._on_ready()
            self._watches.append(asyncio.create_task(self._look_after_folder()))
            if self._idle_exit_s is not None:
                self._watches.append(asyncio.create_task(self._end_when_idle(self._idle_exit_s)))
            for watch in self._watches:
                watch.add_done_callback(log_failure)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Before the port is free: another program may take it at once.
        self._residence.leave()
        # Streams end by themselves then; they would keep the server waiting otherwise.
        self._app.state.closing.set()
        await super().shutdown(sockets)
        await self._parts.aclose()

    async def _look_after_folder(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if not self._residence.keep():
                break
        self._app.state.is_homeless = True
        if not self._residence.has_folder:
            # Without the folder no later server finds the runs, or knows their time limits.
            await self._app.state.service.abort_all()
        self.should_exit = True

    async def _end_when_idle(self, idle_s: float) -> None:
        await self._app.state.service.idle(idle_s)
        self.should_exit = True


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",  # see `_Server`
        # Paths hold the secrets of streams, so nothing logs them.
        access_log=False,
        log_config=None,
        server_header=False,
        # A user thinks between two cells.
        timeout_keep_alive=60,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        # asyncio takes this many connections at a time: more than a batch, which ends by saying
        # that no connection waits.
        backlog=2 * BATCH,
    )
