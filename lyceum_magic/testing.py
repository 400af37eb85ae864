r"""Doubles for users' own tests: a Lyceum that plays the events a test gives it, and a store.

Everything stays on this machine: the played server listens on loopback, and runs no code.

    import lyceum_magic
    from lyceum_magic import testing

    def test_the_loss_is_reported():
        with testing.played_server([testing.Output("loss 0.1\n")]) as server:
            run = lyceum_magic.submit("import train; train.main()", machine="gpu.a100")
            assert run.result().text == "loss 0.1\n"
        assert server.starts[0]["execution_type"] == "gpu.a100"
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from .protocol import paths
from .protocol.events import Event, Finished, Output, Progress, encode
from .protocol.states import State
from .runs import workspace as _workspace
from .runs.once import Once
from .server.stores.memory import MemoryStore

__all__ = [
    "Finished",
    "MemoryStore",
    "Output",
    "PlayedServer",
    "Progress",
    "Reply",
    "Request",
    "ScriptedServer",
    "State",
    "answer",
    "played_server",
]

#: Maximum seconds until the thread of a server listens.
_START_S = 60.0


@dataclass(frozen=True)
class Request:
    """An HTTP request as it arrived. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


#: Coroutine function that writes the raw bytes of one answer.
Reply = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class HungUp(Exception):
    """Raised by a reply that has closed the connection itself."""


class ScriptedServer:
    """An HTTP server that answers each route as it is told, byte for byte.

    Attributes:
        base_url: its origin, such as `http://127.0.0.1:40123`.
        requests: every complete request, in the order of arrival.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[Request] = []
        self._routes: dict[tuple[str, str], list[Reply]] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Set the replies of a route. Each is used once, and the last one from then on."""
        self._routes[method, path] = list(replies)

    def asked(self, method: str, path: str) -> list[Request]:
        """Return the requests that came for one route."""
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    def reply_to(self, request: Request) -> Reply:
        """Choose the reply; 404, as FastAPI words it, for a route without one."""
        replies = self._routes.get((request.method, request.path))
        if replies is None:
            return answer({"detail": "Not Found"}, status=404)
        return replies.pop(0) if len(replies) > 1 else replies[0]

    def hang_up_on_all(self) -> None:
        """Break every open connection."""
        for writer in self._writers:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen on a free port of loopback, in the running event loop, during the block."""
        listener = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            listener.close()
            self.hang_up_on_all()
            await listener.wait_closed()

    @contextmanager
    def listening_in_thread(self) -> Iterator[None]:
        """Listen during the block, in an event loop on a thread of its own."""
        ready, leave = threading.Event(), asyncio.Event()
        loops: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            async with self.listening():
                loops.append(asyncio.get_running_loop())
                ready.set()
                await leave.wait()

        thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        thread.start()
        if not ready.wait(_START_S):
            raise RuntimeError("The server of the test could not listen on 127.0.0.1.")
        try:
            yield
        finally:
            loops[0].call_soon_threadsafe(leave.set)
            thread.join()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                await self.reply_to(request)(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, HungUp):
            pass  # cancelled at the end: streams of Python 3.11 report that as a failure
        finally:
            self._writers.discard(writer)
            writer.close()


class PlayedServer(ScriptedServer):
    """A Lyceum on which every run says what the test has decided, and ends.

    Attributes:
        key: the API key that it accepts.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        super().__init__()
        self.key = f"lk_{secrets.token_hex(24)}"
        self._secret = secrets.token_hex(8)
        self._events: list[Event] = []
        self._runs: dict[str, list[Event]] = {}
        self.play(*events)

    def play(self, *events: Event) -> None:
        """Set the events of the runs that start from now on.

        Without a `Finished` at their end the run completes with return code 0.
        """
        ended = bool(events) and isinstance(events[-1], Finished)
        self._events = [*events] if ended else [*events, Finished(State.COMPLETED, 0)]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make another process, such as a kernel, use this server."""
        return {"LYCEUM_API_KEY": self.key, "LYCEUM_BASE_URL": self.base_url}

    @property
    def starts(self) -> list[dict[str, Any]]:
        """The JSON bodies of the runs that were started, oldest first."""
        kinds = set(paths.STARTS.values())
        return [r.json for r in self.requests if r.method == "POST" and r.path in kinds]

    def reply_to(self, request: Request) -> Reply:
        if (request.method, request.path) in self._routes:
            return super().reply_to(request)
        for run_id, events in self._runs.items():
            if request.path == self._stream_path(run_id):
                return _stream(events)
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return answer({"detail": "Invalid API key"}, status=401)
        if request.method == "POST" and request.path in paths.STARTS.values():
            return self._start()
        if request.path == paths.AVAILABLE_HARDWARE:
            return answer({"available_hardware_profiles": []})
        for run_id in self._runs:
            if request.path in (paths.record(run_id), paths.abort(run_id), paths.stop(run_id)):
                return answer(self._record(run_id))
        return super().reply_to(request)

    def _start(self) -> Reply:
        run_id = str(uuid.uuid4())
        self._runs[run_id] = self._events
        url = f"{self.base_url}{self._stream_path(run_id)}"
        return answer({"execution_id": run_id, "status": "pending", "streaming_url": url})

    def _record(self, run_id: str) -> dict[str, object]:
        end = self._runs[run_id][-1]
        assert isinstance(end, Finished)
        return {
            "execution_id": run_id,
            "status": end.final_state.value,
            "return_code": end.return_code,
            "system_errors": [end.error] if end.error else [],
        }

    def _stream_path(self, run_id: str) -> str:
        return f"{paths.stream(run_id)}/{self._secret}"


@contextmanager
def played_server(events: Iterable[Event] = ()) -> Iterator[PlayedServer]:
    r"""Serve a played Lyceum, which is this process's account during the block.

    Inside the block `lyceum_magic.submit`, the magics and `lyceum_magic.Client` use the server:
    `LYCEUM_API_KEY` and `LYCEUM_BASE_URL` name it, and the journal of runs is a temporary one. The
    environment and the journal of before are back after the block.

    Args:
        events: what each run says, in this order; see `PlayedServer.play`, which changes it.

    Example:
        A run that fails:

            with played_server([Output("epoch 1\n"), Finished(State.FAILED, 1, "no GPU")]):
                with pytest.raises(lyceum_magic.RunFailed, match="no GPU"):
                    lyceum_magic.submit("train()").result()
    """
    server = PlayedServer(events)
    with (
        server.listening_in_thread(),
        tempfile.TemporaryDirectory(prefix="lyceum-testing-") as home,
        _own_workspace({**server.environment, "LYCEUM_MAGIC_HOME": home}),
    ):
        yield server


@contextmanager
def _own_workspace(variables: Mapping[str, str]) -> Iterator[None]:
    """Give the process other variables, and a workspace without anything of before."""
    made = _workspace.Workspace()
    workspaces: Once[int, _workspace.Workspace] = Once()
    workspaces.get(os.getpid(), lambda: made)
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch.object(_workspace, "_workspaces", workspaces),
        contextlib.closing(made),
    ):
        yield


def answer(
    content: object = b"", *, status: int = 200, kind: str = "application/json", **headers: str
) -> Reply:
    """Make a reply with a whole body.

    Args:
        content: bytes are sent as they are, anything else as JSON.
        kind: the `Content-Type`.
        headers: others; `retry_after="1"` becomes `retry-after: 1`.
    """
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)

    return reply


def _stream(events: Iterable[Event]) -> Reply:
    """Make an event stream; the id of an event is its number, and `Last-Event-ID` is honoured."""
    numbered = [(number, encode(event)) for number, event in enumerate(events, 1)]

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        last = int(request.headers.get("last-event-id", 0))
        text = "".join(f"id: {n}\ndata: {data}\n\n" for n, data in numbered if n > last)
        await answer(text.encode(), kind="text/event-stream; charset=utf-8")(request, writer)

    return reply


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, query, headers, body)
