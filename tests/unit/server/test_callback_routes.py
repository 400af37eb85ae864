"""The log of callbacks over HTTP, with a real receiver at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lyceum_magic.protocol import paths
from lyceum_magic.protocol.callbacks import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from lyceum_magic.protocol.signatures import sign
from tests.tools.callbacks import CallbackReceiver, receiving
from tests.tools.receiver import Request

from .serving import Served, serving
from .test_routes_replies import play

pytestmark = pytest.mark.anyio

CANARY = "canary-5e1f"


@pytest.fixture
def receiver() -> Iterator[CallbackReceiver]:
    with receiving() as receiver:
        receiver.answers[f"/{CANARY}/bad"] = 503
        yield receiver


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


async def tried(served: Served, **query: Any) -> list[dict[str, Any]]:
    """Return the deliveries that a query finds, once each has been tried."""
    async with asyncio.timeout(30):
        while True:
            reply = await served.client.get(paths.DELIVERIES, params=query)
            assert reply.status_code == 200, reply.text
            assert CANARY not in reply.text
            found: list[dict[str, Any]] = reply.json()["deliveries"]
            if found and all(item["attempts"] for item in found):
                return found
            await asyncio.sleep(0.01)


async def send_test(served: Served, url: str) -> dict[str, Any]:
    reply = await served.client.post(paths.TEST_CALLBACK, json={"url": url}, timeout=60)
    assert reply.status_code == 200, reply.text
    assert CANARY not in reply.text
    return dict(reply.json())


def signature(callback: Request, secret: str) -> str:
    headers = {name.lower(): value for name, value in callback.headers.items()}
    return sign(secret, headers[ID_HEADER], int(headers[TIMESTAMP_HEADER]), callback.body)


async def test_every_callback_of_a_run_is_listed(
    served: Served, receiver: CallbackReceiver
) -> None:
    good, bad = (f"{receiver.origin}/{CANARY}/{name}" for name in ("good", "bad"))
    run_id = await play(served, user_callback_urls=[good, bad])
    other = await play(served, user_callback_urls=[good])
    found = {item["state"]: item for item in await tried(served, execution_id=run_id)}
    assert set(found) == {"delivered", "pending"}
    for item in found.values():
        assert (item["execution_id"], item["attempts"]) == (run_id, 1)
        assert item["url"] == f"{receiver.origin}/..."
    assert (found["delivered"]["error"], found["delivered"]["next_attempt_at"]) == ("", None)
    assert found["delivered"]["delivered_at"] > found["delivered"]["created_at"]
    assert "503" in found["pending"]["error"]
    assert found["pending"]["next_attempt_at"] > found["pending"]["created_at"]
    assert found["pending"]["delivered_at"] is None

    of_run = (await served.client.get(paths.run_deliveries(run_id))).json()["deliveries"]
    assert {item["delivery_id"] for item in of_run} == {
        item["delivery_id"] for item in found.values()
    }
    newest_first = await tried(served)
    assert [item["execution_id"] for item in newest_first] == [other, run_id, run_id]
    assert await tried(served, limit=1, offset=1) == newest_first[1:2]
    assert await tried(served, state="pending") == [found["pending"]]


async def test_a_run_without_callbacks_and_one_that_is_none(served: Served) -> None:
    run_id = await play(served)
    assert (await served.client.get(paths.run_deliveries(run_id))).json() == {"deliveries": []}
    reply = await served.client.get(paths.run_deliveries("nonsense"))
    assert (reply.status_code, reply.json()) == (404, {"detail": "No run has the id 'nonsense'."})
    reply = await served.client.get(paths.DELIVERIES, params={"execution_id": "nonsense"})
    assert reply.json() == {"deliveries": []}


async def test_a_delivery_has_its_attempts(served: Served, receiver: CallbackReceiver) -> None:
    await play(served, user_callback_urls=[f"{receiver.origin}/{CANARY}/bad"])
    (item,) = await tried(served)
    details = (await served.client.get(paths.delivery(item["delivery_id"]))).json()
    (attempt,) = details.pop("log")
    assert details == item
    assert (attempt["number"], attempt["address"]) == (1, "127.0.0.1")
    assert (attempt["status_code"], attempt["error"]) == (503, item["error"])
    assert attempt["next_attempt_at"] == item["next_attempt_at"]
    assert 0 < attempt["took_ms"] < 10_000


async def test_it_is_sent_again_under_its_own_id(
    served: Served, receiver: CallbackReceiver
) -> None:
    path = f"/{CANARY}/bad"
    await play(served, user_callback_urls=[f"{receiver.origin}{path}"])
    (item,) = await tried(served)
    receiver.answers.clear()
    reply = await served.client.post(paths.redeliver(item["delivery_id"]))
    assert (reply.status_code, reply.json()["state"]) == (200, "pending")
    async with asyncio.timeout(30):
        while (again := (await tried(served))[0])["state"] != "delivered":
            pass
    assert (again["delivery_id"], again["attempts"]) == (item["delivery_id"], 2)
    first, second = receiver.at(path, 2)
    assert first.body == second.body
    assert first.headers[ID_HEADER] == second.headers[ID_HEADER] == item["delivery_id"]
    log = (await served.client.get(paths.delivery(item["delivery_id"]))).json()["log"]
    assert [attempt["status_code"] for attempt in log] == [503, 204]


async def test_a_removed_one_is_gone(served: Served, receiver: CallbackReceiver) -> None:
    run_id = await play(served, user_callback_urls=[f"{receiver.origin}/{CANARY}/bad"])
    (item,) = await tried(served)
    path = paths.delivery(item["delivery_id"])
    assert (await served.client.delete(path)).status_code == 200
    assert (await served.client.get(paths.run_deliveries(run_id))).json() == {"deliveries": []}
    for method, gone in (
        ("GET", path), ("DELETE", path), ("POST", paths.redeliver(item["delivery_id"])),
    ):  # fmt: skip
        reply = await served.client.request(method, gone)
        said = f"No delivery has the id {item['delivery_id']!r}."
        assert (reply.status_code, reply.json()) == (404, {"detail": said})


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 1001}, {"offset": -1}, {"offset": 2**63}, {"state": CANARY},
     {"execution_id": f"https://host/{CANARY}"}, {"execution_id": CANARY + "x" * 128}],
    ids=str,
)  # fmt: skip
async def test_a_query_that_makes_no_sense_is_refused_and_not_quoted(
    served: Served, query: dict[str, Any]
) -> None:
    reply = await served.client.get(paths.DELIVERIES, params=query)
    assert reply.status_code == 422
    assert CANARY not in reply.text


async def test_an_id_that_can_be_none_is_refused_and_not_quoted(served: Served) -> None:
    named = f"https:%3A%2Fhost%3F{CANARY}"
    for method, path in (
        ("GET", paths.delivery(named)),
        ("DELETE", paths.delivery(named)),
        ("POST", paths.redeliver(named)),
    ):
        reply = await served.client.request(method, path)
        assert reply.status_code in (404, 422), path
        assert CANARY not in reply.text


async def test_a_test_is_answered_behind_its_first_attempt(
    served: Served, receiver: CallbackReceiver
) -> None:
    details = await send_test(served, f"{receiver.origin}/{CANARY}/good")
    assert (details["state"], details["execution_id"], details["attempts"]) == (
        "delivered", None, 1,
    )  # fmt: skip
    (attempt,) = details["log"]
    assert (attempt["status_code"], attempt["error"]) == (204, "")
    (callback,) = receiver.received
    assert callback.content["metadata"] == {"lyceum_magic_test": "true"}

    details = await send_test(served, f"{receiver.origin}/{CANARY}/bad")
    assert (details["state"], details["next_attempt_at"]) == ("dead", None)
    assert "503" in details["log"][0]["error"]
    assert len(receiver.received) == 2


async def test_a_test_of_what_does_not_answer_says_so(
    served: Served, receiver: CallbackReceiver
) -> None:
    # The server's own port is refused as a target; on port 1 no program listens.
    for origin in (served.base_url, "http://127.0.0.1:1"):
        details = await send_test(served, f"{origin}/{CANARY}")
        assert (details["state"], details["log"][0]["status_code"]) == ("dead", None)
        assert details["log"][0]["error"]


@pytest.mark.parametrize(
    "url",
    ["", CANARY, f"ftp://host/{CANARY}", f"http://example.org/{CANARY}", 7, None,
     f"https://me:{CANARY}@host/", f"https://host/{CANARY}\n", f"https://{CANARY}:99999/",
     f"https://host/{CANARY}" + "x" * 10_000],
    ids=lambda url: str(url)[:40],
)  # fmt: skip
async def test_a_url_that_no_callback_goes_to_is_refused_and_not_quoted(
    served: Served, url: object
) -> None:
    reply = await served.client.post(paths.TEST_CALLBACK, json={"url": url})
    assert reply.status_code == 422
    assert CANARY not in reply.text
    (problem,) = reply.json()["detail"]
    assert problem["loc"] == ["body", "url"]
    assert (await served.client.get(paths.DELIVERIES)).json() == {"deliveries": []}


async def test_half_a_surrogate_pair_is_no_url(served: Served) -> None:
    reply = await served.client.post(
        paths.TEST_CALLBACK,
        content=rb'{"url": "https://host/\ud800"}',
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == 422


async def test_a_shared_server_sends_nothing_to_its_own_machine(
    tmp_path: Path, receiver: CallbackReceiver
) -> None:
    async with serving(tmp_path, profile="shared") as served:
        reply = await served.client.post(
            paths.TEST_CALLBACK, json={"url": f"{receiver.origin}/{CANARY}"}
        )
    assert reply.status_code == 422
    assert "only to public addresses" in reply.text
    assert CANARY not in reply.text
    assert receiver.received == []


async def test_the_secret_signs_and_an_earlier_one_beside_it(
    served: Served, receiver: CallbackReceiver
) -> None:
    first = (await served.client.get(paths.SIGNING_SECRET)).json()
    assert first["secret"].startswith("whsec_")
    assert first["earlier_until"] is None
    await send_test(served, f"{receiver.origin}/1")
    second = (await served.client.post(paths.ROTATE_SIGNING_SECRET)).json()
    assert second["secret"] != first["secret"]
    assert second["earlier_until"] > second["created_at"] >= first["created_at"]
    assert (await served.client.get(paths.SIGNING_SECRET)).json() == second
    await send_test(served, f"{receiver.origin}/2")
    old, new = receiver.received
    assert old.headers[SIGNATURE_HEADER] == signature(old, first["secret"])
    assert new.headers[SIGNATURE_HEADER].split() == [
        signature(new, known["secret"]) for known in (second, first)
    ]


async def test_health_counts_what_waits_fails_and_is_given_up(
    served: Served, receiver: CallbackReceiver
) -> None:
    async def health() -> dict[str, Any]:
        return dict((await served.client.get(paths.DELIVERY_HEALTH)).json())

    assert await health() == {
        "pending": 0, "failing": 0, "dead": 0, "next_attempt_at": None, "errors": [],
    }  # fmt: skip
    await play(served, user_callback_urls=[f"{receiver.origin}/{CANARY}/bad"])
    (item,) = await tried(served)
    found = await health()
    assert found.pop("next_attempt_at") == item["next_attempt_at"]
    assert found == {"pending": 1, "failing": 1, "dead": 0, "errors": []}
    # Who asks for a test is told what came of it: nothing is left to care for.
    await send_test(served, f"{receiver.origin}/{CANARY}/bad")
    assert (await health())["dead"] == 0


async def test_the_description_calls_them_extensions(served: Served) -> None:
    description = (await served.client.get(paths.OPENAPI)).json()
    extensions = {
        (method, path): operation
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
        if operation.get("tags") == ["extensions"] and not path.startswith(paths.SESSIONS)
    }
    assert set(extensions) == {
        ("get", paths.DELIVERIES),
        ("get", paths.run_deliveries("{run_id}")),
        ("get", paths.delivery("{delivery_id}")),
        ("delete", paths.delivery("{delivery_id}")),
        ("post", paths.redeliver("{delivery_id}")),
        ("post", paths.TEST_CALLBACK),
        ("get", paths.SIGNING_SECRET),
        ("post", paths.ROTATE_SIGNING_SECRET),
        ("get", paths.DELIVERY_HEALTH),
    }
    assert all(operation["description"] for operation in extensions.values())
    assert [tag["name"] for tag in description["tags"]] == ["extensions"]
    schemas = description["components"]["schemas"]
    assert schemas["DeliveryDetails"]["properties"]["log"]["items"] == {
        "$ref": "#/components/schemas/AttemptRecord"
    }
    assert set(schemas["DeliveryState"]["enum"]) == {"pending", "delivered", "dead"}
