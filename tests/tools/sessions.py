"""A session of a test's own in the place of the process's."""

from __future__ import annotations

import os

from lyceum_magic.runs.once import Once
from lyceum_magic.session import Session


def only(session: Session) -> Once[int, Session]:
    """What `lyceum_magic.session` keeps where this is the process's session."""
    sessions: Once[int, Session] = Once()
    sessions.get(os.getpid(), lambda: session)
    return sessions
