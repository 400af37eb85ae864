"""Files of a container's root, which a server of another user is to remove."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker as sdk
import pytest

from lyceum_magic.server.runners.engine import leftovers

from .runs import docker

NOBODY = 65534


@pytest.fixture
def closed(image: str) -> Iterator[Path]:
    """The folder of a plain user in which a container left files that only root can remove."""
    # Not below pytest's own folder, which is its user's alone.
    folder = Path(tempfile.mkdtemp())
    (folder / "data").mkdir()
    subprocess.run(["chown", "-R", str(NOBODY), folder], check=True)
    script = "mkdir -p /data/a/b && echo x >/data/a/b/c && chmod 700 /data/a && ln -s /etc /data/l"
    docker("run", "--rm", "--volume", f"{folder}/data:/data", image, "sh", "-c", script)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def image_with_chmod(image: str) -> Iterator[str]:
    docker("run", "--name", "maker", image, "sh", "-c", "ln -s busybox /bin/chmod")
    made = docker("commit", "maker")
    docker("rm", "maker")
    yield made
    docker("rmi", made)


def test_what_root_left_can_be_removed_afterwards(
    closed: Path, image: str, image_with_chmod: str
) -> None:
    removal = ["rm", "-rf", f"{closed}/data/a"]
    assert subprocess.run(removal, user=NOBODY, capture_output=True, check=False).returncode
    before = Path("/etc").stat().st_mode
    engine = sdk.from_env()
    try:
        images = [image, image_with_chmod]  # the first has none
        assert not leftovers.make_removable(engine, closed, images[:1], {})
        assert leftovers.make_removable(engine, closed, images, {})
    finally:
        engine.close()
    assert Path("/etc").stat().st_mode == before
    assert docker("ps", "--all", "--quiet") == ""
    subprocess.run(removal, user=NOBODY, check=True)


def test_only_files_of_others_are_told(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not leftovers.are_there(closed)  # root removes what it likes
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert leftovers.are_there(closed)
    assert not leftovers.are_there(closed / "nothing")
