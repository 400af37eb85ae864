"""The outcomes of attempts, with receivers on loopback that answer in every way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from lyceum_magic import __version__
from lyceum_magic.server.outbox.posting import retry_after_s
from lyceum_magic.server.outbox.results import Outcome
from lyceum_magic.server.outbox.sending import HttpSender
from lyceum_magic.server.outbox.targets import Targets

pytestmark = pytest.mark.anyio

HEADERS = {"webhook-id": "msg_1", "webhook-timestamp": "1"}
BODY = b'{"schema":1}'

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    """Yield the address and port of a receiver that is handed each connection."""

    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(answer_and_close, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


def replying(reply: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(reply)
        await writer.drain()

    return answer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer nothing until the other side has gone."""
    await reader.read()


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"}")
    # Lingering for 0 s: closing resets the connection.
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )


def sender(total_s: float = 20.0, connect_s: float = 5.0) -> HttpSender:
    return HttpSender(Targets("local", lambda: ()), connect_s=connect_s, total_s=total_s)


async def send(origin: str, total_s: float = 20.0) -> Outcome:
    """Return the outcome of sending to a URL with a secret, which the outcome must not show."""
    outcome = await sender(total_s).send(f"{origin}/s3cret?token=s3cret", HEADERS, BODY)
    assert "s3cret" not in outcome.error
    return outcome


async def test_a_request_says_what_was_given_and_who_sends():
    requests = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"}"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with listening(keep) as place:
        outcome = await send(f"http://{place}")
    assert outcome == Outcome("127.0.0.1", 200, "")
    head, body = requests[0].split(b"\r\n\r\n")
    assert body == BODY
    assert head.decode().split("\r\n") == [
        "POST /s3cret?token=s3cret HTTP/1.1",
        f"host: {place}",
        "content-type: application/json",
        f"user-agent: lyceum-magic/{__version__}",
        "webhook-id: msg_1",
        "webhook-timestamp: 1",
        "connection: close",
        "content-length: 12",
    ]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_a_success(status: int):
    async with listening(replying(b"HTTP/1.1 %d X\r\nRetry-After: 9\r\n\r\n" % status)) as place:
        assert await send(f"http://{place}") == Outcome("127.0.0.1", status, "")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "400 Bad Request"),
        (401, "401 Unauthorized"),
        (410, "410 Gone"),
        (429, "429 Too Many Requests"),
        (500, "500 Internal Server Error"),
        (503, "503 Service Unavailable"),
        (599, "599"),
    ],
)
async def test_other_answers_are_failures_by_their_usual_name(status: int, said: str):
    async with listening(replying(b"HTTP/1.1 %d s3cret\r\n\r\n" % status)) as place:
        outcome = await send(f"http://{place}")
    assert outcome == Outcome("127.0.0.1", status, f"http://{place}/... answered {said}.")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(status: int):
    visits = []

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(await reader.readuntil(b"}"))

    async with listening(visited) as elsewhere:
        reply = f"HTTP/1.1 {status} X\r\nLocation: http://{elsewhere}/\r\n\r\n".encode()
        async with listening(replying(reply)) as place:
            outcome = await send(f"http://{place}")
    assert outcome.status_code == status
    assert outcome.error.endswith(", a redirect, which a callback does not follow.")
    assert visits == []


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (
            replying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
            200,
            "answered 200 OK and broke off before its end.",
        ),
        (
            replying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal"),
            200,
            "answered 200 OK and broke off before its end.",
        ),
        (replying(b"HTTP/1.1 200 OK\r\nX: y"), None, "closed the connection without an answer."),
        (replying(b""), None, "closed the connection without an answer."),
        (replying(b"220 mail ready\r\n\r\n"), None, "answered with something other than HTTP."),
        (replying(b"\x16\x03\x01\x00\x05hello"), None, "answered with something other than HTTP."),
        (resetting, None, "broke the connection off without an answer."),
    ],
)
async def test_what_is_no_whole_answer_is_a_failure(answer: Answer, status, error: str):
    async with listening(answer) as place:
        outcome = await send(f"http://{place}")
    assert outcome == Outcome("127.0.0.1", status, f"http://{place}/... {error}")


async def test_an_answer_that_does_not_come_is_a_failure_in_time():
    async with listening(silent) as place:
        outcome = await send(f"http://{place}", total_s=0.5)
    assert outcome == Outcome("127.0.0.1", None, f"http://{place}/... did not answer in time.")


async def test_an_answer_that_does_not_end_is_a_failure_in_time():
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    async with listening(trickle) as place:
        outcome = await send(f"http://{place}", total_s=0.5)
    assert (outcome.status_code, outcome.error) == (
        200,
        f"http://{place}/... did not answer in time.",
    )


async def test_a_handshake_cut_short_leaves_no_connection_open():
    gone = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with listening(watch) as place:
        outcome = await send(f"https://{place}", total_s=0.5)
        assert outcome.error == f"https://{place}/... did not answer in time."
        async with asyncio.timeout(60):
            await gone.wait()
    gc.collect()  # what was left open warns, and a warning is an error


async def test_a_receiver_without_tls_is_said_to_be_one():
    # Its reply begins before it has read anything, as a mail server's does.
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        await reader.read()

    async with listening(greet) as place:
        outcome = await send(f"https://{place}")
    assert outcome.error.startswith(f"https://{place}/... does not speak TLS: ")


async def test_a_connection_closed_in_a_handshake_is_a_failure():
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with listening(close) as place:
        outcome = await send(f"https://{place}")
    assert (outcome.address, outcome.status_code) == ("127.0.0.1", None)
    assert outcome.error.startswith(f"https://{place}/... ")


async def test_a_port_on_which_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{taken.getsockname()[1]}"
        outcome = await send(origin)
    assert outcome == Outcome(
        None, None, f"{origin}/... could not be connected to: connection refused."
    )


async def test_a_port_that_takes_no_connection_is_given_up_in_time():
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/s3cret"
        outcome = await sender(connect_s=0.5).send(url, HEADERS, BODY)
    assert (outcome.address, outcome.status_code) == (None, None)
    assert outcome.error.endswith("/... could not be reached in time.")


async def test_a_look_up_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch):
    go_on = threading.Event()

    def hang(*_args: object, **_options: object) -> None:
        go_on.wait(60)
        raise socket.gaierror("late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    outcome = await send("https://public.example", total_s=0.5)
    go_on.set()
    assert outcome == Outcome(
        None, None, "https://public.example/... could not be reached in time."
    )


async def test_a_long_answer_is_cut_short():
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while written < 1 << 30:
                writer.write(b"x" * 65536)
                await writer.drain()
                written += 65536
        except ConnectionError:
            pass  # what this is about

    async with listening(flood) as place:
        assert (await send(f"http://{place}")).error == ""
    # What was on its way fills the sockets' buffers, and no more is taken.
    assert written < 64 << 20


async def test_what_is_not_read_of_an_answer_is_let_go_of_at_once():
    left: list[str] = []
    first, finalizer = sys.get_asyncgen_hooks()

    def note(generator: AsyncGenerator[object, object]) -> None:
        left.append(generator.__name__)
        assert finalizer is not None
        finalizer(generator)

    sys.set_asyncgen_hooks(first, note)
    try:
        long = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 17)
        async with listening(replying(long)) as place:
            assert (await send(f"http://{place}")).error == ""
    finally:
        sys.set_asyncgen_hooks(first, finalizer)
    assert "aiter_stream" not in left, left


async def test_hung_receivers_hold_nobody_up():
    sending = sender()
    async with listening(silent) as hung, listening(replying(b"HTTP/1.1 204 X\r\n\r\n")) as place:
        waiting = [
            asyncio.create_task(sending.send(f"http://{hung}/", HEADERS, BODY)) for _ in range(256)
        ]
        assert (await sending.send(f"http://{place}/", HEADERS, BODY)).error == ""
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await sending.close()


async def test_what_a_receiver_asks_to_wait_is_told_with_its_refusal():
    async with listening(replying(b"HTTP/1.1 503 X\r\nretry-AFTER: 120\r\n\r\n")) as place:
        assert (await send(f"http://{place}")).retry_after_s == 120.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Thu, 01 Jan 1970 00:17:40 GMT", 60.0),
        ("Thursday, 01-Jan-70 00:17:40 GMT", 60.0),  # RFC 850, which is still to be read
        ("Thu Jan  1 00:17:40 1970", 60.0),  # asctime, likewise
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),  # has gone by
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("9" * 400, None),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
        ("Thu, 99 Jan 2030 00:00:00 GMT", None),
    ],
)
def test_seconds_and_dates_say_how_long_to_wait(value: str, seconds: float | None):
    assert retry_after_s(value, now=1000.0) == seconds


def test_what_sends_is_loaded_when_something_is_sent():
    program = (
        "import sys, lyceum_magic.server.outbox.sending\n"
        "print({'httpcore', 'h11', 'certifi'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    "endless", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)
async def test_a_reply_that_never_comes_to_its_end_is_cut_off(endless: bytes):
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(endless * 1000)
                await writer.drain()

    async with listening(flood) as place:
        outcome = await send(f"http://{place}", total_s=60.0)
    origin = f"http://{place}/..."
    said = f"{origin} sent 68 kB without coming to the end of an answer."
    assert outcome == Outcome("127.0.0.1", None, said)
