"""The cell's text -> the source that travels: checked here, wrapped so that it behaves there."""

from __future__ import annotations

import ast
from functools import cache
from importlib import resources

from ..exceptions import OptionError

CELL_NAME = "<cell>"

_TEMPLATE = """\
# A notebook cell, sent by lyceum-magic: the first string runs the second, the cell.
exec(compile({bootstrap!r}, "<lyceum-magic>", "exec"),
     {{"__name__": "lyceum_magic_bootstrap", "CELL": {cell!r}, "NAME": {name!r}}})
"""


def check_cell(cell: str) -> None:
    """Compiles the cell here, so that a typing error starts nothing.

    Raises:
        OptionError: the cell is empty.
        SyntaxError: as Python would raise it, with the line numbers of the notebook.
    """
    if not cell.strip():
        raise OptionError("The cell is empty: write the Python code to run below the magic line.")
    try:
        compile("\n" + cell, CELL_NAME, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except ValueError as exc:  # a NUL character: Python before 3.12 has no SyntaxError for it
        raise OptionError(f"The cell cannot be compiled: {exc}.") from None


def wrap_cell(cell: str) -> str:
    """The source to send: the bootstrap, and the cell as data."""
    return _TEMPLATE.format(bootstrap=_bootstrap(), name=CELL_NAME, cell=cell)


@cache
def _bootstrap() -> str:
    text = resources.files(__package__).joinpath("bootstrap.py").read_text("utf-8")
    # Unparsed, it travels without comments and docstrings.
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
    # The namespace is the sender's, and nothing here keeps it: what the cell leaves in it has to go
    # before the streams do.
    return ast.unparse(tree) + "\nrun_cell(CELL, NAME, sys._getframe(1).f_globals)"
