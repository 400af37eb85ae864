"""The settings of the embedded server. `create_app` reads them, and passes each part its share."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Literal

from ..config import Secret

Profile = Literal["local", "shared"]

#: The one organisation of an embedded server, and the name of its bucket.
ORG_SLUG = "local"

DEFAULT_MAX_RUNNING = 8
DEFAULT_KEEP_DAYS = 30.0
DEFAULT_KEEP_BYTES = 10 * 2**30
DEFAULT_KEEP_SESSION_DAYS = 7.0

_NO_KEY = Secret("")


@dataclass(frozen=True)
class ServerSettings:
    """The settings of one server process, from the command line.

    Attributes:
        state_dir: The folder for everything the server keeps, on a local disk. `serve` makes it
            with mode 0700.
        port: The port to listen on; the Host header of every request must name it. 0: the port of
            the last server of this folder, or any free one.
        api_key: The key in `server.json`, for the clients of this machine. `serve` sets it.
        earlier: The folder of an earlier version, whose state moves to `state_dir`; None for no
            such move.
        profile: `local`: for this user alone. `shared`: for others too.
        max_running: The most runs at a time; further runs wait.
        index_url: The package index for requirements; None for the installer's own.
        find_links: A folder of wheels for requirements.
        memory_limit_bytes: The most memory that a Python run may use; None for no limit.
        allow_privileged: Whether services of a stack may be privileged.
        keep_days: How long ended runs are kept.
        keep_bytes: The most bytes that ended runs may take; the oldest are removed first.
        keep_session_days: How long a session without kept snapshots stays after its last change.
        idle_exit_s: The server ends after this time without a live run or a follower, unless a
            callback is due within the same time. None: it goes on.
    """

    state_dir: Path
    port: int = 0
    api_key: Secret = _NO_KEY
    _: KW_ONLY
    earlier: Path | None = None
    profile: Profile = "local"
    max_running: int = DEFAULT_MAX_RUNNING
    index_url: str | None = field(default=None, repr=False)  # it may hold a password
    find_links: str | None = field(default=None, repr=False)
    memory_limit_bytes: int | None = None
    allow_privileged: bool = False
    keep_days: float = DEFAULT_KEEP_DAYS
    keep_bytes: int = DEFAULT_KEEP_BYTES
    keep_session_days: float = DEFAULT_KEEP_SESSION_DAYS
    idle_exit_s: float | None = None

    @property
    def bucket(self) -> Path:
        """The account's storage: the folder that stands for its one bucket."""
        return self.state_dir / "storage" / ORG_SLUG

    @property
    def uploads(self) -> Path:
        """The folder of uploads that are not complete yet."""
        return self.state_dir / "uploads"
