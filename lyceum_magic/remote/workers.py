"""Processes that the cell starts afresh, by spawn or forkserver.

A worker runs the cell again if the cell guards its main part by `if __name__ == "__main__":`.
Otherwise it starts without the cell, as a notebook's workers do: that is enough for work that can
be imported, or that comes by value. A pool would replace a worker that cannot read its work for
ever, so work that the cell defines is refused before it is sent.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
import threading
import types
from typing import Any

from . import compiling, own_file

ADVICE = (
    "put what starts them under `if __name__ == '__main__':`, or take "
    "multiprocessing.get_context('fork')."
)

_is_watched = False


def prepare_workers(spawn: Any, cell_name: str) -> None:
    """Let `multiprocessing.spawn` start each worker with the cell or without it, as it can.

    Args:
        cell_name: the cell's name in tracebacks; its workers may run it.
    """
    prepare = spawn.get_preparation_data

    def get_preparation_data(name: str) -> Any:
        data = prepare(name)
        if data.get("init_main_from_path") == os.path.normpath(own_file.path):
            # What the worker runs has to bring the cell's inputs along.
            data["init_main_from_path"] = own_file.program
        if spawn.process.parent_process() is None:
            cell = "".join(linecache.getlines(cell_name))
            if not can_run_again(cell, cell_name):
                data.pop("init_main_from_path", None)
                data.pop("init_main_from_name", None)
                refuse_what_the_cell_defines()
        return data

    spawn.get_preparation_data = get_preparation_data


def can_run_again(cell: str, name: str) -> bool:
    """Return whether a worker can run the cell without starting workers itself."""
    codes = compiling.compile_cell(cell, name, is_shown=False)
    if any(code.co_flags & compiling.CO_COROUTINE for code in codes):
        return False
    line = line_under_way(name)
    return line is not None and is_guarded(ast.parse(cell), line)


def line_under_way(name: str) -> int | None:
    """Return the line of the cell's top level that the main thread has reached."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_filename == name and frame.f_code.co_name == "<module>":
            return frame.f_lineno
        frame = frame.f_back
    return None


def is_guarded(tree: ast.Module, line: int) -> bool:
    """Return whether the statement at this line depends on the module's name."""
    return any(
        isinstance(node, ast.If)
        and node.lineno <= line <= (node.end_lineno or node.lineno)
        and any(
            isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
        )
        for node in tree.body
    )


def refuse_what_the_cell_defines() -> None:
    """Refuse to send a function or class of the cell to workers that do not have it."""
    global _is_watched
    if _is_watched:
        return
    _is_watched = True
    from multiprocessing import context, process, reduction

    def reducer_override(pickler: object, value: Any) -> Any:
        if (
            isinstance(value, (type, types.FunctionType))
            and value.__module__ == "__main__"
            and (context.get_spawning_popen() or any(map(is_fresh, process.active_children())))
        ):
            raise RuntimeError(
                f"Workers that are started afresh do not have {value.__qualname__}, which the cell "
                f"defines: {ADVICE}"
            )
        return NotImplemented

    reduction.ForkingPickler.reducer_override = reducer_override  # type: ignore[method-assign]


def is_fresh(child: Any) -> bool:
    return child._popen is not None and child._popen.method != "fork"
