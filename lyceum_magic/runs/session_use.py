"""The sessions that one process uses: the present branch of each, and what it has been told."""

from __future__ import annotations

import uuid

from ..outputs.decoding import SessionSaved
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
        self._lost: dict[str, dict[str, tuple[int, str]]] = {}

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

    def note(self, saved: SessionSaved) -> None:
        """Note what a cell has not kept."""
        lost = self._lost.setdefault(saved.key, {})
        lost |= {name: (saved.cell, reason) for name, reason in saved.lost}

    def lost(self, key: str, name: str) -> tuple[int, str] | None:
        """Return the cell after which a variable was not kept, and the reason; None if unknown."""
        return self._lost.get(key, {}).get(name)
