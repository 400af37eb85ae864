"""A network in which public addresses answer; run by `tests/tools/network-namespace`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .small_internet import SmallInternet, small_internet


@pytest.fixture(scope="session")
def _internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallInternet]:
    if not os.environ.get("NETWORK_NAMESPACE"):
        reason = os.environ.get("NO_NETWORK_NAMESPACE") or (
            "these tests need a network of their own: tests/tools/network-namespace pytest ..."
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with small_internet(tmp_path_factory.mktemp("internet")) as internet:
        yield internet


@pytest.fixture
def internet(_internet: SmallInternet, monkeypatch: pytest.MonkeyPatch) -> SmallInternet:
    """The receivers, without a request so far; the sender trusts them."""
    _internet.forget()
    monkeypatch.setenv("SSL_CERT_FILE", str(_internet.authority))
    return _internet


@pytest.fixture
def untrusted(internet: SmallInternet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of the receivers' authority, which the sender does not know."""
    monkeypatch.delenv("SSL_CERT_FILE")
    return internet.authority
