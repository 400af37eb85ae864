"""Secrets, keys, sign-ins and organisations over HTTP: exact replies, and sentences for errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.paths import PREFIX
from lyceum_magic.protocol.proof import digest_of, key_proof, public_part
from lyceum_magic.server.stores.base import KeyRecord
from lyceum_magic.server.stores.memory import MemoryStore
from tests.tools.waiting import CLIENT_LIMIT_S

from .serving import KEY, Served, serving

pytestmark = pytest.mark.anyio


def variable(name: str, value: str = "x") -> dict[str, str]:
    return {"name": name, "value": value}


@pytest.mark.parametrize(
    "body",
    [
        {"environment_variables": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"environment_variables": [{"key": "A", "value": "1"}, {"key": "B", "value": "2"}]},
        [{"key": "A", "value": "1", "is_secret": False}, {"name": "B", "value": "2", "more": 1}],
    ],
)
async def test_both_dialects_set_secrets_that_are_listed_without_values(
    tmp_path: Path, body: Any
) -> None:
    async with serving(tmp_path) as served:
        reply = await served.client.post(paths.SECRETS, json=body)
        assert reply.status_code == 200, reply.text
        listed = await served.client.get(paths.SECRETS)
        assert listed.status_code == 200
        assert listed.json() == reply.json()
        rows = listed.json()["environment_variables"]
        assert [(row["name"], row["value"]) for row in rows] == [("A", "***"), ("B", "***")]
        assert all(row["id"] and row["updated_at"].startswith("20") for row in rows)
        assert [row["is_secret"] for row in rows] == [not isinstance(body, list), True]


async def test_a_bare_object_replaces_and_each_removal_is_200(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for value in ("1", "2"):
            body = {"key": "A", "value": value}
            reply = await served.client.post(paths.SECRETS, json=body)
            assert reply.status_code == 200
        await served.client.post(paths.SECRETS, json=[variable("B"), variable("C")])
        rows = (await served.client.get(paths.SECRETS)).json()["environment_variables"]
        assert [row["name"] for row in rows] == ["A", "B", "C"]
        for status in (200, 404):
            reply = await served.client.delete(paths.secret(rows[0]["id"]))
            assert reply.status_code == status
        assert rows[0]["id"] in reply.json()["detail"]
        for _ in range(2):
            assert (await served.client.delete(paths.SECRETS)).status_code == 200
        listed = (await served.client.get(paths.SECRETS)).json()
        assert listed == {"environment_variables": []}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([variable("1A")], "should match pattern"),
        ([variable("A-B")], "should match pattern"),
        ([variable("A\n")], "should match pattern"),
        ([variable("")], "should match pattern"),
        ([variable("Ä")], "should match pattern"),
        ([variable("A" * 256)], "at most 255"),
        ([variable("PATH")], "choose another name"),
        ([variable("LD_LIBRARY_PATH")], "choose another name"),
        ([variable("LYCEUM_SECRET_NAMES")], "choose another name"),
        ([variable("A", "x\0y")], "NUL"),
        ([variable("A", "top-secret" * 4000)], "32768 bytes"),
        ([variable("A"), variable("B"), variable("A")], "A comes twice"),
        ([{"name": "A", "value": 5}], "valid string"),
        ([{"name": "A"}], "Field required"),
        ([{"value": "top-secret"}], "Field required"),
        ({"environment_variables": []}, "at least 1"),
        ({"environment_variables": "A=1"}, "valid list"),
        ({}, "Field required"),
        ([], "at least 1"),
        (["A=1"], "valid dictionary"),
        ("A=1", "valid list"),
        ([variable(f"N{number}") for number in range(101)], "at most 100"),
    ],
)
async def test_what_is_no_secret_is_refused_in_a_sentence_that_does_not_quote_it(
    tmp_path: Path, body: Any, said: str
) -> None:
    async with serving(tmp_path) as served:
        reply = await served.client.post(paths.SECRETS, json=body)
        assert reply.status_code == 422, reply.text
        assert said in reply.json()["detail"][0]["msg"]
        assert "top-secret" not in reply.text
        listed = (await served.client.get(paths.SECRETS)).json()
        assert listed == {"environment_variables": []}


async def test_half_a_surrogate_pair_is_no_value(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for body in (b'{"name": "A", "value": "x\\ud800"}', b'{"name": "A\\ud800", "value": "x"}'):
            reply = await served.client.post(
                paths.SECRETS, content=body, headers={"Content-Type": "application/json"}
            )
            assert reply.status_code == 422, reply.text


async def test_too_much_together_is_400(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        body = [variable(name, "x" * 30_000) for name in "ABC"]
        reply = await served.client.post(paths.SECRETS, json=body)
        assert reply.status_code == 400
        assert "Remove one first" in reply.json()["detail"]


async def test_a_run_is_started_with_the_secrets_of_its_moment(tmp_path: Path) -> None:
    async with serving(tmp_path, max_running=1) as served:
        await served.client.post(paths.SECRETS, json=variable("A", "1"))
        await served.start()
        first = await served.runner.next_run()
        await served.start()
        await served.client.post(paths.SECRETS, json=[variable("A", "2"), variable("B", "3")])
        first.end()
        second = await served.runner.next_run()
        second.end()
    assert first.run_order.environment == {"A": "1"}
    assert second.run_order.environment == {"A": "2", "B": "3"}
    assert "environment" not in repr(second.run_order)


# AccountKeys.


async def test_a_key_is_shown_once_and_opens_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        body = {"key_name": "ci", "expires_at": "2999-01-01T00:00:00+02:00"}
        reply = await served.client.post(paths.KEYS, json=body)
        assert reply.status_code == 200, reply.text
        made = reply.json()
        assert made["api_key"].startswith("lk_")
        assert made["key_prefix"] == made["api_key"][:8]
        assert made["expires_at"] == "2998-12-31T22:00:00+00:00"
        own = {"Authorization": f"Bearer {made['api_key']}"}
        listed = await served.client.get(paths.KEYS, headers=own)
        assert listed.status_code == 200
        assert made["api_key"] not in listed.text
        mine, ci = listed.json()
        assert (mine["key_name"], mine["key_prefix"]) == ("this machine", KEY[:8])
        assert {"id", "key_name", "key_prefix", "is_active", "last_used_at", "created_at"} <= set(
            ci
        )
        assert ci["last_used_at"] is not None
        toggled = await served.client.patch(paths.toggle_key(ci["id"]))
        assert (toggled.status_code, toggled.json()["is_active"]) == (200, False)
        assert (await served.client.get(paths.ORG, headers=own)).status_code == 401
        for status in (200, 404):
            assert (await served.client.delete(paths.key(ci["id"]))).status_code == status
        assert (await served.client.patch(paths.toggle_key(ci["id"]))).status_code == 404
        refused = await served.client.delete(paths.key(mine["id"]))
        assert refused.status_code == 409
        assert "server.json" in refused.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key_name": ""},
        {"key_name": "x" * 256},
        {"key_name": 5},
        {"key_name": "a", "expires_at": "tomorrow"},
        {"key_name": "a", "expires_at": "2001-01-01T00:00:00"},
        {"key_name": "a", "expires_at": "9999-12-31T23:59:59-14:00"},
        {"key_name": "a", "expires_at": 1e30},
    ],
)
async def test_what_is_no_key_is_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    async with serving(tmp_path) as served:
        reply = await served.client.post(paths.KEYS, json=body)
        assert reply.status_code == 422, reply.text
        assert len((await served.client.get(paths.KEYS)).json()) == 1


async def test_keys_are_validated(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        made = (await served.client.post(paths.KEYS, json={"key_name": "ci"})).json()
        for body, is_valid in (
            (None, True),
            ({"api_key": KEY}, True),
            ({"api_key": made["api_key"]}, True),
            ({"api_key": "lk_wrong"}, False),
            ({"api_key": ""}, False),
        ):
            reply = await served.client.post(paths.VALIDATE_KEY, json=body)
            assert (reply.status_code, reply.json()["valid"]) == (200, is_valid)


# Proving that it knows one.

NONCE = "0123456789abcdef"


async def proofs(served: Served, part: str) -> list[str]:
    """Return the proofs that any client can ask for."""
    async with httpx.AsyncClient(
        base_url=served.base_url, trust_env=False, timeout=CLIENT_LIMIT_S
    ) as stranger:
        reply = await stranger.get(paths.HEALTH, params={"nonce": NONCE, "key": part})
    assert reply.status_code == 200, reply.text
    return list(reply.json()["key_proofs"])


def expected(served: Served, key: str) -> str:
    return key_proof(digest_of(key), served.base_url.removeprefix("http://"), NONCE)


async def test_a_key_is_proved_by_its_prefix_as_long_as_it_is_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        made = (await served.client.post(paths.KEYS, json={"key_name": "ci"})).json()
        key, part = made["api_key"], made["key_prefix"]
        assert await proofs(served, part) == [expected(served, key)]
        await served.client.patch(paths.toggle_key(made["id"]))
        assert await proofs(served, part) == [expected(served, key)]  # known, if not good
        for other in (part[:-1], f"{part}x", key, "lk_", "*", "lk_%"):
            assert await proofs(served, other) == []
        await served.client.delete(paths.key(made["id"]))
        assert await proofs(served, part) == []


async def test_keys_of_one_prefix_are_all_proved(tmp_path: Path) -> None:
    keys = [f"lk_same-prefix-{name * 32}" for name in "ab"]
    store = MemoryStore()
    for key in keys:
        await store.put_key(KeyRecord(key, key[-1], public_part(key), digest_of(key), 1.0))
    async with serving(tmp_path, store=store) as served:
        assert await proofs(served, "lk_same-") == [expected(served, key) for key in keys]


async def test_a_token_is_proved_by_what_is_before_its_signature(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        body = {"email": "a@example.org", "password": KEY}
        pair = (await served.client.post(paths.LOGIN, json=body)).json()
        for token in (pair["access_token"], pair["refresh_token"]):
            assert await proofs(served, public_part(token)) == [expected(served, token)]
            foreign = jwt.encode({"exp": 1}, "another key of at least 256 bits, made up")
            assert expected(served, foreign) not in await proofs(served, public_part(foreign))


# Signing in.


async def test_a_stranger_signs_in_with_a_key_and_renews(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as served,
        httpx.AsyncClient(base_url=served.base_url, timeout=CLIENT_LIMIT_S) as stranger,
    ):
        body = {"email": "a@example.org", "password": KEY}
        signed_in = await stranger.post(paths.LOGIN, json=body)
        assert signed_in.status_code == 200, signed_in.text
        assert signed_in.json()["email"] == "a@example.org"
        assert signed_in.json()["expires_in"] == 3600
        token = signed_in.json()["refresh_token"]
        renewed = await stranger.post(paths.REFRESH, json={"refresh_token": token})
        assert renewed.status_code == 200
        for pair in (signed_in.json(), renewed.json()):
            good = {"Authorization": f"Bearer {pair['access_token']}"}
            assert (await stranger.get(paths.ORG, headers=good)).status_code == 200
            wrong = {"Authorization": f"Bearer {pair['refresh_token']}"}
            assert (await stranger.get(paths.ORG, headers=wrong)).status_code == 401
        for path, body in (
            (paths.LOGIN, {"email": "a@example.org", "password": "guess"}),
            (paths.REFRESH, {"refresh_token": "guess"}),
            (paths.REFRESH, {"refresh_token": signed_in.json()["access_token"]}),
        ):
            refused = await stranger.post(path, json=body)
            assert refused.status_code == 401
            assert refused.json()["detail"].endswith((".", "again."))
            assert "guess" not in refused.text


async def test_what_strangers_may_send_is_small(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as served,
        httpx.AsyncClient(base_url=served.base_url, timeout=CLIENT_LIMIT_S) as stranger,
    ):
        reply = await stranger.post(paths.REFRESH, json={"refresh_token": "x" * 20_000})
        assert reply.status_code == 413
        assert "16 KiB" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (paths.LOGIN, b'{"email": "\\ud800", "password": "x"}'),
        (paths.LOGIN, b'{"email": "x", "password": "\\ud800"}'),
        (paths.REFRESH, b'{"refresh_token": "\\ud800"}'),
        (paths.KEYS, b'{"key_name": "\\ud800"}'),
        (paths.VALIDATE_KEY, b'{"api_key": "\\ud800"}'),
    ],
)
async def test_half_a_surrogate_pair_is_no_text(tmp_path: Path, path: str, body: bytes) -> None:
    async with serving(tmp_path) as served:
        reply = await served.client.post(
            path, content=body, headers={"Content-Type": "application/json"}
        )
        assert reply.status_code == 422, reply.text


# Organisations, and what there is not.


async def test_there_is_one_organisation(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        (org,) = (await served.client.get(paths.ORGS)).json()
        assert (org["slug"], org["role"], org["is_default"]) == ("local", "owner", True)
        one = (await served.client.get(paths.org("local"))).json()
        assert {"id", "slug", "name", "billing_email", "created_at"} <= set(one)
        assert (await served.client.get(paths.ORG)).json()["org_id"] == org["id"]
        reply = await served.client.get(paths.org("acme"))
        assert reply.status_code == 404
        assert "acme" in reply.json()["detail"]
        assert (await served.client.get(paths.USER_STATUS)).json()["status"] == "active"
        assert (await served.client.get(paths.VERSION)).json()["version"]


@pytest.mark.parametrize(
    ("method", "path", "subject"),
    [
        ("POST", "/vms/create", "Virtual machines"),
        ("GET", "/vms/list", "Virtual machines"),
        ("PATCH", "/vms/7", "Virtual machines"),
        ("GET", "/serverless/models", "Inference"),
        ("POST", "/inference/create", "Inference"),
        ("GET", "/inference/replica/7/logs", "Inference"),
        ("POST", "/billing/checkout", "credits"),
        ("GET", "/billing/invoices", "Invoices"),
        ("GET", "/billing/activities", "activities"),
        ("GET", "/billing/credits/details", "credits"),
        ("POST", "/orgs", "organisations"),
        ("PATCH", "/orgs/local", "organisations"),
        ("DELETE", "/orgs/local", "organisations"),
        ("GET", "/orgs/local/members", "Members"),
        ("POST", "/orgs/local/api-keys/7/delete", "keys"),
        ("GET", "/invites/mine", "Invites"),
        ("POST", "/execution/gpu_selection/start", "GPU"),
        ("DELETE", "/user/delete", "account"),
    ],
)
async def test_what_the_cloud_alone_has_is_said_to_be_there(
    tmp_path: Path, method: str, path: str, subject: str
) -> None:
    async with serving(tmp_path) as served:
        reply = await served.client.request(method, f"{PREFIX}{path}")
        assert reply.status_code == 501
        assert subject in reply.json()["detail"]
        assert reply.json()["detail"].endswith("Use Lyceum Cloud for that.")


async def test_a_path_that_nobody_knows_stays_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for path in (f"{PREFIX}/vmss", f"{PREFIX}/nothing/here", "/vms/list"):
            reply = await served.client.get(path)
            assert (reply.status_code, reply.json()) == (404, {"detail": "Not Found"})
