"""A workspace of a test's own in the place of the process's."""

from __future__ import annotations

import os

from lyceum_magic.runs.once import Once
from lyceum_magic.runs.workspace import Workspace


def only(workspace: Workspace) -> Once[int, Workspace]:
    """Return what `lyceum_magic.runs.workspace` keeps if this is the process's workspace."""
    workspaces: Once[int, Workspace] = Once()
    workspaces.get(os.getpid(), lambda: workspace)
    return workspaces
