"""The cell of a session: its place in the session before it runs, and its words afterwards."""

from __future__ import annotations

from ..client.api import Client
from ..display.faces import is_attended
from ..display.session import session_title
from ..protocol.lines import one_line
from ..protocol.states import State
from ..runs.run import Run
from ..runs.workspace import workspace
from ..sessions.naming import SessionName, session_named
from ..sessions.steps import Agree, NextCell, next_cell
from .asking import ask_yes
from .transfer import say


def session_meant(word: str) -> SessionName:
    """Return the session that a word means in this notebook.

    Raises:
        OptionError: it is no name.
    """
    from IPython import get_ipython

    shell = get_ipython()
    namespace = {} if shell is None else shell.user_ns
    own = workspace().sessions.own
    return session_named(word, namespace, own=own, is_attended=is_attended())


def agreement(*, is_given: bool) -> Agree:
    """Return a function that asks the user, unless the line has said yes."""
    otherwise = "add --yes to the line of the cell"
    return lambda sentence: is_given or ask_yes(f"{sentence} Go on?", otherwise)


def next_in_session(word: str, client: Client, *, is_agreed: bool) -> NextCell:
    """Return the next cell of a session, and tell the user what it continues.

    Args:
        word: the session's.
        is_agreed: whether the line has agreed to what another machine has written.

    Raises:
        OptionError: the user does not agree to a snapshot that this machine does not know.
        RequestRefused: the server keeps no sessions.
    """
    may_take = agreement(is_given=is_agreed)
    found = next_cell(workspace(), client, session_meant(word), agree=may_take)
    if found.greeting:
        say(found.greeting)
    return found


def say_end_in_session(run: Run, cell: NextCell, problem: str = "") -> None:
    """Print what the session keeps of a cell that did not complete.

    Args:
        problem: why the session does not go on from what the cell has saved; empty if it does.
    """
    saved = run.harvest.session
    name = session_title(cell.step.key, cell.step.title, cell.step.branch)
    before = f"cell {cell.before}" if cell.before else "empty"
    if problem:
        say(problem)
    elif saved is not None and saved.error:
        stands = f"session {name} stays at {before}" if cell.before else f"session {name} is empty"
        say(f"{stands}: {one_line(saved.error)}")
    elif run.state is State.COMPLETED:
        return
    elif saved is not None:
        say(f"session {name} keeps what the cell had assigned, as cell {saved.cell}")
    else:
        stays = f"stays at {before}" if cell.before else "stays empty"
        say(f"session {name} {stays}: the cell ended before it could be saved")
