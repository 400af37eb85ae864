"""`lyceum-magic keys`: keys for other clients, on a server that it finds or starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from lyceum_magic.protocol import paths
from tests.integration.test_lyceum_cli import Lyceum
from tests.tools.embedded import server_facts
from tests.tools.served_process import served
from tests.tools.waiting import CLIENT_LIMIT_S

LIMIT_S = 120


def keys(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lyceum_magic.cli", "keys", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def made(*arguments: str) -> tuple[str, str]:
    """A key that was made, and what was said of it."""
    done = keys("create", *arguments)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"lk_[\w-]{43}\n", done.stdout)
    assert done.stdout.strip() not in done.stderr
    return done.stdout.strip(), done.stderr


def opens(folder: Path, key: str) -> bool:
    url = f"{server_facts(folder)['base_url']}{paths.ORG}"
    reply = httpx.get(
        url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=CLIENT_LIMIT_S
    )
    return reply.status_code == 200


def test_a_key_is_made_listed_and_revoked_on_a_server_that_is_started(own_machine: Path) -> None:
    key, said = made("for ci")
    assert opens(own_machine, key)
    assert key != server_facts(own_machine)["api_key"]
    (day,) = re.findall(r"good until (\S+ \S+);", said)
    in_a_month = datetime.now() + timedelta(days=30)
    assert abs(datetime.strptime(day, "%Y-%m-%d %H:%M") - in_a_month) < timedelta(hours=2)
    assert f"--url {server_facts(own_machine)['base_url']} --manual" in said
    listed = keys("list").stdout
    assert "for ci" in listed
    assert day in listed
    assert key not in listed
    assert key[:8] in listed
    assert "until its server ends" in listed
    revoked = keys("revoke", "for ci")
    assert (revoked.returncode, revoked.stderr) == (0, "")
    assert not opens(own_machine, key)
    assert "for ci" not in keys("list").stdout


def test_a_key_lives_as_long_as_it_is_told_to(own_machine: Path) -> None:
    _, said = made("short", "--days", "2")
    (day,) = re.findall(r"good until (\S+) ", said)
    assert day == (datetime.now() + timedelta(days=2)).strftime("%Y-%m-%d")
    _, said = made("long", "--no-expiry")
    assert "good until it is revoked" in said


def test_the_official_client_works_with_such_a_key_until_it_is_revoked(
    own_machine: Path, tmp_path: Path
) -> None:
    key, _ = made("laptop")
    lyceum = Lyceum(tmp_path / "user")
    url = server_facts(own_machine)["base_url"]
    assert lyceum("auth", "login", "--url", url, "--api-key", key).returncode == 0
    assert "hello" in lyceum("python", "run", "print('hello')").stdout
    assert keys("revoke", "laptop").returncode == 0
    assert lyceum("jobs", "list").returncode == 1


def test_a_server_with_a_folder_of_its_own_has_its_own_keys(
    own_machine: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "by hand"
    with served(folder) as server:
        key, said = made("ci", "--state-dir", str(folder))
        assert server.base_url in said
        assert opens(folder, key)
        assert "ci" in keys("list", "--state-dir", str(folder)).stdout
        assert keys("revoke", "ci", "--state-dir", str(folder)).returncode == 0
        assert not opens(folder, key)
    assert not own_machine.exists()


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["create", ""], "1 to 255 printable"),
        (["create", "   "], "1 to 255 printable"),
        (["create", "x" * 256], "1 to 255 printable"),
        (["create", "red \x1b[31m"], "1 to 255 printable"),
        (["create", "two\nlines"], "1 to 255 printable"),
        (["create", os.fsdecode(b"\xff")], "1 to 255 printable"),
        (["revoke", "nobody"], "keys list"),
        (["revoke", ""], "keys list"),
        (["revoke", "this machine"], "server.json"),
    ],
)
def test_bad_input_is_one_sentence(own_machine: Path, arguments: list[str], advice: str) -> None:
    done = keys(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert advice in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "a month", "1e9"])
def test_a_life_that_is_none_is_refused(own_machine: Path, days: str) -> None:
    done = keys("create", "ci", "--days", days)
    assert (done.returncode, done.stdout) == (2, "")
    assert "days" in done.stderr.splitlines()[-1]
    assert not own_machine.exists()


def test_a_name_means_one_key(own_machine: Path) -> None:
    made("ci")
    again = keys("create", "ci")
    assert (again.returncode, again.stdout) == (1, "")
    assert "already" in again.stderr
    facts = server_facts(own_machine)
    headers = {"Authorization": f"Bearer {facts['api_key']}"}
    url = f"{facts['base_url']}{paths.KEYS}"
    # Another client gave a second key the same name.
    other = httpx.post(
        url, json={"key_name": "ci"}, headers=headers, trust_env=False, timeout=CLIENT_LIMIT_S
    ).json()
    refused = keys("revoke", "ci")
    assert refused.returncode == 1
    assert "2 keys" in refused.stderr
    assert other["id"] in refused.stderr
    assert keys("revoke", other["id"][:13]).returncode == 0
    assert keys("revoke", "ci").returncode == 0
