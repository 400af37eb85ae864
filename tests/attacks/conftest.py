"""A second user for the whole suite."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.stranger import NoSecondUser, Stranger, second_user


@pytest.fixture(scope="session")
def common_folder() -> Iterator[Path]:
    """A folder that everybody may enter and write to, as `/tmp` is."""
    folder = Path(tempfile.mkdtemp(prefix="lyceum-attacks-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def stranger(common_folder: Path) -> Iterator[Stranger]:
    """Another user of this machine."""
    try:
        with second_user(common_folder) as user:
            yield user
    except NoSecondUser as exc:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have a second user: {exc}")
        pytest.skip(str(exc))
