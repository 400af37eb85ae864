"""A cell's source -> the lines that a later cell has to repeat, as far as it uses them: imports."""

from __future__ import annotations
import __future__

import ast
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Magics that set up a session.
_SETTING_MAGICS = ("config", "load_ext", "matplotlib", "precision", "pylab", "reload_ext")
#: Functions that do, and have no getter.
_SETTING_CALLS = ("basicConfig", "init_printing", "init_session", "enable_notebook")
#: Lines of a session at most; an import in a loop over texts is no line.
MAX_LINES = 1000


class Line:
    """A line to repeat.

    Attributes:
        source: the line.
        names: what it binds.
        tops: the packages that it imports; a line of one is repeated if the cell uses it.
    """

    def __init__(self, source: str, names: set[str], tops: set[str]) -> None:
        self.source = source
        self.names = names
        self.tops = tops


def module_of(value: Any) -> str | None:
    """Return the name by which a module can be imported again; None if the value is no such."""
    if not isinstance(value, types.ModuleType):
        return None
    name = value.__name__
    if name == "__main__" or sys.modules.get(name) is not value:
        return None
    from .reducers import _is_importable

    return name if _is_importable(name) else None


def lines_of(source: str) -> list[Line]:
    """Return the lines of a cell that later cells repeat, in order; none if it is no Python."""
    try:
        tree = compile(
            source, "<cell>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [line for node in _statements(tree.body) for line in _lines(node)]


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements of a cell; of a `try`, those of its body."""
    found: list[ast.stmt] = []
    for node in body:
        found += _statements(node.body) if isinstance(node, (ast.Try, ast.With)) else [node]
    return found


def _lines(node: ast.stmt) -> list[Line]:
    if isinstance(node, ast.Import):
        return [
            Line(
                ast.unparse(ast.Import([alias])),
                {alias.asname or alias.name.partition(".")[0]},
                {alias.name.partition(".")[0]},
            )
            for alias in node.names
        ]
    if isinstance(node, ast.ImportFrom):
        names = {alias.asname or alias.name for alias in node.names} - {"*"}
        return [Line(ast.unparse(node), names, {(node.module or "").partition(".")[0]})]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        magic = _setting_magic(node.value)
        if magic:
            return [Line(ast.unparse(node), set(), {magic})]
        called = node.value.func
        name = getattr(called, "attr", getattr(called, "id", ""))
        if name in _SETTING_CALLS and _is_constant(node.value):
            root = called
            while isinstance(root, ast.Attribute):
                root = root.value
            top = getattr(root, "id", "")
            return [Line(ast.unparse(node), set(), {f"name {top}"})]
    return []


def _setting_magic(call: ast.Call) -> str:
    """Return the package that a call of a setting magic is for, or "get_ipython"; else nothing."""
    if not (isinstance(call.func, ast.Attribute) and call.func.attr == "run_line_magic"):
        return ""
    given = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    if len(given) != 2 or given[0] not in _SETTING_MAGICS:
        return ""
    is_figures = given[0] in ("matplotlib", "pylab") or "InlineBackend" in str(given[1])
    return "matplotlib" if is_figures else "get_ipython"


def _is_constant(call: ast.Call) -> bool:
    """Return whether a call has arguments that are constants or attributes of modules."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    allowed = (ast.Constant, ast.Attribute, ast.Name, ast.Load)
    return all(isinstance(node, allowed) for arg in given for node in ast.walk(arg))


def future_flags(sources: list[str]) -> int:
    """Return the flags of the features that lines import from `__future__`."""
    flags = 0
    for source in sources:
        if source.startswith("from __future__ import "):
            for name in source.partition(" import ")[2].split(","):
                feature = getattr(__future__, name.split(" as ")[0].strip(), None)
                flags |= getattr(feature, "compiler_flag", 0)
    return flags
