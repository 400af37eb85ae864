"""The surroundings of every test: a machine of its own, as far as this package can see one.

No variable, login or server of the user who runs the tests reaches a test, and no server that a
test started outlives it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.embedded import end_server
from tests.tools.samples import mark_exhaustive, mark_not_quick, set_number_of_examples

_HOME = Path.home()


def pytest_configure(config: pytest.Config) -> None:
    set_number_of_examples(config.option.markexpr)


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_exhaustive(items)
    mark_not_quick(items)


@pytest.fixture
def anyio_backend() -> str:
    """The one event loop that this package runs on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home and state folder, no credentials, no proxy; gives the state folder."""
    for name in list(os.environ):
        is_ours = name.startswith("LYCEUM_") or name == "JPY_SESSION_NAME"
        if is_ours or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home, state = tmp_path / "home", tmp_path / "lyceum"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    # What installers have downloaded before is no secret, and saves the network.
    monkeypatch.setenv("UV_CACHE_DIR", os.environ.get("UV_CACHE_DIR") or str(_HOME / ".cache/uv"))
    monkeypatch.setenv("LYCEUM_MAGIC_HOME", str(state))
    yield state
    end_server(state)
