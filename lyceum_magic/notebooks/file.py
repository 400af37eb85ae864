"""A notebook file -> its cells, to be executed; the executed notebook -> a file."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from .. import disks
from ..exceptions import LyceumError

_FORMAT = 4
_MAX_CELL = 10_000_000  # characters of one cell's source


class Notebook:
    """A notebook's content, as nbformat 4 has it.

    Args:
        content: the parsed file.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    @property
    def code_cells(self) -> list[dict[str, Any]]:
        """The cells that an execution runs: of code, neither empty nor tagged to be skipped."""
        return [
            cell
            for cell in self.content["cells"]
            if cell["cell_type"] == "code"
            and source_of(cell).strip()
            and "skip-execution" not in tags_of(cell)
        ]

    def clear(self) -> None:
        """Remove the results of an earlier execution."""
        for cell in self.content["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None


def source_of(cell: dict[str, Any]) -> str:
    """Return the text of a cell."""
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def tags_of(cell: dict[str, Any]) -> list[Any]:
    """Return the tags of a cell."""
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tags if isinstance(tags, list) else []


def read_notebook(path: Path) -> Notebook:
    """Return the notebook in a file.

    Raises:
        LyceumError: it is missing or cannot be read, is no notebook, or is none of Python.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise LyceumError(f"There is no notebook {path}.") from None
    except OSError as exc:
        raise LyceumError(f"The notebook {path} cannot be read: {exc.strerror}.") from None
    except (ValueError, RecursionError):
        raise LyceumError(f"{path} is no notebook: it should be JSON, in UTF-8.") from None
    if problem := _problem_of(content):
        raise LyceumError(f"{path} {problem}")
    return Notebook(content)


def _problem_of(content: Any) -> str:
    """Return what keeps the content from being executed; empty if nothing does."""
    if not isinstance(content, dict) or not isinstance(content.get("nbformat"), int):
        return "is no notebook: it should be a JSON object with `nbformat` and `cells`."
    if content["nbformat"] != _FORMAT:
        return (
            f"has notebook format {content['nbformat']}, and only {_FORMAT} is read; "
            f"`jupyter nbconvert --to notebook --nbformat {_FORMAT}` converts it."
        )
    cells = content.get("cells")
    if not isinstance(cells, list):
        return "is no notebook: its `cells` should be a list."
    for number, cell in enumerate(cells, 1):
        source = cell.get("source", "") if isinstance(cell, dict) else None
        is_text = isinstance(source, str) or (
            isinstance(source, list) and all(isinstance(line, str) for line in source)
        )
        if not is_text or not isinstance(cell.get("cell_type"), str):
            return f"is no notebook: its cell {number} should have a `cell_type` and a `source`."
        if len(source_of(cell)) > _MAX_CELL:
            return f"has a cell {number} of more than {_MAX_CELL:,} characters."
    language = _language(content)
    if language != "python":
        return f"is a notebook of {language}; machines run cells of Python."
    return ""


def _language(content: dict[str, Any]) -> str:
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    for part, name in (("kernelspec", "language"), ("language_info", "name")):
        found = metadata.get(part)
        if isinstance(found, dict) and isinstance(found.get(name), str):
            return str(found[name]).lower()
    return "python"


def write_notebook(notebook: Notebook, path: Path) -> None:
    """Write a notebook as Jupyter does; a file of this name is replaced as a whole.

    Raises:
        LyceumError: it cannot be written.
    """
    for cell in notebook.content["cells"]:
        for output in cell.get("outputs", ()):
            if isinstance(output.get("text"), str):
                output["text"] = output["text"].splitlines(keepends=True)
    text = json.dumps(notebook.content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
    except OSError as exc:
        raise LyceumError(f"{path} cannot be written: {disks.reason(exc, path)}.") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
