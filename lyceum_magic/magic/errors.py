"""How the package's errors look in a cell: one line for the reader, no traceback of ours."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..exceptions import CellSyntaxError, LyceumError

P = ParamSpec("P")
T = TypeVar("T")


def plainly(function: Callable[P, T]) -> Callable[P, T]:
    """Wraps a magic: what it raises on purpose is shown by its own text alone.

    IPython shows an exception that has `_render_traceback_` by what that returns. It is set on the
    one exception that leaves the magic here: raised by the Python API, the same class shows the
    user's own frames.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except SyntaxError as exc:
            text = "".join(traceback.format_exception_only(exc)).rstrip("\n")
            raise _shown_as(CellSyntaxError(text), text) from None
        except LyceumError as exc:
            raise _shown_as(exc, f"{type(exc).__name__}: {exc}") from exc.__cause__

    return run


def _shown_as(exc: LyceumError, text: str) -> LyceumError:
    # A partial of a module's function, so that the exception can still be pickled.
    exc._render_traceback_ = functools.partial(str.splitlines, text)  # type: ignore[attr-defined]
    return exc
