"""What the embedded server is told once, at its start; every part gets its share as arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..config import Secret

Profile = Literal["local", "shared"]

#: The one organisation of an embedded server, and the name of its bucket.
ORG_SLUG = "local"

DEFAULT_MAX_RUNNING = 8
DEFAULT_KEEP_DAYS = 30.0
DEFAULT_KEEP_BYTES = 10 * 2**30


@dataclass(frozen=True)
class ServerSettings:
    """The settings of one server process.

    Attributes:
        state_dir: the folder of everything this server keeps; exists, 0700, on a local disk.
        port: where it listens; the Host header of every request must name it.
        api_key: the one key that opens it.
        boot_id: which boot of this machine, so that a process id of an earlier one is not trusted.
        profile: `local` (loopback) or `shared` (others may reach it).
        max_running: how many runs at a time; more of them wait.
        index_url: the package index for requirements; None means the installer's own.
        find_links: a folder of wheels for requirements.
        memory_limit_bytes: how much memory a process run may use; None for no limit.
        allow_privileged: whether services of a stack may be privileged.
        keep_days: how long ended runs are kept.
        keep_bytes: how much the folders of ended runs may take; the oldest leave first.
    """

    state_dir: Path
    port: int
    api_key: Secret
    boot_id: str
    profile: Profile = "local"
    max_running: int = DEFAULT_MAX_RUNNING
    index_url: str | None = field(default=None, repr=False)  # it may hold a password
    find_links: str | None = field(default=None, repr=False)
    memory_limit_bytes: int | None = None
    allow_privileged: bool = False
    keep_days: float = DEFAULT_KEEP_DAYS
    keep_bytes: int = DEFAULT_KEEP_BYTES

    @property
    def bucket(self) -> Path:
        """The account's storage: the folder that stands for its one bucket."""
        return self.state_dir / "storage" / ORG_SLUG
