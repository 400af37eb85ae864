"""`lyceum-magic serve` as a process of its own, and a client for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from lyceum_magic.protocol import paths

LIMIT_S = 30

#: The text that a Python executes to be `lyceum-magic`.
CLI = ("-m", "lyceum_magic.cli")


class ServedProcess:
    """A server process that listens.

    Args:
        options: of `serve`.
        through: a command that executes the one after it in a way of its own.
        python: the interpreter that serves.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        through: Sequence[str] = (),
        python: str = sys.executable,
        program: Sequence[str] = CLI,
    ) -> None:
        self.folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        read_end, write_end = os.pipe()
        with (folder.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *through,
                    *command(
                        "--state-dir",
                        str(folder),
                        "--ready-fd",
                        str(write_end),
                        *options,
                        python=python,
                        program=program,
                    ),
                ],
                pass_fds=[write_end],
                stdout=log,
                stderr=log,
            )
        os.close(write_end)
        with os.fdopen(read_end, "rb") as ready:
            # Ends at once if the process does, since no other process has the other end.
            said = ready.read()
        if said != b"ready\n":
            self.process.wait(LIMIT_S)
            raise AssertionError((folder.parent / "server.log").read_text())
        facts = self.facts()
        self.base_url: str = facts["base_url"]
        self.client = httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {facts['api_key']}"},
            trust_env=False,
            timeout=LIMIT_S,
        )

    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "server.json").read_text()))

    def start(self, code: str, **fields: Any) -> dict[str, Any]:
        body = {"code": code, "execution_type": "cpu", **fields}
        reply = self.client.post(paths.START_PYTHON, json=body)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


def command(
    *arguments: str, python: str = sys.executable, program: Sequence[str] = CLI
) -> list[str]:
    return [python, *program, "serve", *arguments]


@contextmanager
def served(
    folder: Path,
    *options: str,
    through: Sequence[str] = (),
    python: str = sys.executable,
    program: Sequence[str] = CLI,
) -> Iterator[ServedProcess]:
    """Serve during the block; what is left of the server is killed."""
    server = ServedProcess(folder, *options, through=through, python=python, program=program)
    try:
        yield server
    finally:
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(LIMIT_S)
