"""A cell as it travels, with a mark, in an interpreter here: what it prints and sends home."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyceum_magic.outputs.decoding import Decoded, Display, OutputDecoder, Raised
from lyceum_magic.protocol.events import Output
from lyceum_magic.submission.source import code_of
from lyceum_magic.submission.wrapping import wrap_cell

LIMIT_S = 60
MARK = "0123456789ab"


@dataclass(frozen=True)
class Ended:
    """The end of a cell.

    Attributes:
        stdout, stderr: text, without frames.
        readable_stderr: all of it, for a reader that does not know frames.
    """

    return_code: int
    stdout: str
    stderr: str
    readable_stderr: str
    items: list[Decoded]

    @property
    def raised(self) -> dict[str, Any]:
        """The one description that came."""
        (found,) = (item.error for item in self.items if isinstance(item, Raised))
        return found

    @property
    def has_raised(self) -> bool:
        return any(isinstance(item, Raised) for item in self.items)

    @property
    def results(self) -> list[str]:
        return [item.data["text/plain"] for item in self.items if isinstance(item, Display)]


def run_marked(cell: str, folder: Path, python: str = sys.executable, **job: object) -> Ended:
    """Run a cell, its `%` and `!` lines made Python first."""
    script = folder / "cell.py"
    script.write_text(wrap_cell(code_of(cell), mark=MARK, **job), encoding="utf-8")
    done = subprocess.run(
        [python, "-W", "error", str(script)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        cwd=folder,
    )
    decoder = OutputDecoder(MARK)
    items = [
        *decoder.feed(Output(done.stdout, "stdout")),
        *decoder.feed(Output(done.stderr, "stderr")),
        *decoder.close(),
    ]
    texts = [item for item in items if isinstance(item, Output)]
    return Ended(
        done.returncode,
        "".join(item.text for item in texts if item.stream == "stdout"),
        "".join(item.text for item in texts if item.stream == "stderr"),
        done.stderr,
        items,
    )
