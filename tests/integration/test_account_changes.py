"""Changes of the account on a disk that takes nothing: done and kept, or refused and not begun."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import CLIENT_LIMIT_S


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@contextmanager
def full_disk(server: ServedProcess) -> Iterator[None]:
    """The server can write to no file, as on a full disk."""
    process = psutil.Process(server.process.pid)
    limits = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    yield
    process.rlimit(resource.RLIMIT_FSIZE, limits)


def new_key(server: ServedProcess) -> dict[str, Any]:
    reply = server.client.post(paths.KEYS, json={"key_name": "ci"})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def opens(server: ServedProcess, key: dict[str, Any]) -> bool:
    headers = {"Authorization": f"Bearer {key['api_key']}"}
    reply = httpx.get(
        f"{server.base_url}{paths.ORG}", headers=headers, trust_env=False, timeout=CLIENT_LIMIT_S
    )
    assert reply.status_code in (200, 401)
    return reply.status_code == 200


def refused(reply: httpx.Response) -> None:
    assert reply.status_code == 507
    assert "disk" in reply.json()["detail"]


def test_a_key_whose_revoking_was_refused_is_good_until_it_is_revoked(folder: Path) -> None:
    with served(folder) as server:
        key = new_key(server)
        with full_disk(server):
            refused(server.client.delete(paths.key(key["id"])))
            assert opens(server, key)
        server.end()
    with served(folder) as server:
        assert opens(server, key)
        assert server.client.delete(paths.key(key["id"])).status_code == 200
        assert not opens(server, key)
        server.end()
    with served(folder) as server:
        assert not opens(server, key)


def test_a_key_whose_switching_off_was_refused_is_on(folder: Path) -> None:
    with served(folder) as server:
        key = new_key(server)
        with full_disk(server):
            refused(server.client.patch(paths.toggle_key(key["id"])))
            assert opens(server, key)
        assert not server.client.patch(paths.toggle_key(key["id"])).json()["is_active"]
        server.end()
    with served(folder) as server:
        assert not opens(server, key)


def test_a_key_that_could_not_be_made_is_listed_nowhere(folder: Path) -> None:
    with served(folder) as server:
        with full_disk(server):
            refused(server.client.post(paths.KEYS, json={"key_name": "ci"}))
        assert [key["key_name"] for key in server.client.get(paths.KEYS).json()] == ["this machine"]


def test_secrets_stay_as_they_were(folder: Path) -> None:
    def value(server: ServedProcess) -> str:
        code = "import os; print(os.environ['TOKEN'][::-1])"
        started = server.start(code)
        server.client.post(started["streaming_url"])
        record = server.client.get(paths.record(started["execution_id"])).json()
        return str(record["stdout"]).strip()[::-1]

    def put(server: ServedProcess, value: str) -> httpx.Response:
        return server.client.post(paths.SECRETS, json={"key": "TOKEN", "value": value})

    with served(folder) as server:
        (secret,) = put(server, "first-value").json()["environment_variables"]
        with full_disk(server):
            refused(put(server, "second-value"))
            refused(server.client.delete(paths.secret(secret["id"])))
            refused(server.client.delete(paths.SECRETS))
        assert value(server) == "first-value"
        server.end()
    with served(folder) as server:
        assert value(server) == "first-value"


def test_callbacks_are_signed_as_before(folder: Path) -> None:
    with served(folder) as server:
        before = server.client.get(paths.SIGNING_SECRET).json()
        with full_disk(server):
            refused(server.client.post(paths.ROTATE_SIGNING_SECRET))
            assert server.client.get(paths.SIGNING_SECRET).json() == before
        server.end()
    with served(folder) as server:
        assert server.client.get(paths.SIGNING_SECRET).json() == before
