"""Requests other than streams: what is sent, how often, and what an answer means."""

from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx._transports import default

from lyceum_magic.client.api import Client, StartUnknown
from lyceum_magic.client.transport import RETRY_READS, build_http_client
from lyceum_magic.config import Account, Secret
from lyceum_magic.exceptions import (
    ApiError,
    ConfigError,
    LyceumError,
    NotAuthorised,
    ProtocolError,
    QuotaExceeded,
    RequestRefused,
    ServerError,
    ServerUnreachable,
)
from lyceum_magic.protocol import paths
from lyceum_magic.protocol.events import Finished, Output
from lyceum_magic.protocol.requests import StartPython
from tests.tools.wire_server import (
    KEY,
    STREAM_SECRET,
    Reply,
    Request,
    WireServer,
    answer,
    frame,
    hang_up,
    html,
    json_answer,
    record,
    refusal,
    started,
    stream,
)
from tests.unit.client.following import heard

pytestmark = pytest.mark.anyio

START = StartPython(code="print('canary-source')", execution_type="cpu")
RECORD = paths.record("run")


def everything_said(exc: BaseException) -> str:
    """The text of an exception and of all that hangs on it."""
    said = "".join(traceback.format_exception(exc)) + repr(exc.__dict__)
    chain: BaseException | None = exc
    while chain is not None:
        said += repr(chain)
        chain = chain.__cause__ or chain.__context__
    return said


# What is sent.


async def test_every_request_carries_key_and_organisation(wire: WireServer, client: Client) -> None:
    wire.on("GET", RECORD, json_answer(record()))
    wire.on("POST", paths.START_PYTHON, started(wire))
    await client.record("run")
    await client.start(START)
    for request in wire.requests:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["x-org-slug"] == "team"


async def test_no_organisation_is_named_where_none_was_chosen(wire: WireServer) -> None:
    async with Client(wire.account()) as client:
        wire.on("GET", RECORD, json_answer(record()))
        await client.record("run")
    assert "x-org-slug" not in wire.requests[0].headers


async def test_a_start_is_sent_as_json_and_its_reply_read(wire: WireServer, client: Client) -> None:
    wire.on("POST", paths.START_PYTHON, started(wire, "run-7"))
    reply = await client.start(START)
    assert reply.run_id == "run-7"
    assert reply.streaming_url == f"{wire.base_url}/api/v1/stream/run-7/{STREAM_SECRET}"
    (request,) = wire.requests
    assert request.json == START.to_wire()
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("url", [None, "", "wss://host/s", "ftp://host/s", 7, "/relative"])
async def test_a_streaming_url_that_is_not_http_is_left_for_the_path_by_id(
    wire: WireServer, client: Client, url: object
) -> None:
    reply = {"execution_id": "run", "streaming_url": url}
    wire.on("POST", paths.START_PYTHON, json_answer(reply, status=201))
    assert (await client.start(START)).streaming_url is None


# How often.


@pytest.mark.parametrize(
    "trouble",
    [hang_up, refusal(503), refusal(500), refusal(429), refusal(429, retry_after="0")],
)
async def test_a_read_is_tried_again(wire: WireServer, client: Client, trouble: Reply) -> None:
    wire.on("GET", RECORD, trouble, trouble, json_answer(record()))
    assert (await client.record("run"))["status"] == "completed"
    assert len(wire.requests) == 3


async def test_a_read_that_goes_on_failing_is_given_up(wire: WireServer, client: Client) -> None:
    wire.on("GET", RECORD, refusal(502, "bad gateway"))
    with pytest.raises(ServerError, match="bad gateway"):
        await client.record("run")
    assert len(wire.requests) == 5


async def test_a_long_retry_after_is_obeyed_for_a_while_and_told(
    wire: WireServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RETRY_READS, "total_timeout", 0.05)
    wire.on("GET", RECORD, refusal(429, "Too many requests", retry_after="7200"))
    with pytest.raises(QuotaExceeded) as caught:
        await client.record("run")
    assert caught.value.retry_after_s == 7200
    assert len(wire.requests) == 2


@pytest.mark.parametrize("trouble", [refusal(500), refusal(503), refusal(429, retry_after="0")])
async def test_a_start_that_was_answered_is_sent_once(
    wire: WireServer, client: Client, trouble: Reply
) -> None:
    wire.on("POST", paths.START_PYTHON, trouble)
    with pytest.raises(ApiError):
        await client.start(START)
    assert len(wire.requests) == 1


async def test_a_start_whose_reply_was_lost_is_sent_once_and_said_to_be_unknown(
    wire: WireServer, client: Client
) -> None:
    wire.on("POST", paths.START_PYTHON, hang_up)
    with pytest.raises(StartUnknown, match="broke before it answered the start"):
        await client.start(START)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("order", [Client.abort, Client.stop])
async def test_an_abort_is_sent_once(
    wire: WireServer, client: Client, order: Callable[[Client, str], Awaitable[str]]
) -> None:
    for path in (paths.abort("run"), paths.stop("run")):
        wire.on("POST", path, hang_up)
    with pytest.raises(ServerUnreachable):
        await order(client, "run")
    assert len(wire.requests) == 1


@pytest.mark.parametrize("status", [404, 409])
async def test_an_abort_of_what_is_over_is_no_error(
    wire: WireServer, client: Client, status: int
) -> None:
    wire.on("POST", paths.abort("run"), refusal(status))
    assert await client.abort("run") == "already over"


async def test_machines_are_asked_for_once(wire: WireServer, client: Client) -> None:
    hardware = {"available_hardware_profiles": ["cpu", "gpu.a100"]}
    wire.on("GET", paths.AVAILABLE_HARDWARE, json_answer(hardware))
    assert await client.available_hardware() == await client.available_hardware()
    assert len(wire.requests) == 1


# What an answer means.


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (400, RequestRefused, "no"),
        (401, NotAuthorised, "The API key from a test was refused (401): no; check LYCEUM_API_KEY"),
        (402, QuotaExceeded, "add credits"),
        (403, NotAuthorised, "check the organisation"),
        (404, RequestRefused, "no"),
        (413, RequestRefused, "send less"),
        (429, QuotaExceeded, "wait a moment"),
        (500, ServerError, "failed with status 500: no"),
    ],
)
async def test_each_refusal_has_its_class_and_its_advice(
    wire: WireServer, client: Client, status: int, kind: type[ApiError], advice: str
) -> None:
    wire.on("POST", paths.START_PYTHON, refusal(status))
    with pytest.raises(kind) as caught:
        await client.start(START)
    assert type(caught.value) is kind
    assert caught.value.status_code == status
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "canary-source" not in everything_said(caught.value)


@pytest.mark.parametrize("status", [400, 401, 413, 500, 503, 507])
async def test_a_servers_own_full_stop_is_not_doubled(
    wire: WireServer, client: Client, status: int
) -> None:
    wire.on("POST", paths.START_PYTHON, refusal(status, "Make room. Try again."))
    with pytest.raises(ApiError) as caught:
        await client.start(START)
    assert "Try again" in str(caught.value)
    assert ".." not in str(caught.value)
    assert ".;" not in str(caught.value)


async def test_a_422_names_field_and_problem(wire: WireServer, client: Client) -> None:
    detail = [
        {"loc": ["body", "timeout"], "msg": "must be at most 600", "type": "x"},
        {"loc": ["body", "labels", 3], "msg": "must be text", "type": "x"},
        {"loc": ["body", "code"], "msg": "code is not text", "type": "x"},
        {"msg": "odd"},
        "bare",
    ]
    wire.on("POST", paths.START_PYTHON, refusal(422, detail))
    with pytest.raises(RequestRefused) as caught:
        await client.start(START)
    said = "timeout: must be at most 600; labels.3: must be text; code is not text; "
    said += "body: odd; bare"
    assert said in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"<html>", b"{", b'"x"', b"\xff"])
@pytest.mark.parametrize("status", [200, 401, 404, 422, 500])
async def test_an_answer_of_any_other_form_is_an_error_of_ours(
    wire: WireServer, client: Client, body: bytes, status: int
) -> None:
    wire.on("POST", paths.START_PYTHON, answer(body, status=status))
    wire.on("GET", RECORD, answer(body, status=status))
    for call in (client.start(START), client.record("run")):
        with pytest.raises((ApiError, ProtocolError)) as caught:
            await call
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("member", ["text", 7, [7], ["x"], {"a": 1}, None])
async def test_members_of_another_type_break_nothing(
    wire: WireServer, client: Client, member: object
) -> None:
    """Every field is optional to a reader, and may hold anything."""
    names = ("machine_types", "available_hardware_profiles", "executions", "logs")
    body = dict.fromkeys(names, member)
    for path in (paths.MACHINE_TYPES, paths.AVAILABLE_HARDWARE, paths.HISTORY, paths.logs("run")):
        wire.on("GET", path, json_answer(body))
    await client.machine_types()
    await client.available_hardware()
    await client.history()
    await client.logs("run")


async def test_an_html_page_is_not_lyceum(wire: WireServer, client: Client) -> None:
    wire.on("GET", RECORD, html)
    with pytest.raises(ProtocolError, match="answered 200 with text/html; check LYCEUM_BASE_URL"):
        await client.record("run")


async def test_a_redirect_is_not_followed(
    wire: WireServer, foreign_wire: WireServer, client: Client
) -> None:
    wire.on("GET", RECORD, answer(status=302, location=f"{foreign_wire.base_url}{RECORD}"))
    with pytest.raises(ProtocolError, match="answered 302"):
        await client.record("run")
    assert not foreign_wire.requests


async def test_a_body_that_cannot_be_decoded_is_an_error_of_ours(
    wire: WireServer, client: Client
) -> None:
    wire.on("GET", RECORD, answer(b"not gzip", content_encoding="gzip"))
    with pytest.raises(LyceumError):
        await client.record("run")


async def test_a_server_that_is_not_there_cannot_be_reached(wire: WireServer) -> None:
    account = Account("http://127.0.0.1:1", Secret(KEY), "a test")
    async with Client(account) as client:
        for call in (client.record("run"), client.start(START)):
            with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1 cannot be reached") as c:
                await call
            assert not isinstance(c.value, StartUnknown)  # nothing was sent


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 63 + ".invalid"])
async def test_a_host_without_an_address_cannot_be_reached(host: str) -> None:
    async with Client(Account(f"http://{host}", Secret(KEY), "a test")) as client:
        with pytest.raises(ServerUnreachable):
            await client.record("run")


# Proxies.


@pytest.mark.parametrize("value", ["nonsense", "http://", "gopher://proxy", "http://x:y:z", "::"])
async def test_a_proxy_variable_that_is_nonsense_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", value)
    async with Client(Account("http://lyceum.invalid", Secret(KEY), "a test")) as client:
        with pytest.raises((ConfigError, ServerUnreachable)) as caught:
            await client.record("run")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_this_machine_is_reached_past_any_proxy(
    wire: WireServer, foreign_wire: WireServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, foreign_wire.base_url)
    wire.on("GET", RECORD, json_answer(record()))
    async with Client(wire.account()) as client:
        await client.record("run")
    assert wire.requests
    assert not foreign_wire.requests


async def test_another_host_is_reached_by_the_proxy_alone(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", wire.base_url)
    target = f"http://lyceum.invalid{RECORD}"
    wire.on("GET", target, json_answer(record()))
    async with Client(Account("http://lyceum.invalid", Secret(KEY), "a test")) as client:
        await client.record("run")
    assert [request.path for request in wire.requests] == [target]


# Secrets.


@pytest.fixture
async def talkative(
    wire: WireServer, client: Client, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Client]:
    """A client whose every log record of any logger is kept."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpx_retries"):
        caplog.set_level(logging.DEBUG, name)
    yield client
    said = "".join(f"{record.getMessage()}{record.exc_text}" for record in caplog.records)
    assert KEY not in said
    assert STREAM_SECRET not in said
    assert "canary-source" not in said


async def test_nothing_that_is_logged_tells_a_secret(wire: WireServer, talkative: Client) -> None:
    wire.on("POST", paths.START_PYTHON, started(wire))
    wire.on("GET", RECORD, refusal(503), json_answer(record()))
    path = f"{paths.stream('run')}/{STREAM_SECRET}"
    wire.on("POST", path, stream(frame(Output("a"), "1"), cut=True), refusal(500),
            stream(frame(Finished(None, 0))))  # fmt: skip
    reply = await talkative.start(START)
    assert STREAM_SECRET not in repr(reply)
    await talkative.record("run")
    assert (await heard(talkative, "run", reply.streaming_url)).text == "a"


@pytest.mark.parametrize("trouble", [hang_up, html, refusal(401), refusal(400), refusal(500)])
async def test_no_error_tells_a_secret(wire: WireServer, talkative: Client, trouble: Reply) -> None:
    wire.on("POST", paths.START_PYTHON, trouble)
    wire.on("POST", f"/{STREAM_SECRET}", trouble)
    wire.on("POST", paths.stream("run"), trouble)
    wire.on("GET", RECORD, refusal(401))
    calls = (
        talkative.start(START),
        heard(talkative, "run", f"{wire.base_url}/{STREAM_SECRET}", timeout_s=-120.0),
    )
    for call in calls:
        with pytest.raises(LyceumError) as caught:
            await call
        said = everything_said(caught.value)
        assert KEY not in said
        assert STREAM_SECRET not in said
        assert "canary-source" not in str(caught.value)


async def test_a_client_shows_no_secret(client: Client) -> None:
    assert KEY not in f"{client!r} {client.account!r} {vars(client)!r}"


# Where the embedded server moved to.


async def test_a_server_that_moved_is_asked_again_even_for_a_start(wire: WireServer) -> None:
    moved = 0

    async def relocate() -> Account:
        nonlocal moved
        moved += 1
        return wire.account(is_embedded=True)

    wire.on("POST", paths.START_PYTHON, started(wire))
    gone = Account("http://127.0.0.1:1", Secret(KEY), "a test", is_embedded=True)
    async with Client(gone, relocate=relocate) as client:
        assert (await client.start(START)).run_id == "run"
    assert moved == 1
    assert len(wire.requests) == 1


NEW_KEY = "lk_the_key_of_a_server_that_started_again"


def for_key(key: str, reply: Reply) -> Reply:
    """A reply to those who have the key; others are refused."""

    async def answer_if_known(request: Request, writer: asyncio.StreamWriter) -> None:
        is_known = request.headers.get("authorization") == f"Bearer {key}"
        await (reply if is_known else refusal(401, "a wrong key"))(request, writer)

    return answer_if_known


@asynccontextmanager
async def restarted(
    wire: WireServer, key: str = NEW_KEY
) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client with the key of before; the list grows with each look for the present one."""
    looks: list[str] = []

    async def relocate() -> Account:
        looks.append("look")
        return Account(wire.base_url, Secret(key), "a test", is_embedded=True)

    async with Client(wire.account(is_embedded=True), relocate=relocate) as client:
        yield client, looks


async def test_a_key_that_was_replaced_is_looked_up_once_even_for_a_start(wire: WireServer) -> None:
    wire.on("POST", paths.START_PYTHON, for_key(NEW_KEY, started(wire)))
    wire.on("GET", RECORD, for_key(NEW_KEY, json_answer(record())))
    async with restarted(wire) as (client, looks):
        assert (await client.start(START)).run_id == "run"
        assert (await client.record("run"))["status"] == "completed"
    assert len(looks) == 1
    assert len(wire.requests) == 3


async def test_requests_at_the_same_time_look_for_the_new_key_and_succeed(wire: WireServer) -> None:
    wire.on("GET", RECORD, for_key(NEW_KEY, json_answer(record())))
    async with restarted(wire) as (client, _):
        records = await asyncio.gather(*(client.record("run") for _ in range(5)))
    assert {item["status"] for item in records} == {"completed"}


async def test_a_stream_is_opened_with_the_new_key(wire: WireServer) -> None:
    end = stream(frame(Finished(None, 0)))
    wire.on("POST", paths.stream("run"), for_key(NEW_KEY, end))
    async with restarted(wire) as (client, looks):
        await heard(client)
    assert len(looks) == 1
    assert len(wire.requests) == 2


async def test_a_file_is_sent_again_from_its_beginning(wire: WireServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    wire.on("POST", paths.UPLOAD, for_key(NEW_KEY, json_answer({})))
    async with restarted(wire) as (client, _):
        with (tmp_path / "file").open("rb") as file:
            await client.storage.upload(file, "key", lambda count: None)
    first, second = (request.body.count(b"content") for request in wire.requests)
    assert (first, second) == (1, 1)


async def test_a_download_is_refused_and_begun_again(wire: WireServer) -> None:
    wire.on("GET", paths.download("key"), for_key(NEW_KEY, answer(b"content")))
    async with restarted(wire) as (client, _), client.storage.download("key") as (_, pieces):
        assert b"".join([piece async for piece in pieces]) == b"content"


async def test_a_key_that_is_still_the_same_is_refused_for_good(wire: WireServer) -> None:
    wire.on("GET", RECORD, refusal(401, "a wrong key"))
    async with restarted(wire, KEY) as (client, looks):
        with pytest.raises(NotAuthorised, match="a wrong key"):
            await client.record("run")
    assert len(looks) == len(wire.requests) == 1


async def test_other_accounts_look_for_no_other_key(wire: WireServer, client: Client) -> None:
    wire.on("GET", RECORD, refusal(401, "a wrong key"))
    with pytest.raises(NotAuthorised, match="a wrong key"):
        await client.record("run")
    assert len(wire.requests) == 1


async def test_a_connection_that_is_not_trusted_sends_nothing(wire: WireServer) -> None:
    def check() -> None:
        raise httpx.ConnectError("another program listens there")

    async with Client(wire.account(), check_connection=check) as client:
        with pytest.raises(ServerUnreachable):
            await client.record("run")
    assert not wire.requests


async def test_certificates_are_read_for_https_alone(
    wire: WireServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them takes longer than the rest of a first cell's way to the embedded server."""
    chosen: list[Any] = []
    make = default.create_ssl_context

    def made(*, verify: Any, **named: Any) -> ssl.SSLContext:
        chosen.append(verify)
        return make(verify=verify, **named)

    monkeypatch.setattr(default, "create_ssl_context", made)
    wire.on("GET", RECORD, json_answer(record("completed")))
    await client.record("run")
    (context,) = chosen
    assert context.cert_store_stats()["x509"] == 0
    async with build_http_client("https://127.0.0.1:1") as https:
        with pytest.raises(httpx.ConnectError):
            await https.post("/")
    assert chosen == [context, True]  # true: by the bundle
