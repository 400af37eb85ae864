"""The sessions that one process uses: the present branch of each, and which have begun."""

from __future__ import annotations

import uuid

from ..protocol.sessions import MAIN_BRANCH


class SessionUse:
    """The use that one process makes of sessions.

    Attributes:
        own: marks the session of a kernel that belongs to no notebook.
    """

    def __init__(self) -> None:
        self.own = uuid.uuid4().hex
        self._branches: dict[str, str] = {}
        self._begun: set[str] = set()

    def branch(self, key: str) -> str:
        """Return the branch of a session on which this process works."""
        return self._branches.get(key, MAIN_BRANCH)

    def switch(self, key: str, branch: str) -> None:
        """Work on a branch of a session from now on."""
        self._branches[key] = branch

    def forget(self, key: str) -> None:
        """Forget a session that was removed, or one of whose branches was."""
        self._branches.pop(key, None)

    def begin(self, key: str) -> bool:
        """Note a cell of a session, and return whether it is the first of this process."""
        is_first = key not in self._begun
        self._begun.add(key)
        return is_first
