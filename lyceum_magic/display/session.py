"""The facts of a session's cell -> the words that the strip and the cell show; pure functions."""

from __future__ import annotations

from ..outputs.decoding import SessionSaved
from ..protocol.lines import one_line
from ..protocol.session_names import is_of_notebook
from ..protocol.sessions import MAIN_BRANCH
from ..protocol.sizes import in_words

#: Maximum number of names, and of characters of a reason, in one line.
_MAX_NAMES = 8
_MAX_REASON = 120


def session_title(key: str, title: str, branch: str = MAIN_BRANCH) -> str:
    """Return a session and its branch in words: `train`, `train/try`.

    A notebook's own session has no name of its own, and goes by its branch.
    """
    if is_of_notebook(key):
        return one_line(branch)
    named = one_line(title or key)
    return named if branch == MAIN_BRANCH else f"{named}/{one_line(branch)}"


def session_entry(saved: SessionSaved) -> str:
    """Return a strip's entry: `session main · cell 7 · 12 variables · 85 MB`."""
    name = session_title(saved.key, saved.title, saved.branch)
    if not saved.sha256:
        return f"session {name} · not saved: {one_line(saved.error, _MAX_REASON)}"
    variables = "1 variable" if saved.variables == 1 else f"{saved.variables:,} variables"
    return f"session {name} · cell {saved.cell} · {variables} · {in_words(saved.size)}"


def not_kept(saved: SessionSaved) -> str:
    """Return the sentence about the variables that a cell has not kept; empty if it kept all."""
    if not saved.lost:
        return ""
    named = [
        f"{one_line(name, _MAX_REASON)} ({one_line(reason, _MAX_REASON)})"
        for name, reason in saved.lost[:_MAX_NAMES]
    ]
    more = len(saved.lost) - _MAX_NAMES
    return f"Not kept for the next cell: {', '.join(named)}{f', and {more} more' * (more > 0)}"
