"""A cell's text -> the code objects that an interactive Python would run, and their run."""

from __future__ import annotations
import __future__

import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types

CO_COROUTINE = 0x80
#: Without the first feature, whose bit has another meaning by now.
FUTURE_FEATURES = sum(
    getattr(__future__, name).compiler_flag for name in __future__.all_feature_names[1:]
)


def compile_cell(
    cell: str, name: str, *, is_shown: bool, features: int = 0
) -> list[types.CodeType]:
    """Return the code of a cell.

    Args:
        is_shown: whether the value of a last expression is.
        features: flags of the `__future__` features of earlier cells.
    """
    allow_await = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | features
    tree = compile(cell, name, "exec", ast.PyCF_ONLY_AST | allow_await, dont_inherit=True)
    last = None
    if (
        is_shown
        and tree.body
        and isinstance(tree.body[-1], ast.Expr)
        and not is_quiet(cell, tree.body[-1])
    ):
        last = ast.Interactive([tree.body.pop()])
    codes = [compile(tree, name, "exec", allow_await, dont_inherit=True)]
    if last is not None:
        # Mode "single" hands the value to sys.displayhook, as an interactive Python does.
        flags = allow_await | (codes[0].co_flags & FUTURE_FEATURES)
        codes.append(compile(last, name, "single", flags, dont_inherit=True))
    return codes


def run_codes(codes: list[types.CodeType], namespace: dict[str, object]) -> None:
    """Run the code objects of `compile_cell`, in an event loop if any of them awaits."""
    if not any(code.co_flags & CO_COROUTINE for code in codes):
        for code in codes:
            exec(code, namespace)
        return
    import asyncio

    async def run_all() -> None:
        for code in codes:
            pending = eval(code, namespace)
            if code.co_flags & CO_COROUTINE:
                await pending

    asyncio.run(run_all())


def is_quiet(cell: str, last: ast.Expr) -> bool:
    """Return whether a semicolon follows the last expression, which a bracket may enclose."""
    rest = cell.encode().splitlines()[last.end_lineno - 1 :]  # type: ignore[operator]
    rest[0] = rest[0][last.end_col_offset :]
    return b"".join(rest).lstrip(b") \t\\").startswith(b";")
