"""A receiver of callbacks that fails as receivers fail, and writes down all that it was sent.

It is not built on this package: what it reads is HTTP, and what it checks is the specification's
signature.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import random
import socket
import struct
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.tools.receiver import read_request

ACCEPT = "accept"
#: The sender has gone, or may be about to go, before an answer could be given; none is.
TOO_LATE = "too late"
#: Half of what the sender allows for an attempt.
_LATE_S = 1.5
REDIRECTED = "/redirected"

_CLOSE = b"Connection: close\r\nContent-Length: 0\r\n\r\n"
_REPLIES = {
    ACCEPT: b"HTTP/1.1 204 No Content\r\n\r\n",
    "503": b"HTTP/1.1 503 Service Unavailable\r\n" + _CLOSE,
    "429": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n" + _CLOSE,
    "302": b"HTTP/1.1 302 Found\r\nLocation: " + REDIRECTED.encode() + b"\r\n" + _CLOSE,
    "half": b"HTTP/1.1 200 OK\r\nContent-Le",
}
#: How a receiver may fail; "timeout" never answers, "reset" ends the connection by a RST.
FAULTS = ("503", "429", "302", "half", "reset", "timeout")

#: The state of a run by GET; None where the server does not answer.
StateOf = Callable[[str], Awaitable[str | None]]


@dataclass(frozen=True)
class Arrival:
    """One attempt as it came in.

    Attributes:
        url: the whole URL it came to.
        at: by the monotonic clock.
        server: how many servers were killed before it.
        answer: what it was answered: `ACCEPT`, `TOO_LATE` or one of `FAULTS`.
        said: the run's state as the body gives it.
        state: of the run by GET while the attempt waited for its answer; None: not asked, or the
            server did not answer.
    """

    url: str
    callback_id: str
    run_id: str
    body_digest: bytes
    at: float
    server: int
    answer: str
    said: str
    state: str | None
    is_signed: bool


class Receiver:
    """Listens on several ports of loopback, each an endpoint.

    Args:
        seed: decides with the URL and the number of an attempt at it how that one is answered.
        faults: which share of attempts fails, by kind.
        state_of: asks for a run's state; called at each URL's first attempts until it says one.
    """

    def __init__(
        self, seed: int, faults: Mapping[str, float] = {}, *, state_of: StateOf | None = None
    ) -> None:
        self.arrivals: list[Arrival] = []
        self.by_url: defaultdict[str, list[Arrival]] = defaultdict(list)
        self.redirects_followed = 0
        self.server = 0
        self.secret = ""
        self.state_of = state_of
        self._seed = seed
        self._faults = dict(faults)
        self._stated: set[str] = set()
        self._awaited: set[str] = set()
        self._none_awaited = asyncio.Event()
        self._ports: list[int] = []

    @property
    def origins(self) -> Sequence[str]:
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    def accepted(self, url: str) -> Sequence[Arrival]:
        return [arrival for arrival in self.by_url[url] if arrival.answer == ACCEPT]

    async def wait_for_all(self, urls: Iterable[str], limit_s: float) -> bool:
        """Return True if every URL gets an accepted attempt within the limit."""
        self._awaited = {url for url in urls if not self.accepted(url)}
        self._none_awaited.clear()
        if self._awaited:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._none_awaited.wait()
        return not self._awaited

    @asynccontextmanager
    async def listening(self, endpoints: int) -> AsyncIterator[Receiver]:
        servers = []
        for _ in range(endpoints):
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self._ports.append(server.sockets[0].getsockname()[1])
            servers.append(server)
        try:
            yield self
        finally:
            for server in servers:
                server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        # The sender may be killed in the middle of anything.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                target, headers, body = await read_request(reader)
                if target == REDIRECTED:
                    self.redirects_followed += 1
                url = f"http://127.0.0.1:{port}{target}"
                answer = await self._note(url, headers, body, reader.at_eof)
                if answer == TOO_LATE:
                    break
                if answer == "timeout":
                    await reader.read()  # until the other side gives up
                    break
                if answer == "reset":
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, linger
                    )
                    writer.transport.abort()
                    return
                writer.write(_REPLIES[answer])
                await writer.drain()
                if answer != ACCEPT:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _note(
        self, url: str, headers: Mapping[str, str], body: bytes, has_left: Callable[[], bool]
    ) -> str:
        content = json.loads(body)
        run_id, at = str(content["execution_id"]), time.monotonic()
        state = None
        if self.state_of is not None and url not in self._stated:
            state = await self.state_of(run_id)
            if state is not None:
                self._stated.add(url)
        is_late = has_left() or time.monotonic() - at > _LATE_S
        answer = TOO_LATE if is_late else self._answer(url)
        arrival = Arrival(
            url, headers["webhook-id"], run_id, hashlib.sha256(body).digest(), at, self.server,
            answer, content["status"], state, self._is_signed(headers, body),
        )  # fmt: skip
        self.arrivals.append(arrival)
        self.by_url[url].append(arrival)
        if answer == ACCEPT:
            self._awaited.discard(url)
            if not self._awaited:
                self._none_awaited.set()
        return answer

    def _answer(self, url: str) -> str:
        path = url.partition("//")[2].partition("/")[
            2
        ]  # ports differ from one campaign to the next
        dice = random.Random(f"{self._seed} {path} {len(self.by_url[url])}")
        kinds, shares = list(self._faults), list(self._faults.values())
        return dice.choices([*kinds, ACCEPT], [*shares, 1 - sum(shares)])[0]

    def _is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Check the signature by the specification of Standard Webhooks, whatever the clock."""
        moment = headers["webhook-timestamp"]
        signed = f"{headers['webhook-id']}.{moment}.".encode() + body
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{digest}" in headers["webhook-signature"].split(" ")
