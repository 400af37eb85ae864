from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lyceum_magic.server.stores.base import WholeStore
from lyceum_magic.server.stores.memory import MemoryStore
from lyceum_magic.server.stores.sqlite import SqliteStore
from lyceum_magic.server.vault import Vault


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[WholeStore]:
    """Each kind of store."""
    store: WholeStore = (
        MemoryStore()
        if request.param == "memory"
        else SqliteStore(tmp_path / "runs.sqlite3", Vault(tmp_path / "vault.key"))
    )
    await store.open()
    yield store
    await store.close()
