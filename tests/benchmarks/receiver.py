"""The cost of `lyceum_magic.callbacks` to a program that receives callbacks: its import."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from .row import Row

_NOTHING = "pass"
_NEEDED = "import json, sqlite3, hmac"
_OURS = "from lyceum_magic.callbacks import SqliteSeen, verify"


def measure(rounds: int = 25) -> Iterator[Row]:
    """In fresh interpreters, which take turns; compiled, as it is where it is installed."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, "-c", _OURS], env=environment, check=True)
    times: dict[str, list[float]] = {_NOTHING: [], _NEEDED: [], _OURS: []}
    for _ in range(rounds):
        for program, taken in times.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], env=environment, check=True)
            taken.append((time.perf_counter() - begun) * 1e3)
    nothing, needed, ours = (median(taken) for taken in times.values())
    yield Row("import lyceum_magic.callbacks, beyond the interpreter", ours - nothing, "ms", 60,
              rounds, f"interpreter {nothing:.0f} ms")  # fmt: skip
    yield Row("the same, against `import json, sqlite3, hmac`",
              (ours - nothing) / (needed - nothing), "x", None, rounds,
              f"{needed - nothing:.0f} ms")  # fmt: skip
