"""Every Python of this machine that a cell could meet there; cells run in them as they travel."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lyceum_magic.submission.wrapping import wrap_cell

#: The oldest is the oldest that the bootstrap promises to run in.
_VERSIONS = [f"3.{minor}" for minor in range(9, 16)]
LIMIT_S = 60


def _interpreters() -> dict[str, str]:
    found = {"{}.{}".format(*sys.version_info): sys.executable}
    for version in _VERSIONS:
        places = [shutil.which(f"python{version}")]
        places += map(str, (Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python"))
        for place in filter(None, places):
            if version not in found and _works(place, version):
                found[version] = place
    return found


def _works(python: str, version: str) -> bool:
    # A shim of pyenv is there for every version, whether it is installed or not.
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    answer = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == version


INTERPRETERS = _interpreters()


def _command(python: str, cell: str, folder: Path, *flags: str) -> list[str]:
    script = folder / "cell.py"
    script.write_text(wrap_cell(cell), encoding="utf-8")
    return [python, "-W", "error", *flags, str(script)]


def run_cell(python: str, cell: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The cell's end, with what it wrote."""
    return subprocess.run(
        _command(python, cell, folder),
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )


def run_merged(python: str, cell: str, folder: Path) -> str:
    """Run a cell and return the text of both streams, in the order of its writes."""
    done = subprocess.run(
        _command(python, cell, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


class Live:
    """A cell that runs, and waits at each `input()` until it is told to go on."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdout is not None
        self._stdout = process.stdout.fileno()

    def read_until(self, text: str) -> str:
        """Return the text on stdout up to and with `text`."""
        got = b""
        while not got.endswith(text.encode()):
            ready, _, _ = select.select([self._stdout], [], [], LIMIT_S)
            assert ready, f"{text!r} did not come, but {got!r}"
            piece = os.read(self._stdout, 1)
            assert piece, f"the cell ended, having written {got!r}"
            got += piece
        return got.decode()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()


@contextmanager
def live_cell(python: str, cell: str, folder: Path) -> Iterator[Live]:
    """The cell while it runs."""
    process = subprocess.Popen(
        _command(python, cell, folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Live(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
