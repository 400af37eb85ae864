"""The errors of sessions; each message is a sentence for the user."""

from __future__ import annotations

from ...exceptions import EmbeddedServerError, LyceumError


class UnknownSession(LyceumError):
    """No session has the name."""


class UnknownSnapshot(LyceumError):
    """A session has no snapshot with the id, or no branch of the name."""


class SessionConflict(LyceumError):
    """A session is in another state than the request expects, or a run works on it."""


class SnapshotRefused(SessionConflict):
    """A run has left something else than its snapshot."""


class SnapshotDamaged(LyceumError):
    """A snapshot's files are gone or were changed."""


class SessionFull(LyceumError):
    """A session takes more room than it may."""


class SessionsUnavailable(EmbeddedServerError):
    """The files of sessions cannot be read or written now: the disk is full or fails."""
