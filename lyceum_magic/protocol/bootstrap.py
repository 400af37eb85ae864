"""The first line of a cell that travels without its bootstrap: it names the one that it needs.

The bootstrap makes a program of a cell (`remote`). A server that has loaded the same one,
by its digest, is sent the cell alone; see `submission.wrapping` for both forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: In a run's folder, beside the folder of the program: the bootstrap of a cell that came without.
BOOTSTRAP_FILE = "bootstrap.py"

_LINE = re.compile(r"# lyceum-magic bootstrap ([0-9a-f]{64}):((?: \w+)*)\n")


def first_line(digest: str, modules: Iterable[str]) -> str:
    """Return the line that opens a cell without its bootstrap.

    Args:
        digest: SHA-256 of the bootstrap, in hexadecimal.
        modules: names of the modules that this cell needs and most cells do not.
    """
    return f"# lyceum-magic bootstrap {digest}:{''.join(f' {name}' for name in sorted(modules))}\n"


def digest_in(program: str) -> str:
    """Return the digest of the bootstrap that a program lacks; empty if it lacks none."""
    match = _LINE.match(program)
    return match[1] if match else ""


def modules_in(program: str) -> frozenset[str]:
    """Return the modules that the first line of such a program names."""
    match = _LINE.match(program)
    return frozenset(match[2].split()) if match else frozenset()
