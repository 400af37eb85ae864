"""A cell's source -> the libraries that it changes, which the next cell imports unchanged."""

from __future__ import annotations

import ast
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

#: Attributes of modules that are kept in another way, or for one cell by their nature.
_KNOWN = frozenset({"argv", "displayhook", "excepthook", "path", "stderr", "stdin", "stdout"})


def changes_of(source: str, namespace: dict[str, Any]) -> dict[str, str]:
    """Return what a cell has changed in libraries, and why that is not kept.

    Args:
        source: of the cell.
        namespace: after the cell.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found = {}
    if "addHandler" in source:
        found["logging"] = "a handler that a cell adds to a logger ends with the cell"
    for node in tree.body:
        for name, owner in _changed(node, namespace):
            library = owner.__name__ if isinstance(owner, types.ModuleType) else owner.__module__
            top = library.partition(".")[0]
            found[name] = f"it changes {top} itself: repeat it in each cell that needs it"
    return found


def _changed(node: ast.stmt, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign):
        targets = [node.target]
    elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        for decorator in node.decorator_list:
            call = decorator.func if isinstance(decorator, ast.Call) else decorator
            name = getattr(call, "attr", getattr(call, "id", ""))
            owner = getattr(_value(call, namespace), "__module__", None)
            if name.startswith("register_") and name.endswith("_accessor") and owner in sys.modules:
                yield node.name, sys.modules[owner]
    for target in targets:
        if isinstance(target, ast.Attribute) and target.attr not in _KNOWN:
            owner = _value(target.value, namespace)
            if _is_of_library(owner):
                yield ast.unparse(target), owner


def _value(node: ast.expr, namespace: dict[str, Any]) -> Any:
    """Return the value of a dotted name, asking modules and classes alone."""
    if isinstance(node, ast.Name):
        return namespace.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, namespace)
        if isinstance(owner, (type, types.ModuleType)):
            return vars(owner).get(node.attr)
    return None


def _is_of_library(owner: Any) -> bool:
    if isinstance(owner, types.ModuleType):
        return owner.__name__ != "__main__"
    return isinstance(owner, type) and owner.__module__ != "__main__"
