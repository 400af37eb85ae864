"""A server process with levers (`tests.faults.server`), and what is asked of it over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from lyceum_magic.protocol import paths

START_LIMIT_S = 60.0


class Server:
    """One state folder, and the server process that serves it now, if there is one.

    Its log is `server.log` beside the folder.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.log = folder.parent / "server.log"
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self.client = httpx.AsyncClient(trust_env=False, timeout=START_LIMIT_S)
        self._ready_fd = -1

    @property
    def pid(self) -> int:
        assert self._process is not None, "no server was started"
        return self._process.pid

    async def start(self, *options: str) -> None:
        """Start a process that must come to listen."""
        await self.spawn(*options)
        assert await self.listens(), self.log.read_text()

    async def spawn(self, *options: str) -> None:
        """Start a process."""
        read_end, write_end = os.pipe()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.faults.server", "--state-dir", str(self.folder),
                "--ready-fd", str(write_end), *self._options, *options,
                pass_fds=[write_end], stdout=log, stderr=log,
            )  # fmt: skip
        os.close(write_end)
        self._ready_fd = read_end

    async def listens(self) -> bool:
        """Return when the new process listens, or is gone: True if it came to listen."""
        # No thread: one that waits in a read would keep a test that is given up from its end.
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._ready_fd, "rb", 0)
        )
        with contextlib.closing(transport):
            # Ends with the process, which alone has the other end.
            said = await reader.read()
        if said != b"ready\n":
            return False
        facts = json.loads((self.folder / "server.json").read_text())
        self.client.base_url = facts["base_url"]
        self.client.headers["Authorization"] = f"Bearer {facts['api_key']}"
        return True

    async def ended(self) -> int:
        """Return the exit code when the process is gone."""
        assert self._process is not None, "no server was started"
        return await self._process.wait()

    def signal(self, number: int) -> None:
        assert self._process is not None, "no server was started"
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def close(self) -> None:
        await self.client.aclose()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def run(self, urls: Sequence[str], code: str = "completed") -> str:
        """Start a run; return its id.

        Raises:
            httpx.TransportError: the server died meanwhile.
        """
        body = {"code": code, "execution_type": "cpu", "user_callback_urls": list(urls)}
        reply = await self.client.post(paths.START_PYTHON, json=body)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["execution_id"])

    async def get(self, path: str) -> Any:
        reply = await self.client.get(path)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def state_of(self, run_id: str) -> str | None:
        """Return the state of a run; None if the server does not answer."""
        try:
            return str((await self.get(paths.record(run_id)))["status"])
        except httpx.TransportError:
            return None

    async def signing_secret(self) -> str:
        return str((await self.get(paths.SIGNING_SECRET))["secret"])

    async def errors(self) -> list[str]:
        """The reason why the sender cannot work, as delivery health says it."""
        return list((await self.get(paths.DELIVERY_HEALTH))["errors"])


@asynccontextmanager
async def server_on(folder: Path, *options: str) -> AsyncIterator[Server]:
    """A state folder whose last server is killed at the end of the block."""
    server = Server(folder, *options)
    try:
        yield server
    finally:
        await server.close()


class Load:
    """The share of a processor that a process has used since this was made."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._begun = time.monotonic()
        self._before_s = self._cpu_s()

    def share(self) -> float:
        return (self._cpu_s() - self._before_s) / (time.monotonic() - self._begun)

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
