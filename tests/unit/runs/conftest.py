"""A session of a test's own, closed behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lyceum_magic.session import Session


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session()
    yield session
    session.close()
