"""The server on a real loopback socket, in the test's own event loop, with a runner to play."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from lyceum_magic.config import Secret
from lyceum_magic.protocol import paths
from lyceum_magic.server.app import create_app
from lyceum_magic.server.machines import RUNNERS
from lyceum_magic.server.outbox.schedule import Schedule
from lyceum_magic.server.runners.base import Runner
from lyceum_magic.server.settings import Profile, ServerSettings
from lyceum_magic.server.stores.base import WholeStore
from lyceum_magic.server.stores.memory import MemoryStore
from tests.tools.waiting import CLIENT_LIMIT_S

from .fake_runner import FakeRunner

KEY = "lk_test"


@dataclass
class Served:
    """A server that listens, and a client with its key."""

    app: FastAPI
    client: httpx.AsyncClient
    base_url: str
    runner: Any
    end_calls: list[None]

    async def start(self, code: str = "print(1)", **fields: Any) -> dict[str, Any]:
        body = {"code": code, "execution_type": "cpu", **fields}
        reply = await self.client.post(paths.START_PYTHON, json=body)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals stay with pytest

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    runner: Runner | None = None,
    store: WholeStore | None = None,
    max_running: int = 8,
    profile: Profile = "local",
    schedule: Schedule | None = None,
) -> AsyncIterator[Served]:
    """Serve for as long as the block lasts."""
    runner = runner or FakeRunner()
    end_calls: list[None] = []
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        settings = ServerSettings(
            folder,
            listener.getsockname()[1],
            Secret(KEY),
            profile=profile,
            max_running=max_running,
        )
        app = create_app(
            settings,
            store=store or MemoryStore(),
            runners=dict.fromkeys(RUNNERS, runner),
            schedule=schedule,
            end_server=lambda: end_calls.append(None),
        )
        config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="on", access_log=False, log_config=None
        )
        server = _Server(config)
        serve = asyncio.create_task(server.serve(sockets=[listener]))
        await server.listens.wait()
        base_url = f"http://127.0.0.1:{settings.port}"
        try:
            async with httpx.AsyncClient(
                base_url=base_url,
                headers={"Authorization": f"Bearer {KEY}"},
                trust_env=False,
                timeout=CLIENT_LIMIT_S,
            ) as client:
                yield Served(app, client, base_url, runner, end_calls)
        finally:
            app.state.closing.set()
            server.should_exit = True
            await serve


@dataclass(frozen=True)
class Received:
    """One event from a stream. `id` is None if the event had none."""

    id: str | None
    data: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.data["output"]["content"]) if "output" in self.data else ""

    @property
    def result(self) -> dict[str, Any] | None:
        if "jobFinished" not in self.data:
            return None
        return dict(self.data["jobFinished"]["job"]["result"])


def parse(stream: bytes) -> list[Received]:
    """Return the events of a whole stream without its comments."""
    events = []
    for block in stream.decode("ascii").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")
        )
        if "data" in fields:
            events.append(Received(fields.get("id"), json.loads(fields["data"])))
    return events


async def read_stream(client: httpx.AsyncClient, url: str, **headers: str) -> list[Received]:
    """Return all events of a stream, up to its end."""
    reply = await client.post(url, headers=headers, timeout=30)
    assert reply.status_code == 200, reply.text
    return parse(reply.content)
