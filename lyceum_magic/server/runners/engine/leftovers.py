"""Files that containers leave in a run's folder, where the server's user may not remove them.

The root of an engine's containers writes files that a server of another user may not remove. Only
that root can change their modes, so a container of an image that is there anyway opens them to
every user. The folder around them is the server's alone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient

_TARGET = "/leftovers"


def are_there(folder: Path) -> bool:
    """Return whether another user owns files below `folder`, which we may not remove."""
    user = os.geteuid()
    if not user or not folder.exists():
        return False
    # Not os.walk(): programs nest folders deeper than Python 3.11 can follow.
    search = ["find", os.fspath(folder), "!", "-user", str(user), "-print", "-quit"]
    return bool(subprocess.run(search, capture_output=True, check=False).stdout)


def make_removable(
    engine: DockerClient, folder: Path, images: Iterable[str], labels: Mapping[str, str]
) -> bool:
    """Let everyone remove what is below `folder`, with the first image that can. Blocks.

    Args:
        images: some may have no `chmod`.
        labels: mark the container that does it, should this process die.

    Returns:
        Whether one of them could.
    """
    return any(_opened_with(engine, image, folder, labels) for image in images)


def _opened_with(engine: DockerClient, image: str, folder: Path, labels: Mapping[str, str]) -> bool:
    from docker.errors import APIError
    from docker.types import LogConfig, Mount

    container = engine.containers.create(
        image,
        ["-R", "a+rwX,-t", _TARGET],
        entrypoint="chmod",
        user="0",
        network_disabled=True,
        mounts=[Mount(_TARGET, os.fspath(folder), type="bind")],
        labels=dict(labels),
        log_config=LogConfig(type=LogConfig.types.NONE),
    )
    try:
        container.start()
        return container.wait()["StatusCode"] == 0
    except APIError:  # there is no such program in it
        return False
    finally:
        container.remove(v=True, force=True)
