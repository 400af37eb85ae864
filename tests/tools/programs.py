"""Small programs of a user, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

from .waiting import LIMIT_S


def run_program(code: str, *arguments: str) -> str:
    """Run a program to its end and return what it printed; it must end well, and in silence."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout
