"""Sessions on the wire: names, limits, and the records that the embedded server sends.

Light to import: the types of requests are in `requests`.
"""

from __future__ import annotations

from typing import TypedDict

#: The server's name of this extension in the reply to `paths.HEALTH`, member `extensions`. A client
#: sends the field `session` of a start only to a server that lists it.
EXTENSION = "sessions"

#: Names of sessions and of branches. They are names of files too, so none begins with a dot.
KEY_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
BRANCH_PATTERN = KEY_PATTERN
#: A snapshot's id: 128 random bits, chosen by the client.
ID_PATTERN = r"^[0-9a-f]{32}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
MAX_TITLE = 200
MAX_CELL = 2**31 - 1
MAIN_BRANCH = "main"

#: The version of manifests that this package writes and reads.
MANIFEST_VERSION = 1
MAX_MANIFEST_BYTES = 16 * 2**20
#: Folders of a session, and what the names of their files end in.
PACKS, PACK_SUFFIX = "packs", ".pack"
MANIFESTS, MANIFEST_SUFFIX = "cells", ".json"
#: The variable that names the session's folder to a run of the embedded server, and the folder's
#: path in a container.
FOLDER_VARIABLE = "LYCEUM_SESSION_FOLDER"
FOLDER_IN_CONTAINER = "/lyceum-session"

#: Maximum bytes that one session takes on the server, and that the state after one cell has.
MAX_SESSION_BYTES = 5 * 2**30
#: Maximum bytes of a cell's pickles, buffers left out.
MAX_PICKLE_BYTES = 256 * 2**20
#: Maximum seconds from an interrupt to the cell's end, and of the save after it.
INTERRUPT_S = 3.0
SAVE_S = 60.0
#: Seconds from SIGTERM to SIGKILL for a run of a session.
GRACE_S = INTERRUPT_S + SAVE_S
#: Number of a session's newest snapshots that stay, beside heads and kept ones.
KEPT_CELLS = 20


class SnapshotName(TypedDict):
    """A snapshot: its id, and the SHA-256 of its manifest in hexadecimal."""

    id: str
    sha256: str


class HeadRecord(TypedDict):
    """The newest snapshot of a branch."""

    id: str
    sha256: str
    cell: int
    saved_at: str


class SessionRecord(TypedDict):
    """One session.

    Attributes:
        branches: Name -> head. A branch without a snapshot is not listed.
        kept: The ids of snapshots that collection spares.
        bytes: The size of all its files.
        cells: The number of its snapshots.
        busy: Branch -> the id of the run that works on it.
    """

    key: str
    title: str
    branches: dict[str, HeadRecord]
    kept: list[str]
    bytes: int
    cells: int
    busy: dict[str, str]
    created_at: str
    updated_at: str


class SnapshotRecord(TypedDict):
    """One snapshot of a session.

    Attributes:
        bytes: The size of the state that it restores. Several snapshots may share parts of it.
        variables: The number of variables in it.
    """

    id: str
    sha256: str
    cell: int
    branch: str
    parent: SnapshotName | None
    saved_at: str
    bytes: int
    variables: int
    kept: bool
