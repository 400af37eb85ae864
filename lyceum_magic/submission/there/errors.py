"""What the cell raised, on its way back."""

from __future__ import annotations

import types


def report(error: BaseException, trace: types.TracebackType | None, name: str) -> None:
    """Shows the traceback from the cell on: nothing of this package, of the runner or of asyncio.

    Args:
        name: what tracebacks call the cell.
    """
    import traceback

    outer = trace
    while outer is not None and outer.tb_frame.f_code.co_filename != name:
        outer = outer.tb_next
    if outer is None and isinstance(error, SyntaxError):
        trace = None  # the cell itself could not be compiled: nothing of it has run
    traceback.print_exception(type(error), error, outer or trace)
