"""A notebook that nbclient executes keeps the summary, and nothing of a widget."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

CELL = """\
import threading
from dataclasses import replace
from lyceum_magic.display.strip import Strip
from lyceum_magic.display.summary import RunFacts
from lyceum_magic.display.text import TextFeed
from lyceum_magic.protocol.events import Output
from lyceum_magic.protocol.states import State
facts = RunFacts("3f2a9c1e-0000", State.RUNNING, "cpu", elapsed_s=1.2)
strip, feed = Strip(print), TextFeed(facts.run_id)
strip.open(facts)
strip.publish()
feed.add(Output("a\\rb\\x1b[1mc\\n"))
feed.close()
"""
CLOSE = "strip.close(replace(facts, state=State.COMPLETED))"


@pytest.mark.kernel
# The kernel's client warns that loopback is not encrypted, and zmq that it chose a loop.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cells", [[CELL + CLOSE], [CELL, CLOSE]], ids=["blocking", "detached"])
def test_the_summary_takes_the_strips_place_above_the_text(cells: list[str], tmp_path: Path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    summary, text = notebook.cells[0].outputs
    assert summary.data["text/plain"] == "lyceum ✓ completed in 1.2 s on cpu · run 3f2a9c1e"
    assert set(summary.data) == {"text/html", "text/plain"}
    assert text.text == "a\rb\x1b[1mc\n"
    assert "widgets" not in notebook.metadata
    assert [cell.outputs for cell in notebook.cells[1:]] in ([], [[]])
