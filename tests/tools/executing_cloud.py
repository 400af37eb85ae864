"""A cloud without extensions that really runs cells of Python, and gives keys of its storage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lyceum_magic.client.storage import StorageAccess
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Event, Finished, Output
from lyceum_magic.protocol.states import State
from lyceum_magic.testing import PlayedServer, Reply, Request, _stream, answer

from .storage import s3_bucket


class ExecutingCloud(PlayedServer):
    """A cloud whose runs are processes of this machine; each begins when it is first followed.

    Attributes:
        access: the keys of the storage, as it gives them.
        expires_at: of the keys; a text in ISO 8601.
    """

    def __init__(self, access: StorageAccess) -> None:
        super().__init__()
        self.access = access
        self.expires_at: str | None = None
        self._programs: dict[str, str] = {}
        self._processes: list[asyncio.subprocess.Process] = []
        self._ends: dict[str, asyncio.Task[list[Event]]] = {}

    @property
    def programs(self) -> list[str]:
        """The code of all runs, as it came."""
        return [start["code"] for start in self.starts]

    def reply_to(self, request: Request) -> Reply:
        if request.path == paths.STORAGE_CREDENTIALS:
            return answer(self._credentials())
        for run_id in self._programs:
            if request.path == self._stream_path(run_id):
                return self._run(run_id)
        before = set(self._runs)
        reply = super().reply_to(request)
        for run_id in set(self._runs) - before:
            self._programs[run_id] = request.json["code"]
        return reply

    def end_all(self) -> None:
        """Kill the processes of all runs."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def _run(self, run_id: str) -> Reply:
        async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
            if run_id not in self._ends:
                self._ends[run_id] = asyncio.create_task(self._execute(run_id))
            self._runs[run_id] = await self._ends[run_id]
            await _stream(self._runs[run_id])(request, writer)

        return reply

    async def _execute(self, run_id: str) -> list[Event]:
        """Run a program in a folder and an environment of its own."""
        with tempfile.TemporaryDirectory(prefix="lyceum-run-") as folder:
            file = Path(folder, "cell.py")
            file.write_text(self._programs[run_id], "utf-8")  # noqa: ASYNC240 - a small file
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(file),
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": folder, "PYTHONUNBUFFERED": "1"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            self._processes.append(process)
            stdout, stderr = await process.communicate()
        state = State.FAILED if process.returncode else State.COMPLETED
        return [
            Output(stdout.decode(), "stdout"),
            Output(stderr.decode(), "stderr"),
            Finished(state, process.returncode),
        ]

    def _credentials(self) -> dict[str, Any]:
        access = self.access
        return {
            "access_key": access.access_key,
            "secret_key": access.secret_key.reveal(),
            "session_token": None,
            "endpoint": access.endpoint,
            "bucket_name": access.bucket,
            "region": access.region,
            "expires_at": self.expires_at,
        }


@contextmanager
def executing_cloud(folder: Path) -> Iterator[ExecutingCloud]:
    """Serve a cloud on a thread of its own, with its storage below a folder."""
    with s3_bucket(folder / "bucket") as access:
        cloud = ExecutingCloud(access)
        with cloud.listening_in_thread():
            yield cloud
