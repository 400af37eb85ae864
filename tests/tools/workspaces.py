"""A test's own workspace in the place of the process's."""

from __future__ import annotations

import os

from lyceum_magic.runs.once import Once
from lyceum_magic.runs.workspace import Workspace


def only(workspace: Workspace) -> Once[int, Workspace]:
    """Return the value of `runs.workspace._workspaces` that makes this the process's workspace."""
    workspaces: Once[int, Workspace] = Once()
    workspaces.get(os.getpid(), lambda: workspace)
    return workspaces
