"""The cell's text -> the source that travels: checked here, wrapped so that it behaves there."""

from __future__ import annotations

import ast
import base64
import importlib.util
import marshal
from functools import cache
from importlib import resources

from ..exceptions import OptionError

CELL_NAME = "<cell>"
THERE = "lyceum_magic_there"

_HEAD = """\
# A notebook cell, sent by lyceum-magic: the first string runs the cell, which is the last one.
exec(compile({loader!r}, "<lyceum-magic>", "exec"), {{"__name__": {package!r}, "MAGIC": {magic!r},
"MODULES": {modules!r},
"JOB": """


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


def wrap_cell(cell: str, *, mark: str = "", **job: object) -> str:
    """The source to send: the modules of `there`, and the cell as data.

    Args:
        cell: Python source.
        mark: the run's own word in its frames (`runs.Run.mark`).
        job: what else `there.bootstrap.Job` holds.
    """
    return f"{_head()}{ {'mark': mark, 'name': CELL_NAME, **job, 'cell': cell}!r}}})\n"


@cache
def _head() -> str:
    modules = {}
    for file in resources.files(__package__).joinpath("there").iterdir():
        name, _, suffix = file.name.rpartition(".")
        if suffix == "py" and name not in ("__init__", "loader"):
            text = _travelling_text(name)
            # Compiled code spares the same Python some 10 ms there.
            code = compile(text, f"<lyceum-magic {name}>", "exec", dont_inherit=True)
            modules[name] = (text, base64.b64encode(marshal.dumps(code)).decode())
    return _HEAD.format(
        loader=_travelling_text("loader"),
        package=THERE,
        magic=importlib.util.MAGIC_NUMBER.hex(),
        modules=modules,
    )


@cache
def _travelling_text(name: str) -> str:
    """A module of `there` without comments and docstrings."""
    tree = ast.parse(
        resources.files(__package__).joinpath("there", f"{name}.py").read_text("utf-8")
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.Pass())
    return ast.unparse(tree)
