"""The account, as the official client and our own see it: keys, tokens, secrets, organisation."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest

from lyceum_magic import config
from lyceum_magic.client.api import Client
from lyceum_magic.exceptions import NotAuthorised
from lyceum_magic.protocol import paths
from tests.integration.test_lyceum_cli import Lyceum, log_in
from tests.tools.served_process import ServedProcess, served
from tests.tools.waiting import CLIENT_LIMIT_S


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    with served(tmp_path_factory.mktemp("account") / "state") as server:
        yield server


@pytest.fixture
def lyceum(server: ServedProcess, tmp_path: Path) -> Lyceum:
    lyceum = Lyceum(tmp_path / "user")
    assert log_in(lyceum, server, server.facts()["api_key"]).returncode == 0
    return lyceum


def said(lyceum: Lyceum, *arguments: str, code: int = 0) -> str:
    """The output of a command that ends as it should."""
    done = lyceum(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_key_is_made_used_switched_off_and_revoked(
    lyceum: Lyceum, server: ServedProcess, tmp_path: Path
) -> None:
    made = said(lyceum, "auth", "keys", "create", "for ci", "--expires-at", "2999-01-01T00:00:00Z")
    (key,) = re.findall(r"lk_[\w-]+", made)
    rows = lyceum.json("auth", "keys", "list")
    assert [row["key_name"] for row in rows] == ["this machine", "for ci"]
    assert key not in json.dumps(rows)
    assert "2999-01-01" in said(lyceum, "auth", "keys", "list")
    other = Lyceum(tmp_path / "other")
    assert log_in(other, server, key).returncode == 0
    assert "hello" in said(other, "python", "run", "print('hello')")
    key_id = rows[1]["id"]
    assert "inactive" in said(lyceum, "auth", "keys", "toggle", key_id)
    assert "switched off" in said(other, "jobs", "list", code=1)
    assert "now active" in said(lyceum, "auth", "keys", "toggle", key_id)
    said(other, "jobs", "list")
    assert "Revoked" in said(lyceum, "auth", "keys", "revoke", key_id)
    said(other, "jobs", "list", code=1)
    assert "No API key" in said(lyceum, "auth", "keys", "revoke", key_id, code=1)
    assert "server.json" in said(lyceum, "auth", "keys", "revoke", rows[0]["id"], code=1)


def test_variables_are_set_listed_and_removed(lyceum: Lyceum) -> None:
    for name in ("FIRST", "SECOND", "THIRD"):
        assert f"Set {name}" in said(lyceum, "env", "set", name, f"secret of {name}")
    listed = said(lyceum, "env", "list")
    assert all(name in listed for name in ("FIRST", "SECOND", "THIRD"))
    assert "secret of" not in listed + json.dumps(lyceum.json("env", "list"))
    program = "import os; print(os.environ['FIRST'], len(os.environ['FIRST']))"
    assert said(lyceum, "python", "run", program).startswith("*** 15\n")
    assert "Deleted FIRST" in said(lyceum, "env", "rm", "FIRST")
    assert [row["name"] for row in lyceum.json("env", "list")] == ["SECOND", "THIRD"]
    said(lyceum, "env", "rm", "FIRST", code=1)
    assert "another name" in said(lyceum, "env", "set", "PATH", "/nowhere", code=1)
    assert "Deleted all" in said(lyceum, "env", "rm", "--all", "--force")
    assert lyceum.json("env", "list") == []


def test_the_one_organisation_is_listed_used_and_left(lyceum: Lyceum) -> None:
    assert "local" in said(lyceum, "org", "list")
    assert "local" in said(lyceum, "org", "current")
    assert "Active org set to local" in said(lyceum, "org", "use", "local")
    assert "local" in said(lyceum, "org", "show")
    assert "hello" in said(lyceum, "python", "run", "print('hello')")
    assert "local" in said(lyceum, "org", "use", "acme", code=1)
    assert "cleared" in said(lyceum, "org", "unset")
    said(lyceum, "--org", "acme", "jobs", "list", code=1)


def test_what_is_not_here_is_said_in_a_sentence(lyceum: Lyceum) -> None:
    for arguments in (("vm", "list"), ("infer", "models"), ("org", "members", "list", "local")):
        assert "not part of the embedded server" in said(lyceum, *arguments, code=1)


# Tokens.


def sign_in(server: ServedProcess) -> dict[str, str]:
    body = {"email": "somebody@example.org", "password": server.facts()["api_key"]}
    reply = httpx.post(
        f"{server.base_url}{paths.LOGIN}", json=body, trust_env=False, timeout=CLIENT_LIMIT_S
    )
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def expired_token() -> str:
    """The token's content as the client sees it, which does not verify it."""
    return jwt.encode({"exp": int(time.time()) - 10}, "a key of 256 bits at least, made up")


def write_login(home: Path, server: ServedProcess, token: str, refresh_token: str) -> Path:
    file = home / ".lyceum" / "config.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    login = {"api_key": token, "base_url": server.base_url, "refresh_token": refresh_token}
    file.write_text(json.dumps(login))
    file.chmod(0o600)
    return file


def test_the_official_client_renews_an_expired_token_and_goes_on(
    server: ServedProcess, tmp_path: Path
) -> None:
    lyceum = Lyceum(tmp_path / "user")
    stale = expired_token()
    file = write_login(tmp_path / "user", server, stale, sign_in(server)["refresh_token"])
    assert "hello" in said(lyceum, "python", "run", "print('hello')")
    renewed = json.loads(file.read_text())
    assert renewed["api_key"] != stale
    assert renewed["api_key"].count(".") == 2
    assert "Token" not in said(lyceum, "jobs", "list")  # it is good now


def test_a_refresh_token_that_is_wrong_is_said_to_be(server: ServedProcess, tmp_path: Path) -> None:
    lyceum = Lyceum(tmp_path / "user")
    write_login(tmp_path / "user", server, expired_token(), sign_in(server)["access_token"])
    assert "Sign in again" in " ".join(said(lyceum, "jobs", "list", code=1).split())


@pytest.mark.anyio
async def test_our_own_client_renews_an_expired_token_and_goes_on(server: ServedProcess) -> None:
    stale = expired_token()
    file = write_login(Path.home(), server, stale, sign_in(server)["refresh_token"])
    account = config.find_account({})
    assert account is not None
    async with Client(account) as client:
        assert (await client.org())["slug"] == "local"
    assert json.loads(file.read_text())["api_key"] != stale
    write_login(Path.home(), server, stale, sign_in(server)["access_token"])
    async with Client(config.find_account({})) as client:
        with pytest.raises(NotAuthorised, match="could not be renewed"):
            await client.org()
