"""Notebooks of the kinds that people publish, as text: cells are parted by `# %%`.

No magic of this package is in them. A line `# %name` is a magic of IPython's, and a cell that
begins with `# %%writefile` is text throughout. `notebook` makes a notebook of a file.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))

_MARK = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def notebook(name: str) -> nbformat.NotebookNode:
    """Return the notebook that the file of this name describes."""
    _, *parts = _MARK.split((FOLDER / f"{name}.py").read_text("utf-8"))
    kinds, texts = parts[::2], parts[1::2]
    cells = [
        nbformat.v4.new_markdown_cell(_uncommented(text))
        if kind
        else nbformat.v4.new_code_cell(_code(text))
        for kind, text in zip(kinds, texts, strict=True)
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _uncommented(text: str) -> str:
    return re.sub(r"^# ?", "", text.strip("\n"), flags=re.MULTILINE)


def _code(text: str) -> str:
    text = text.strip("\n")
    if text.startswith("# %%writefile"):
        return _uncommented(text)
    return re.sub(r"^# (?=%)", "", text, flags=re.MULTILINE)
