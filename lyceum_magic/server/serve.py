"""The server process: takes the state folder and a port, serves until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import __version__
from ..disks import reason
from ..exceptions import EmbeddedServerError
from .descriptors import raise_limit
from .peers import BATCH, OwnUsersListener
from .settings import (
    DEFAULT_KEEP_BYTES,
    DEFAULT_KEEP_DAYS,
    DEFAULT_MAX_RUNNING,
    Profile,
    ServerSettings,
)
from .state_folder import (
    Residence,
    ServerFile,
    boot_id,
    lock_for_life,
    new_key,
    note_interpreter,
    prepare,
    read_server_file,
    write_server_file,
)

#: How long requests under way may take once the server is told to end.
_SHUTDOWN_S = 1

_PR_SET_DUMPABLE = 4

#: How often the server looks whether its folder is as it left it.
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class ServeOptions:
    """What the command line asks for; see `ServerSettings` for what is not explained here.

    Attributes:
        earlier: where an earlier version kept the state that `state_dir` takes over; None if it
            takes over none.
        port: where to listen; None means where the last server of this folder did, else anywhere.
        idle_exit_s: ends by itself after so long without a live run or a follower, unless a
            callback is due within as long.
    """

    state_dir: Path
    earlier: Path | None = None
    port: int | None = None
    profile: Profile = "local"
    max_running: int = DEFAULT_MAX_RUNNING
    index_url: str | None = field(default=None, repr=False)  # it may hold a password
    find_links: str | None = field(default=None, repr=False)
    memory_limit_bytes: int | None = None
    allow_privileged: bool = False
    keep_days: float = DEFAULT_KEEP_DAYS
    keep_bytes: int = DEFAULT_KEEP_BYTES
    idle_exit_s: float | None = None


def serve(options: ServeOptions, on_ready: Callable[[ServerFile], None]) -> None:
    """Serves until a signal, a shutdown request or idleness ends it.

    Args:
        on_ready: called once, when requests are accepted and `server.json` says so.

    Raises:
        AlreadyServed: another server holds the state folder.
        EmbeddedServerError: it cannot run here, or not like this.
    """
    if options.memory_limit_bytes is not None and sys.platform != "linux":
        raise EmbeddedServerError(
            "--memory-limit works on Linux alone, and this is another system: nothing here would "
            "hold a run to it. Serve without it."
        )
    raise_limit()
    prepare(options.state_dir)
    _close_to_runs()
    with _explained(options.state_dir), lock_for_life(options.state_dir) as lock:
        if options.earlier is not None:
            # Imported late, as in `_serve_on`.
            from .moving import move_in, remove_links

            move_in(options.earlier, options.state_dir)
            remove_links(options.earlier)
        last = read_server_file(options.state_dir)
        kind = OwnUsersListener if options.profile == "local" else socket.socket
        with contextlib.closing(_listen(kind, options.port, last)) as listener:
            port = listener.getsockname()[1]
            # A key lives until a server ends in order: whoever has come by it has nothing then.
            # After a kill it goes on, as the runs do.
            keeps_key = lock.last_end == "cut short" or (
                lock.last_end == "unknown" and _has_live_runs(options.state_dir)
            )
            content = ServerFile(
                base_url=f"http://127.0.0.1:{port}",
                api_key=last.api_key if last is not None and keeps_key else new_key(),
                pid=os.getpid(),
                boot_id=boot_id(),
                version=__version__,
            )
            settings = ServerSettings(
                state_dir=options.state_dir,
                port=port,
                api_key=content.api_key,
                boot_id=content.boot_id,
                profile=options.profile,
                max_running=options.max_running,
                index_url=options.index_url,
                find_links=options.find_links,
                memory_limit_bytes=options.memory_limit_bytes,
                allow_privileged=options.allow_privileged,
                keep_days=options.keep_days,
                keep_bytes=options.keep_bytes,
            )

            def ready() -> None:
                note_interpreter(options.state_dir)
                write_server_file(options.state_dir, content)
                lock.show_address(content.base_url)
                on_ready(content)

            _serve_on(listener, settings, options.idle_exit_s, ready, Residence(lock, content))


def _has_live_runs(folder: Path) -> bool:
    from .moving import has_live_runs  # imported late, as in `_serve_on`

    return has_live_runs(folder)


def _close_to_runs() -> None:
    """Keeps runs, which are of the same user, from reading this process in `/proc`, or tracing it.

    Programs started from here are open again from their first instruction on. Of root, and of
    systems other than Linux, nothing is kept.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Says what the disk of a folder lacks where the block cannot write to it."""
    try:
        yield
    except OSError as exc:
        raise EmbeddedServerError(
            f"The server cannot use {exc.filename or folder} ({reason(exc, folder)}); look after "
            "its disk, owner and mode, then start it again."
        ) from exc


def _listen(kind: type[socket.socket], port: int | None, last: ServerFile | None) -> socket.socket:
    if port is not None:
        try:
            return _bind(kind, port)
        except OSError as exc:
            raise EmbeddedServerError(
                f"Port {port} cannot be used ({exc.strerror}); choose another with --port."
            ) from exc
    if last is not None:
        with contextlib.suppress(OSError):  # somebody else has it by now
            return _bind(kind, last.port)
    return _bind(kind, 0)


def _bind(kind: type[socket.socket], port: int) -> socket.socket:
    # The protocol is named because asyncio switches Nagle's algorithm off only where it is: with
    # it on, every reply of two writes waits 40 ms for the client's delayed acknowledgement.
    listener = kind(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Connections of the last server that linger do not keep its port from the next one.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        # At once: until then another user, who sets the same option, could still take the port.
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _serve_on(
    listener: socket.socket,
    settings: ServerSettings,
    idle_exit_s: float | None,
    on_ready: Callable[[], None],
    residence: Residence,
) -> None:
    # Imported late: a second server on the folder is refused before this costs it half a second.
    import uvicorn

    from .app import create_app
    from .connections import Connection
    from .tasks import log_failure

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Not by uvicorn's protocol, which turns what a part raises into a traceback in the log.
            self.parts = contextlib.AsyncExitStack()
            await self.parts.enter_async_context(app.router.lifespan_context(app))
            try:
                await super().startup(sockets)
            except BaseException:
                await self.parts.aclose()
                raise
            if self.started:
                on_ready()
                self.looking = asyncio.create_task(self.look_after_folder())
                self.looking.add_done_callback(log_failure)
                if idle_exit_s is not None:
                    self.idle_exit = asyncio.create_task(self.end_when_idle(idle_exit_s))
                    self.idle_exit.add_done_callback(log_failure)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Before the port is let go of: the next moment it may be somebody else's.
            residence.leave()
            # Streams end by themselves then; they would keep the server waiting otherwise.
            app.state.closing.set()
            await super().shutdown(sockets)
            await self.parts.aclose()

        async def look_after_folder(self) -> None:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                if not residence.keep():
                    break
            app.state.is_homeless = True
            if not residence.has_folder:
                # Nobody could find them again: not even their time limits are known any more.
                await app.state.service.abort_all()
            self.should_exit = True

        async def end_when_idle(self, idle_s: float) -> None:
            await app.state.service.idle(idle_s)
            self.should_exit = True

    def end_server() -> None:
        server.should_exit = True

    app = create_app(settings, end_server=end_server)
    server = Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",  # see `Server.startup`
            # Paths hold the secrets of streams, so nothing logs them.
            access_log=False,
            log_config=None,
            server_header=False,
            # Between two cells of somebody who thinks.
            timeout_keep_alive=60,
            timeout_graceful_shutdown=_SHUTDOWN_S,
            # How many connections asyncio takes at a time: more than a batch, which ends by saying
            # that none waits.
            backlog=2 * BATCH,
        )
    )
    server.run(sockets=[listener])
