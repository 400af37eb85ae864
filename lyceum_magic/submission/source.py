"""The text of a cell -> the Python that travels, parsed once; its `%` and `!` lines made Python."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from ..exceptions import OptionError
from .wrapping import CELL_NAME

_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_TOO_DEEP = (
    "The cell's brackets, blocks or expressions nest too deep for Python's parser: split the "
    "deepest one into several statements."
)


@dataclass(frozen=True)
class ParsedCell:
    """A cell's Python.

    Attributes:
        code: the text that travels.
        tree: its syntax tree, in which line 1 is the notebook's; None where this Python cannot
            parse it, and that was asked for.
        first_line: the number of the first line of the code, as the notebook and the tree count.
    """

    code: str
    tree: ast.Module | None
    first_line: int = 1


def parse_cell(
    text: str, *, check: bool = True, raw: bool = False, first_line: int = 1
) -> ParsedCell:
    """Return the Python of a cell: its text, or its text with `%` and `!` lines made Python.

    Args:
        text: the cell, below its magic line.
        check: compile it here first, so that a typing error starts nothing.
        raw: take the cell as it is.
        first_line: the number of its first line in errors.

    Raises:
        OptionError: the cell is empty, or nests too deep.
        SyntaxError: as Python would raise it, with the user's own line.
    """
    if not text.strip():
        raise OptionError("The cell is empty: write the Python code to run below the magic line.")
    tree, problem = _compiled(text, first_line)
    code = text
    if problem is not None and not raw:
        code = without_magics(text)
        if code != text:
            tree, problem = _compiled(code, first_line)
    if problem is not None and check:
        raise _as_written(problem, text, first_line)
    return ParsedCell(code, tree, first_line)


def _compiled(
    code: str, first_line: int
) -> tuple[ast.Module | None, SyntaxError | OptionError | None]:
    """Return the syntax tree of a source, and what keeps Python from compiling it."""
    code = "\n" * (first_line - 1) + code
    tree = None
    try:
        tree = compile(code, CELL_NAME, "exec", _FLAGS | ast.PyCF_ONLY_AST, dont_inherit=True)
        try:
            compile(tree, CELL_NAME, "exec", _FLAGS, dont_inherit=True)
        except RecursionError:  # Python before 3.12 takes shallower trees than texts
            compile(code, CELL_NAME, "exec", _FLAGS, dont_inherit=True)
    except SyntaxError as exc:
        return tree, exc.with_traceback(None)
    except (RecursionError, MemoryError):  # the parser's stack is full, not the machine's memory
        return tree, OptionError(_TOO_DEEP)
    except ValueError as exc:  # a NUL character: Python before 3.12 has no SyntaxError for it
        return None, OptionError(f"The cell cannot be compiled: {exc}.")
    return tree, None


def _as_written(
    problem: SyntaxError | OptionError, cell: str, first_line: int
) -> SyntaxError | OptionError:
    """Return the problem with the user's own line, where it shows another line or none."""
    if isinstance(problem, SyntaxError) and problem.lineno is not None:
        number = problem.lineno - first_line
        written = cell.split("\n")[number : number + 1] if number >= 0 else []
        if written and problem.text is None:  # found after parsing, where the text is not known
            problem.text = written[0]
        elif written and str(problem.text).rstrip("\n") != written[0]:
            problem.text, problem.offset, problem.end_offset = written[0], None, None
    return problem


def without_magics(cell: str) -> str:
    """Return the cell with its `%` and `!` lines as calls of `get_ipython()`.

    Every line keeps its place: IPython joins the lines of a magic that goes on over several, so
    empty ones fill up.
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
