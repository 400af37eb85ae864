"""The session that a word means: a name, or this notebook's own session."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from ..display.session import session_title
from ..exceptions import OptionError
from ..protocol.lines import one_line
from ..protocol.session_names import is_session_name, key_of_notebook
from ..protocol.sessions import MAIN_BRANCH, MAX_TITLE
from ..runs.history import NOTEBOOK_VARIABLE
from ..submission.specs import OWN_SESSION

#: The variable of the namespace in which VS Code says which notebook a kernel belongs to.
_VS_CODE = "__vsc_ipynb_file__"


@dataclass(frozen=True)
class SessionName:
    """A session: the key that names it on the server, and the title that users read."""

    key: str
    title: str

    def shown(self, branch: str = MAIN_BRANCH) -> str:
        """Return a session and its branch in the words of messages: `train`, `train/try`."""
        return session_title(self.key, self.title, branch)


def session_named(
    word: str, namespace: Mapping[str, object], *, own: str, is_attended: bool
) -> SessionName:
    """Return the session that a word means.

    Args:
        word: a name, a key, or `notebook`.
        namespace: the kernel's.
        own: names the session of a kernel without a notebook that is known.
        is_attended: whether a user may look on. nbclient and papermill begin with an empty session,
            also where they inherit the name of the notebook that started them.

    Raises:
        OptionError: it is no name.
    """
    if word != OWN_SESSION:
        if not is_session_name(word):
            raise OptionError(
                f"A session has a name of a-z, 0-9, '.', '_' and '-', such as train, not {word!r}."
            )
        return SessionName(word, word)
    path = _notebook(namespace) if is_attended else ""
    title = one_line(os.path.basename(path) or "this kernel", MAX_TITLE)
    return SessionName(key_of_notebook(platform.node(), path or own), title)


def _notebook(namespace: Mapping[str, object]) -> str:
    """Return the absolute path of the kernel's notebook; empty if it is not known."""
    known = namespace.get(_VS_CODE)
    path = known if isinstance(known, str) else os.environ.get(NOTEBOOK_VARIABLE, "")
    return os.path.abspath(path) if path else ""
