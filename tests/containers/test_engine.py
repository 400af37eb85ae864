"""The engine as a server sees it."""

from __future__ import annotations

import asyncio
import os

from lyceum_magic.server.runners.engine.engine import Engine, connect


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_an_engine_lets_go_of_its_connections_and_can_be_used_again() -> None:
    async def use() -> None:
        engine = Engine()
        before = open_files()
        for _ in range(2):
            (await engine.client()).ping()
            assert open_files() > before
            engine.close()
            assert open_files() == before

    connect().close()  # what is imported and opened for good is by now
    asyncio.run(use())
