"""The parts of a server are opened and closed together."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyceum_magic.config import Secret
from lyceum_magic.server.app import create_app
from lyceum_magic.server.settings import ServerSettings
from tests.tools.stores import FaultyStore

from .fake_runner import FakeRunner

pytestmark = pytest.mark.anyio


class NotingRunner(FakeRunner):
    """Notes in `told` when it is opened and closed."""

    def __init__(self, name: str, told: list[str], *, fails: bool = False) -> None:
        super().__init__()
        self._name = name
        self._told = told
        self._fails = fails

    async def open(self) -> None:
        if self._fails:
            raise OSError("no room")
        self._told.append(f"{self._name} opens")

    async def close(self) -> None:
        self._told.append(f"{self._name} closes")


async def test_what_was_opened_is_closed_where_another_part_fails(tmp_path: Path) -> None:
    told: list[str] = []

    async def note() -> None:
        told.append("store closes")

    store = FaultyStore()
    store.after["close"] = note
    app = create_app(
        ServerSettings(tmp_path, 1, Secret("lk_test")),
        store=store,
        runners={
            "process": NotingRunner("first", told),
            "container": NotingRunner("second", told, fails=True),
            "compose": NotingRunner("third", told),
        },
    )
    with pytest.raises(OSError, match="no room"):
        async with app.router.lifespan_context(app):
            pytest.fail("it must not begin to serve")
    assert told == ["first opens", "first closes", "store closes"]
