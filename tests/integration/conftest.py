"""A server for all tests of a module that need one and leave it as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.embedded import end_server


@pytest.fixture(scope="module")
def _state_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("module") / "lyceum"
    yield folder
    end_server(folder)


@pytest.fixture
def shared_server(
    own_machine: Path, _state_of_the_module: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Let the test's programs use the module's server, with an empty journal; give its folder."""
    monkeypatch.setenv("LYCEUM_MAGIC_HOME", str(_state_of_the_module))
    shutil.rmtree(_state_of_the_module / "journal", ignore_errors=True)
    return _state_of_the_module
