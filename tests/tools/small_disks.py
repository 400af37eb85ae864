"""Small disks of a test's own, to be filled up: mounted in memory, which takes root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, options: str = "size=4m") -> Iterator[None]:
    """Mount a disk at a folder, which is made if it is not there.

    Where none can be mounted the test is skipped; in CI, where a skip goes unnoticed, it fails.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"{options},mode=700", "tmpfs", str(folder)]
    problem = "there is no mount(8)"
    if shutil.which("mount"):
        problem = subprocess.run(mount, capture_output=True, text=True, check=False).stderr.strip()
    if problem:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"no disk can be mounted here: {problem}")
    try:
        yield
    finally:
        # Lazily: what a test started may be ending in it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leave no room on the disk of a folder as long as the block lasts."""
    ballast = folder / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)
    try:
        yield
    finally:
        ballast.unlink()


def use_up_inodes(folder: Path) -> Callable[[], None]:
    """Make small files on the disk of a folder until it takes no more.

    Returns:
        Removes them.
    """
    names = []
    with suppress(OSError):
        while True:
            name = folder / f"small-{len(names)}"
            name.touch()
            names.append(name)

    def remove() -> None:
        for name in names:
            name.unlink()

    return remove
