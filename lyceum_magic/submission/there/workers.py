"""Processes that the cell starts anew, by spawn or forkserver: each runs the cell again.

They need its definitions, and skip what stands under `if __name__ == "__main__":`. Python itself
refuses a worker that starts workers meanwhile, but a pool goes on replacing it for ever.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
import threading
from typing import Any

from . import bootstrap, compiling

#: Statements that a worker runs if it gets to them.
UNCONDITIONAL = (ast.With, ast.AsyncWith, ast.For, ast.AsyncFor, ast.Expr, ast.Assign)
ADVICE = (
    "put what starts them under `if __name__ == '__main__':`, or take "
    "multiprocessing.get_context('fork')."
)


def refuse_endless_spawning(spawn: Any, cell_name: str) -> None:
    """Lets `multiprocessing.spawn` start no worker that cannot come to its work.

    Args:
        cell_name: what tracebacks call the cell, as its workers will run it.

    Raises (there, in the process that starts it):
        RuntimeError: the cell awaits at its top level, or starts workers whenever it runs.
    """
    prepare = spawn.get_preparation_data

    def get_preparation_data(name: str) -> Any:
        if spawn.process.parent_process() is None:
            check_cell("".join(linecache.getlines(cell_name)), cell_name)
        data = prepare(name)
        if data.get("init_main_from_path") == os.path.normpath(bootstrap.cell_file):
            # What the worker runs has to bring the cell's inputs along.
            data["init_main_from_path"] = bootstrap.program
        return data

    spawn.get_preparation_data = get_preparation_data


def check_cell(cell: str, name: str) -> None:
    codes = compiling.compile_cell(cell, name, is_shown=False)
    if any(code.co_flags & compiling.CO_COROUTINE for code in codes):
        raise RuntimeError(
            "Workers that are spawned run the cell again, which cannot await at its top level "
            "then: call asyncio.run() instead, and " + ADVICE
        )
    line = line_under_way(name)
    if line is not None and is_unconditional(ast.parse(cell), line):
        raise RuntimeError(
            f"Workers that are spawned run the cell again, and would start others at line {line}: "
            + ADVICE
        )


def line_under_way(name: str) -> int | None:
    """The line of the cell's top level that the main thread is at."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_filename == name and frame.f_code.co_name == "<module>":
            return frame.f_lineno
        frame = frame.f_back
    return None


def is_unconditional(tree: Any, line: int) -> bool:
    """Whether whatever runs the whole tree comes to the statement at this line."""
    for node in tree.body:
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            if not isinstance(node, UNCONDITIONAL):
                return False
            return is_unconditional(node, line) if hasattr(node, "body") else True
    return True
