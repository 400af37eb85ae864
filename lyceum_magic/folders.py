"""The folders in which this user's runs are kept: settings and environment in, paths out."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from .exceptions import ConfigError

#: SQLite opens no file whose path has more than 512 bytes; names in the folder take the rest.
_MAX_FOLDER_BYTES = 400


def user_folder() -> Path:
    """Return the folder of all that belongs to this user.

    `LYCEUM_MAGIC_HOME` names it; without that, it is the platform's own place for such folders.

    Raises:
        ConfigError: its path is too long for the databases in it.
    """
    if home := os.environ.get("LYCEUM_MAGIC_HOME"):
        return _short_enough(Path(home).expanduser().absolute())
    import platformdirs

    return _short_enough(Path(platformdirs.user_state_path("lyceum-magic", appauthor=False)))


def _short_enough(folder: Path) -> Path:
    size = len(os.fsencode(folder))
    if size > _MAX_FOLDER_BYTES:
        raise ConfigError(
            f"The path of the folder for runs, {str(folder)[:60]}..., has {size:,} bytes, and may "
            f"have at most {_MAX_FOLDER_BYTES}; set LYCEUM_MAGIC_HOME to a folder with a shorter "
            "path."
        )
    return folder


def journal_folder() -> Path:
    """Return the folder of the journal."""
    return user_folder() / "journal"


def callback_folder() -> Path:
    """Return the folder in which callbacks to this user's notebooks arrive."""
    return user_folder() / "callbacks"


def server_folder(home: Path | None = None) -> Path:
    """Return the embedded server's state folder.

    Each environment has its own, named after `sys.prefix`, so that a kernel never runs on another
    environment's packages.

    Args:
        home: what `user_folder` returns in the processes that are meant; in this one if None.
    """
    digest = hashlib.sha256(sys.prefix.encode()).hexdigest()[:10]
    name = f"{Path(sys.prefix).name.lstrip('.')}-{digest}"
    return (home or user_folder()) / "servers" / name


def earlier_server_folder() -> Path | None:
    """Return where earlier versions kept the state of all environments: `LYCEUM_MAGIC_HOME` itself.

    Returns:
        None if the variable is not set: each environment then always had a folder of its own.
    """
    return user_folder() if os.environ.get("LYCEUM_MAGIC_HOME") else None
