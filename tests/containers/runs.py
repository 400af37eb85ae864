"""A run on a served server, as a client sees it; and the engine beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Event, Output, Progress, decode
from tests.tools.embedded import run_folder
from tests.tools.served_process import ServedProcess
from tests.tools.waiting import eventually

#: Wait until the test lets go, or a signal comes; busybox's shell answers signals in between.
HOLD = "while [ ! -e /mnt/s3/go ]; do sleep 0.05; done"

FINAL = {"completed", "failed", "system_failure", "aborted", "cancelled"}


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class ServedRun:
    """One run on a served server."""

    def __init__(self, server: ServedProcess, started: dict[str, Any]) -> None:
        self.server = server
        self.id: str = started["execution_id"]
        self._path = started["streaming_url"].removeprefix(server.base_url)

    @property
    def folder(self) -> Path:
        return run_folder(self.server.folder, self.id)

    def on(self, server: ServedProcess) -> Self:
        """The same run on the next server."""
        return type(self)(server, {"execution_id": self.id, "streaming_url": self._path})

    def record(self) -> dict[str, Any]:
        return dict(self.server.client.get(paths.record(self.id)).json())

    def ended(self) -> dict[str, Any]:
        """The record, once the run is over."""

        def record() -> dict[str, Any] | None:
            found = self.record()
            return found if found["status"] in FINAL else None

        return eventually(record, f"run {self.id} ends")

    def events(self) -> Iterator[Event]:
        with self.server.client.stream("POST", self._path) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: "):
                    yield from decode(line.removeprefix("data: "))

    def said(self, text: str) -> None:
        """Return when the run has put out this text."""
        heard = ""
        for event in self.events():
            if isinstance(event, Output):
                heard += event.text
                if text in heard:
                    return
        raise AssertionError(f"it ended without {text!r}: {heard!r}, {self.record()}")

    def is_at(self, phrase: str) -> None:
        """Return when the run has been at this step."""
        for event in self.events():
            if isinstance(event, Progress) and phrase in event.detail:
                return
        raise AssertionError(f"it never was at {phrase!r}: {self.record()}")

    def abort(self) -> dict[str, Any]:
        return dict(self.server.client.post(paths.abort(self.id)).json())

    def let_go(self) -> None:
        """End a program that waits with HOLD."""
        (bucket(self.server) / "go").touch()

    def stop(self) -> dict[str, Any]:
        return dict(self.server.client.post(paths.stop(self.id)).json())


class ImageRun(ServedRun):
    """One image run on a served server."""

    @property
    def container(self) -> str:
        return f"lyceum-{self.id}"


def start_image(server: ServedProcess, image: str, *command: str, **fields: Any) -> ImageRun:
    """Start an image; `fields` are those of `StartImage`."""
    body: dict[str, Any] = {"docker_image_ref": image, "execution_type": "cpu", **fields}
    if command:
        body["docker_run_cmd"] = list(command)
    reply = server.client.post(paths.START_IMAGE, json=body)
    assert reply.status_code == 200, reply.text
    return ImageRun(server, reply.json())


def error_of(record: dict[str, Any]) -> str:
    return str(record["system_errors"][0])


def bucket(server: ServedProcess) -> Path:
    return server.folder / "storage" / "local"
