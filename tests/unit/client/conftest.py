"""A scripted server, a client of it, and pauses too short to notice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lyceum_magic.client import stream, transport
from lyceum_magic.client.api import Client
from tests.tools.wire_server import WireServer, wire_server


@pytest.fixture
async def wire() -> AsyncIterator[WireServer]:
    async with wire_server() as server:
        yield server


@pytest.fixture
async def foreign_wire() -> AsyncIterator[WireServer]:
    """Another origin than that of `wire`."""
    async with wire_server() as server:
        yield server


@pytest.fixture
async def client(wire: WireServer) -> AsyncIterator[Client]:
    async with Client(wire.account(org="team")) as client:
        yield client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(stream, "FIRST_POLL_S", 0.001)
    monkeypatch.setattr(stream, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(transport.RETRY_READS, "backoff_factor", 0.001)
