"""`?` after a magic shows its options; loading the extension does not make that help."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from IPython.core import oinspect
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_line_magic("load_ext", "lyceum_magic")
assert "lyceum_magic.magic.options" not in sys.modules
print(oinspect.getdoc(shell.magics_manager.magics["{kind}"]["{name}"]))
"""


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("cell", "lyceum", "usage: %%lyceum [-m NAME]"),
        ("cell", "lyceum_image", "usage: %%lyceum_image [-m NAME]"),
        ("line", "lyceum_image", "usage: %%lyceum_image [-m NAME]"),
        ("cell", "lyceum_compose", "usage: %%lyceum_compose [-m NAME]"),
        ("line", "lyceum", "usage: %lyceum SUBCOMMAND"),
    ],
)
def test_a_question_mark_shows_the_options(kind: str, name: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(kind=kind, name=name)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith(said), done.stderr
