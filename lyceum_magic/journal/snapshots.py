"""The snapshots of sessions that this machine has started, written or agreed to, in the journal.

A run continues a snapshot by loading pickles, which run code. So a session is continued without a
question only from a snapshot that is known here.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ..protocol.ages import DAY_S

#: Days that a snapshot stays known. The server removes most of them long before.
KNOWN_DAYS = 365


@dataclass(frozen=True)
class Carried:
    """The things of earlier cells that later cells of a session need to load their state.

    Attributes:
        requirements: requirement lines.
        modules: names of the user's own modules.
    """

    requirements: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownSnapshot:
    """A snapshot of a session.

    Attributes:
        server: the folder or the address of its server.
        session: the key of its session.
        sha256: of its manifest, in hexadecimal; empty until its run has said so.
        tag: of the run that writes it; empty if another machine has written it.
    """

    server: str
    session: str
    id: str
    sha256: str = ""
    tag: str = ""
    carried: Carried = field(default_factory=Carried)


class Snapshots:
    """The table of snapshots.

    Args:
        writing: a context manager that translates the database's errors.
    """

    def __init__(
        self, db: sqlite3.Connection, writing: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._db = db
        self._writing = writing

    def write(self, snapshot: KnownSnapshot) -> None:
        """Write a snapshot, new or changed.

        Raises:
            JournalUnavailable: the database cannot be written.
        """
        carried = json.dumps([snapshot.carried.requirements, snapshot.carried.modules])
        with self._writing():
            self._db.execute(
                "INSERT INTO snapshots (id, server, session, sha256, tag, carried, noted_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "server = excluded.server, session = excluded.session, "
                "sha256 = excluded.sha256, tag = excluded.tag, carried = excluded.carried",
                [
                    snapshot.id, snapshot.server, snapshot.session, snapshot.sha256, snapshot.tag,
                    carried, time.time(),
                ],
            )  # fmt: skip

    def note_saved(self, tag: str, snapshot_id: str, sha256: str) -> None:
        """Write down the digest of the snapshot that a run was to write, and has written.

        Raises:
            JournalUnavailable: the database cannot be written.
        """
        with self._writing():
            self._db.execute(
                "UPDATE snapshots SET sha256 = ? WHERE id = ? AND tag = ? AND tag <> ''",
                [sha256, snapshot_id, tag],
            )

    def find(self, snapshot_id: str) -> KnownSnapshot | None:
        """Return a snapshot by its id; None if it is not known here."""
        row = self._db.execute("SELECT * FROM snapshots WHERE id = ?", [snapshot_id]).fetchone()
        if row is None:
            return None
        return KnownSnapshot(
            row["server"], row["session"], row["id"], row["sha256"], row["tag"],
            _carried(row["carried"]),
        )  # fmt: skip

    def forget_before(self, now: float) -> None:
        """Forget the snapshots that were noted too long before a moment."""
        with self._writing():
            self._db.execute("DELETE FROM snapshots WHERE noted_at < ?", [now - KNOWN_DAYS * DAY_S])


def _carried(text: str) -> Carried:
    try:
        parts: Any = json.loads(text)
        requirements, modules = parts
    except (ValueError, TypeError):
        return Carried()
    return Carried(tuple(map(str, requirements)), tuple(map(str, modules)))
