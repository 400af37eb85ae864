"""Cells of a session, each in a process of its own, as they travel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lyceum_magic.outputs.decoding import Decoded, Display, OutputDecoder, Raised, SessionSaved
from lyceum_magic.protocol.events import Output
from lyceum_magic.submission.source import parse_cell
from lyceum_magic.submission.wrapping import wrap_cell

LIMIT_S = 120
MARK = "0123456789ab"


@dataclass(frozen=True)
class Ended:
    """The end of a cell, with what it printed and sent."""

    return_code: int
    stdout: str
    stderr: str
    items: list[Decoded] = field(default_factory=list)

    @property
    def session(self) -> SessionSaved:
        (found,) = (item for item in self.items if isinstance(item, SessionSaved))
        return found

    @property
    def raised(self) -> dict[str, Any]:
        (found,) = (item.error for item in self.items if isinstance(item, Raised))
        return found

    @property
    def results(self) -> list[str]:
        return [item.data["text/plain"] for item in self.items if isinstance(item, Display)]

    @property
    def lost(self) -> dict[str, str]:
        return dict(self.session.lost)


class Chain:
    """A session in a folder, as an embedded server would keep it."""

    def __init__(self, folder: Path, title: str = "a") -> None:
        self.folder = folder
        self.title = title
        self.head: dict[str, str] | None = None
        self.cell = 0
        folder.mkdir(parents=True, exist_ok=True)

    def program(self, code: str, **job: object) -> str:
        session = {
            "key": self.title,
            "title": self.title,
            "branch": "main",
            "cell": self.cell + 1,
            "id": f"{self.cell + 1:032x}",
            "parent": self.head,
        }
        limits = job.pop("limits", None)
        if limits is not None:
            session["limits"] = limits
        return wrap_cell(parse_cell(code).code, mark=MARK, session=session, **job)

    def environment(self, **variables: str) -> dict[str, str]:
        return {**os.environ, "LYCEUM_SESSION_FOLDER": str(self.folder), **variables}

    def run(self, code: str, *, variables: dict[str, str] | None = None, **job: object) -> Ended:
        """Run the next cell in a folder of its own, and move the head if it saved."""
        with tempfile.TemporaryDirectory() as work:
            script = Path(work) / "main.py"
            script.write_text(self.program(code, **job), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, str(script)],
                capture_output=True,
                encoding="utf-8",
                check=False,
                timeout=LIMIT_S,
                stdin=subprocess.DEVNULL,
                cwd=work,
                env=self.environment(**(variables or {})),
            )
        ended = decoded(done.returncode, done.stdout, done.stderr)
        saved = [item for item in ended.items if isinstance(item, SessionSaved)]
        if saved and saved[0].sha256:
            self.move_to(saved[0])
        return ended

    def move_to(self, saved: SessionSaved) -> None:
        self.head = {"id": saved.id, "sha256": saved.sha256}
        self.cell = saved.cell

    def value(self, expression: str) -> object:
        """Return the value of an expression in the next cell, which prints its repr."""
        ended = self.run(f"print(repr(({expression})))")
        assert ended.return_code == 0, ended.stderr
        return ended.stdout.strip()

    @property
    def manifest(self) -> dict[str, Any]:
        assert self.head is not None
        path = self.folder / "cells" / f"{self.head['id']}.json"
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found


def decoded(return_code: int, stdout: str, stderr: str) -> Ended:
    decoder = OutputDecoder(MARK)
    items = [
        *decoder.feed(Output(stdout, "stdout")),
        *decoder.feed(Output(stderr, "stderr")),
        *decoder.close(),
    ]
    texts = [item for item in items if isinstance(item, Output)]
    return Ended(
        return_code,
        "".join(item.text for item in texts if item.stream == "stdout"),
        "".join(item.text for item in texts if item.stream == "stderr"),
        items,
    )
