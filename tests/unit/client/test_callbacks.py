"""A client asks for deliveries of callbacks, and understands the answers."""

from __future__ import annotations

import pytest

from lyceum_magic.client.api import Client
from lyceum_magic.exceptions import ProtocolError, RequestRefused, ServerError
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.callbacks import DeliveryState
from tests.tools.wire_server import Reply, WireServer, json_answer, refusal

pytestmark = pytest.mark.anyio

ATTEMPT = {
    "number": 1,
    "started_at": "2026-11-22T08:00:00+00:00",
    "address": "203.0.113.5",
    "status_code": 503,
    "error": "https://host/... answered 503 Service Unavailable.",
    "took_ms": 12.5,
    "next_attempt_at": "2026-11-22T08:00:05+00:00",
}
DELIVERY = {
    "delivery_id": "msg_1",
    "execution_id": "run",
    "url": "https://host/...",
    "state": "pending",
    "attempts": 1,
    "error": ATTEMPT["error"],
    "created_at": "2026-11-22T08:00:00+00:00",
    "next_attempt_at": "2026-11-22T08:00:05+00:00",
    "delivered_at": None,
}
DETAILS = {**DELIVERY, "log": [ATTEMPT]}
SECRET = "whsec_canary"


async def test_deliveries_are_asked_for_by_run_state_and_page(
    wire: WireServer, client: Client
) -> None:
    wire.on("GET", paths.DELIVERIES, json_answer({"deliveries": [DELIVERY]}))
    assert await client.callbacks.deliveries() == [DELIVERY]
    await client.callbacks.deliveries("a/b", state=DeliveryState.DEAD, limit=3, offset=6)
    assert [request.query for request in wire.requests] == [
        "limit=100&offset=0",
        "limit=3&offset=6&execution_id=a%2Fb&state=dead",
    ]


async def test_one_delivery_is_read_sent_again_and_removed(
    wire: WireServer, client: Client
) -> None:
    wire.on("GET", paths.delivery("msg_1"), json_answer(DETAILS))
    wire.on("POST", paths.redeliver("msg_1"), json_answer(DELIVERY))
    wire.on("DELETE", paths.delivery("msg_1"), json_answer({"message": "gone"}))
    assert await client.callbacks.delivery("msg_1") == DETAILS
    assert await client.callbacks.redeliver("msg_1") == DELIVERY
    await client.callbacks.remove("msg_1")
    assert [request.method for request in wire.requests] == ["GET", "POST", "DELETE"]


async def test_an_id_stays_one_piece_of_the_path(wire: WireServer, client: Client) -> None:
    wire.on("DELETE", paths.delivery("..%2Frun%3Fx"), json_answer({}))
    await client.callbacks.remove("../run?x")
    assert len(wire.requests) == 1


async def test_a_url_is_tried_once(wire: WireServer, client: Client) -> None:
    wire.on("POST", paths.TEST_CALLBACK, refusal(503, "not now"), json_answer(DETAILS))
    with pytest.raises(ServerError, match="not now"):
        await client.callbacks.test("https://host/secret")
    assert await client.callbacks.test("https://host/secret") == DETAILS
    assert wire.requests[1].json == {"url": "https://host/secret"}


async def test_the_signing_secret_is_masked_wherever_it_is_shown(
    wire: WireServer, client: Client
) -> None:
    until = "2026-11-23T08:00:00+00:00"
    wire.on("GET", paths.SIGNING_SECRET, json_answer({"secret": SECRET, "earlier_until": None}))
    wire.on(
        "POST",
        paths.ROTATE_SIGNING_SECRET,
        json_answer({"secret": f"{SECRET}2", "earlier_until": until}),
    )
    present = await client.callbacks.signing_secret()
    new = await client.callbacks.rotate_signing_secret()
    assert (present.secret.reveal(), present.earlier_until) == (SECRET, None)
    assert (new.secret.reveal(), new.earlier_until) == (f"{SECRET}2", until)
    assert SECRET not in f"{present!r}{new}"


@pytest.mark.parametrize("answer", [{}, {"secret": ""}, {"secret": 7}])
async def test_an_answer_without_the_secret_is_not_taken_for_one(
    wire: WireServer, client: Client, answer: object
) -> None:
    wire.on("GET", paths.SIGNING_SECRET, json_answer(answer))
    with pytest.raises(ProtocolError, match="answer with a signing secret"):
        await client.callbacks.signing_secret()


async def test_health(wire: WireServer, client: Client) -> None:
    health = {
        "pending": 3,
        "failing": 1,
        "dead": 2,
        "next_attempt_at": "2026-11-22T08:00:05+00:00",
        "errors": ["the disk is full"],
    }
    wire.on("GET", paths.DELIVERY_HEALTH, json_answer(health))
    assert await client.callbacks.health() == health


async def test_what_a_newer_server_adds_or_leaves_out_is_no_error(
    wire: WireServer, client: Client
) -> None:
    log = [{"status_code": "204", "took_ms": None, "new": 1}, None]
    answer = {"delivery_id": "msg_2", "attempts": "many", "new": {}, "log": log}
    wire.on("GET", paths.DELIVERIES, json_answer({"deliveries": [None, answer], "total": 9}))
    wire.on("GET", paths.delivery("msg_2"), json_answer(answer))
    wire.on("GET", paths.DELIVERY_HEALTH, json_answer({"errors": None}))
    (found,) = await client.callbacks.deliveries()
    assert (found["delivery_id"], found["attempts"], found["execution_id"]) == ("msg_2", 0, None)
    (attempt,) = (await client.callbacks.delivery("msg_2"))["log"]
    assert (attempt["status_code"], attempt["took_ms"], attempt["error"]) == (None, 0.0, "")
    assert (await client.callbacks.health())["pending"] == 0


@pytest.mark.parametrize(
    "reply", [refusal(404, "Not Found"), refusal(405), refusal(501), json_answer({}, status=404)]
)
async def test_a_server_without_a_log_is_told_from_one_without_the_delivery(
    wire: WireServer, client: Client, reply: Reply
) -> None:
    for method, path in [
        ("GET", paths.DELIVERIES),
        ("GET", paths.delivery("msg_1")),
        ("POST", paths.redeliver("msg_1")),
        ("DELETE", paths.delivery("msg_1")),
        ("POST", paths.TEST_CALLBACK),
        ("GET", paths.SIGNING_SECRET),
        ("GET", paths.DELIVERY_HEALTH),
    ]:
        wire.on(method, path, reply)
    callbacks = client.callbacks
    for question in (
        callbacks.deliveries(),
        callbacks.delivery("msg_1"),
        callbacks.redeliver("msg_1"),
        callbacks.remove("msg_1"),
        callbacks.test("https://host/canary"),
        callbacks.signing_secret(),
        callbacks.health(),
    ):
        with pytest.raises(RequestRefused, match="keeps no log of callbacks") as caught:
            await question  # type: ignore[misc]
        assert "canary" not in str(caught.value)


async def test_a_delivery_that_is_not_there_is_said_so(wire: WireServer, client: Client) -> None:
    wire.on("GET", paths.delivery("msg_1"), refusal(404, "No delivery has the id 'msg_1'."))
    with pytest.raises(RequestRefused, match="No delivery has the id 'msg_1'") as caught:
        await client.callbacks.delivery("msg_1")
    assert caught.value.status_code == 404
