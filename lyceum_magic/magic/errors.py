"""The look of errors in a cell: the package's own in one line, the cell's as if it ran here."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..exceptions import CellSyntaxError, LyceumError, RunFailed
from ..protocol.lines import safe_lines
from ..protocol.states import State

if TYPE_CHECKING:
    from ..protocol.requests import Kind
    from ..runs.run import Run

P = ParamSpec("P")
T = TypeVar("T")


def plainly(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a magic, so that its errors are shown by their own text alone.

    An error of the cell is shown as IPython shows the error of a cell.

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
        except RunFailed as exc:
            if exc.__cause__ is None:
                raise _shown_as(exc, safe_lines(f"{type(exc).__name__}: {exc}")) from None
            # Made at each display, since `%tb` obeys `%xmode`.
            exc._render_traceback_ = functools.partial(  # type: ignore[attr-defined]
                as_in_a_cell, exc.__cause__, exc.hint, exc._style
            )
            # Without the frames that led here, for tools that show it by its traceback.
            raise exc.with_traceback(None) from exc.__cause__
        except LyceumError as exc:
            raise _shown_as(exc, safe_lines(f"{type(exc).__name__}: {exc}")) from exc.__cause__

    return run


def _shown_as(exc: LyceumError, text: str) -> LyceumError:
    # A partial of a module's function, so that the exception can still be pickled.
    exc._render_traceback_ = functools.partial(str.splitlines, text)  # type: ignore[attr-defined]
    return exc


def failure_of(run: Run, cell: str | None = None, kind: Kind = "python") -> RunFailed | None:
    """Return the exception for a run's end, for this notebook; None if the run completed.

    Args:
        cell: the text of the present cell, if the run is of that cell; an empty line stands for
            its magic line.
        kind: of the run.
    """
    if run.state is State.COMPLETED:
        return None
    from IPython import get_ipython

    from .hints import hint_for

    failure = run.failure("" if cell is None else name_in_notebook(cell))
    if failure is not None:
        failure.hint = hint_for(run, failure, get_ipython().user_ns, kind=kind)
    return failure


def name_in_notebook(cell: str) -> str:
    """Return IPython's name of the present cell, which tracebacks show as `Cell In[n]`.

    Args:
        cell: its text, as for `failure_of`.
    """
    from IPython import get_ipython

    shell = get_ipython()
    # `execution_count` is that of the next cell in newer versions; the inputs know.
    number = len(shell.history_manager.input_hist_parsed) - 1
    return str(shell.compile.cache(cell, number))


def as_in_a_cell(error: BaseException, hint: str, style: str = "") -> list[str]:
    """Return the lines in which this notebook's IPython shows an exception of a cell.

    Args:
        style: a mode of `%xmode` in place of the notebook's own; "shown": the cell has shown the
            exception, whose name and message are enough.
    """
    from IPython import get_ipython

    shell = get_ipython()
    own = shell.InteractiveTB.mode
    if style in shell.InteractiveTB.valid_modes:
        shell.InteractiveTB.set_mode(style)
    try:
        lines = _lines(error, shell, is_shown=style == "shown")
    finally:
        shell.InteractiveTB.set_mode(own)
    return [*lines, f"\n{hint}"] if hint else lines


def _lines(error: BaseException, shell: Any, *, is_shown: bool) -> list[str]:
    trace = error.__traceback__
    if is_shown:
        return "".join(traceback.format_exception_only(error)).splitlines()
    if type(error).__name__ == "UsageError":  # of a magic; IPython shows no traceback of these
        lines = [f"UsageError: {error}"]
    elif _has_group(error):  # IPython leaves these to Python
        lines = "".join(traceback.format_exception(error)).splitlines()
    elif isinstance(error, SyntaxError):
        steps = traceback.extract_tb(trace)
        lines = shell.SyntaxTB.structured_traceback(type(error), error, steps)
    else:
        lines = shell.InteractiveTB.structured_traceback(type(error), error, trace, 0)
    return list(lines)


def _has_group(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, BaseExceptionGroup):
            return True
        error = error.__cause__ or error.__context__
    return False
