"""The login's token: renewed before it expires, once, and written for the next program."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from lyceum_magic import config
from lyceum_magic.client.api import Client
from lyceum_magic.client.sign_in import MARGIN_S, needs_refresh
from lyceum_magic.config import Account, Secret
from lyceum_magic.exceptions import LyceumError, NotAuthorised, ServerUnreachable
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished
from tests.tools.wire_server import (
    Reply,
    WireServer,
    frame,
    hang_up,
    html,
    json_answer,
    record,
    refusal,
    stream,
)
from tests.unit.client.following import heard

pytestmark = pytest.mark.anyio

RECORD = paths.record("run")


#: The time at which this module was read and the tokens of its parameters were made.
NOW = time.time()


def jwt(expires_in_s: float, *, name: str = "canary") -> str:
    claims = json.dumps({"exp": time.time() + expires_in_s, "name": name}).encode()
    return f"header.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.signature"


@contextmanager
def unwritable_login() -> Iterator[None]:
    """Let no file grow, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def expired(wire: WireServer) -> Account:
    """The account of a login whose token has expired; the login is on disk as well.

    It stands for one of a server elsewhere, which proves nothing.
    """
    token = jwt(-60)
    config.write_login(base_url=wire.base_url, api_key=token, refresh_token="renew-1")
    account = config.find_account({})
    assert account is not None
    return replace(account, needs_proof=False)


@pytest.mark.parametrize(
    ("token", "needs"),
    [
        ("lk_key", False),
        (jwt(MARGIN_S + 60), False),
        (jwt(MARGIN_S - 60), True),
        (jwt(-1), True),
        ("no.jwt.at-all", True),
        ("opaque", True),
        ("a.W10.c", True),  # its claims are a list
        ("a.eyJleHAiOiJzb29uIn0.c", True),  # exp is no number
    ],
    # Tokens hold the time: parallel workers would give the tests different names.
    ids=["key", "later", "soon", "over", "no JWT", "opaque", "no claims", "no number"],
)
def test_a_token_needs_renewal_five_minutes_before_its_end(token: str, needs: bool) -> None:
    assert needs_refresh(token, NOW) is needs


async def test_an_expired_token_is_renewed_and_kept(wire: WireServer, expired: Account) -> None:
    fresh = jwt(3600, name="fresh")
    wire.on("POST", paths.REFRESH, json_answer({"access_token": fresh, "refresh_token": "renew-2"}))
    wire.on("GET", RECORD, json_answer(record()))
    async with Client(expired) as client:
        await client.record("run")
        await client.record("run")
    renewal, first, second = wire.requests
    assert renewal.json == {"refresh_token": "renew-1"}
    assert "authorization" not in renewal.headers
    for request in (first, second):
        assert request.headers["authorization"] == f"Bearer {fresh}"
    login = config.read_login()
    assert (login["api_key"], login["refresh_token"]) == (fresh, "renew-2")


async def test_tokens_that_cannot_be_written_are_used_and_renewed_all_the_same(
    wire: WireServer, expired: Account, caplog: pytest.LogCaptureFixture
) -> None:
    """The server may take each refresh token once: what it has given is all that is left."""
    last = jwt(3600, name="last")
    wire.on(
        "POST",
        paths.REFRESH,
        json_answer({"access_token": jwt(MARGIN_S - 1), "refresh_token": "renew-2"}),
        json_answer({"access_token": last, "refresh_token": "renew-3"}),
    )
    wire.on("GET", RECORD, json_answer(record()))
    with unwritable_login():
        async with Client(expired) as client:
            await client.record("run")
            await client.record("run")
    used = [request.json["refresh_token"] for request in wire.asked("POST", paths.REFRESH)]
    assert used == ["renew-1", "renew-2"]
    assert wire.requests[-1].headers["authorization"] == f"Bearer {last}"
    assert "good for this process alone" in caplog.text
    assert "renew-" not in caplog.text


async def test_a_sign_in_of_another_program_takes_the_place_of_one_that_was_not_written(
    wire: WireServer, expired: Account
) -> None:
    wire.on("POST", paths.REFRESH, json_answer({"access_token": jwt(MARGIN_S - 1)}))
    wire.on("GET", RECORD, json_answer(record()))
    async with Client(expired) as client:
        with unwritable_login():
            await client.record("run")
        config.write_login(api_key="lk_theirs", refresh_token=None)
        await client.record("run")
    assert wire.requests[-1].headers["authorization"] == "Bearer lk_theirs"


async def test_requests_at_the_same_time_renew_once(wire: WireServer, expired: Account) -> None:
    """A refresh token may be good for one use: the second would end the sign-in."""
    fresh = json_answer({"access_token": jwt(3600), "refresh_token": "renew-2"})
    wire.on("POST", paths.REFRESH, fresh, refusal(401))
    wire.on("GET", RECORD, json_answer(record()))
    async with Client(expired) as client:
        await asyncio.gather(*(client.record("run") for _ in range(5)))
    assert len(wire.asked("POST", paths.REFRESH)) == 1


async def test_what_another_program_renewed_is_used(wire: WireServer, expired: Account) -> None:
    fresh = jwt(3600, name="theirs")
    config.write_login(api_key=fresh, refresh_token="renew-2")
    wire.on("GET", RECORD, json_answer(record()))
    async with Client(expired) as client:
        await client.record("run")
    (request,) = wire.requests
    assert request.headers["authorization"] == f"Bearer {fresh}"


async def test_a_stream_is_opened_with_a_fresh_token_too(
    wire: WireServer, expired: Account
) -> None:
    fresh = jwt(3600)
    wire.on("POST", paths.REFRESH, json_answer({"access_token": fresh}))
    wire.on("POST", paths.stream("run"), stream(frame(Finished(None, 0))))
    async with Client(expired) as client:
        await heard(client)
    assert wire.requests[-1].headers["authorization"] == f"Bearer {fresh}"


@pytest.mark.parametrize(
    "reply", [refusal(401), refusal(500), json_answer({}), html, json_answer({"access_token": 1})]
)
async def test_a_renewal_that_fails_asks_to_sign_in_again(
    wire: WireServer, expired: Account, reply: Reply
) -> None:
    wire.on("POST", paths.REFRESH, reply)
    async with Client(expired) as client:
        with pytest.raises(LyceumError) as caught:
            await client.record("run")
    assert "renew-1" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not wire.asked("GET", RECORD)


async def test_a_renewal_that_cannot_be_reached_is_no_raw_error(
    wire: WireServer, expired: Account
) -> None:
    wire.on("POST", paths.REFRESH, hang_up)
    async with Client(expired) as client:
        with pytest.raises(ServerUnreachable):
            await client.record("run")


async def test_an_expired_token_without_a_way_to_renew_it_is_said_so(wire: WireServer) -> None:
    account = Account(wire.base_url, Secret(jwt(-1)), "the login")
    async with Client(account) as client:
        with pytest.raises(NotAuthorised, match="has expired; sign in again"):
            await client.record("run")
    assert not wire.requests


async def test_a_token_of_another_kind_is_left_to_the_server(wire: WireServer) -> None:
    wire.on("GET", RECORD, refusal(401, "bad token"))
    async with Client(Account(wire.base_url, Secret("opaque"), "LYCEUM_API_KEY")) as client:
        with pytest.raises(NotAuthorised, match="The API key from LYCEUM_API_KEY was refused"):
            await client.record("run")
