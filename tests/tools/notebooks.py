"""The text of an executed notebook, in a form in which two executions can be compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat


def texts(notebook: Path) -> dict[str, list[str]]:
    """Cell id -> what it shows: stdout, stderr, then results, without ids and times."""
    return {
        cell.id: [
            *(_shown(_stream(cell, name)) for name in ("stdout", "stderr")),
            *(_shown(output.data["text/plain"]) for output in cell.outputs if "data" in output),
        ]
        for cell in nbformat.read(notebook, as_version=4).cells
        if cell.cell_type == "code"
    }


def _stream(cell: Any, name: str) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == name)


def _shown(text: str) -> str:
    """Return what remains visible of rewritten lines; columns are as wide as needed."""
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    text = "\n".join(re.sub(r"(?<=\S) {2,}", "  ", line).rstrip() for line in lines)
    text = re.sub(r"\b[0-9a-f]{8}\b", "ID", text)
    return re.sub(r"\b\d+(\.\d)? s\b(?! ended)", "N s", text)
