"""The cell's text -> the Python that travels: checked here, its `%` and `!` lines made Python."""

from __future__ import annotations

import ast

from ..exceptions import OptionError
from .wrapping import CELL_NAME

#: The number of a cell's first line of code, as the notebook counts.
BELOW_MAGIC_LINE = 2


def code_of(
    cell: str, *, check: bool = True, raw: bool = False, first_line: int = BELOW_MAGIC_LINE
) -> str:
    """The Python that travels: the cell itself, or with its `%` and `!` lines made Python.

    Args:
        check: compile it here first, so that a typing error starts nothing.
        raw: take the cell as it is.
        first_line: the number of its first line in errors.

    Raises:
        OptionError: the cell is empty.
        SyntaxError: as Python would raise it, with the user's own line.
    """
    if not cell.strip():
        raise OptionError("The cell is empty: write the Python code to run below the magic line.")
    problem = _problem_of(cell, first_line)
    if problem is None:
        return cell
    code = cell if raw else without_magics(cell)
    if code != cell:
        problem = _problem_of(code, first_line)
    if problem is not None and check:
        raise _as_written(problem, cell, first_line)
    return code


def _problem_of(code: str, first_line: int) -> SyntaxError | OptionError | None:
    code = "\n" * (first_line - 1) + code
    try:
        compile(code, CELL_NAME, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as exc:
        return exc.with_traceback(None)
    except ValueError as exc:  # a NUL character: Python before 3.12 has no SyntaxError for it
        return OptionError(f"The cell cannot be compiled: {exc}.")
    return None


def _as_written(
    problem: SyntaxError | OptionError, cell: str, first_line: int
) -> SyntaxError | OptionError:
    """The problem with the user's own line, where another took its place or none is named."""
    if isinstance(problem, SyntaxError) and problem.lineno is not None:
        number = problem.lineno - first_line
        written = cell.split("\n")[number : number + 1] if number >= 0 else []
        if written and problem.text is None:  # found behind the parser, which knows no lines
            problem.text = written[0]
        elif written and str(problem.text).rstrip("\n") != written[0]:
            problem.text, problem.offset, problem.end_offset = written[0], None, None
    return problem


def without_magics(cell: str) -> str:
    """The cell with its `%` and `!` lines as calls of `get_ipython()`, and each line in its place.

    IPython makes one line of a magic that goes on over several, so empty ones fill up.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    manager = TransformerManager()
    text = cell.removesuffix("\n")
    blank = text.count("\n", 0, len(text) - len(text.lstrip()))
    lines = [f"{line}\n" for line in text.split("\n")[blank:]]
    for transform in (*manager.cleanup_transforms, *manager.line_transforms):
        lines = transform(lines)
    for _ in range(len(lines)):  # a line is one magic at most
        is_changed, changed = manager.do_one_token_transform(lines)
        if not is_changed:
            break
        if missing := len(lines) - len(changed):
            same = zip(lines, changed, strict=False)
            at = next(at for at, (old, new) in enumerate(same) if old != new)
            changed[at + 1 : at + 1] = ["\n"] * missing
        lines = changed
    code = "\n" * blank + "".join(lines)
    return code if cell.endswith("\n") else code.removesuffix("\n")
