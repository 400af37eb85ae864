"""Lyceum's API, endpoint by endpoint: typed values in, JSON objects or typed errors out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast
from urllib.parse import quote

import anyio
import httpcore

from .. import config
from ..exceptions import ConfigError, LyceumError, ProtocolError, RequestRefused, ServerUnreachable
from ..protocol import paths
from ..protocol.records import Record
from ..protocol.requests import Start
from ..protocol.times import moment_of
from .answers import error_of, objects, read_json, read_object
from .callbacks import Callbacks
from .keys import Keys
from .lean_httpx import httpx
from .proving import prove_other_end
from .sessions import SessionKeeper, Sessions
from .sign_in import needs_refresh, refreshed
from .storage import Storage
from .transport import build_http_client

_NO_HEADERS: Mapping[str, str] = {}
#: Seconds for which prices are kept: they change rarely, and every cell shows them.
PRICES_LAST_S = 300.0
#: Maximum seconds that a cell waits to learn its price.
PRICES_LIMIT_S = 3.0

#: Coroutine function that finds the server of an account again, or starts it again.
Relocate = Callable[[], Awaitable[config.Account]]


@dataclass(frozen=True)
class StartAnswer:
    """The reply to a start. `streaming_url` is None if the server gave none that can be used."""

    run_id: str
    streaming_url: str | None = field(repr=False)  # it holds the stream's secret


@dataclass(frozen=True, slots=True)
class AccountSecret:
    """A secret of the account, without its value; `updated_at` is as the server words it."""

    id: str
    name: str
    updated_at: str = ""


class StartUnknown(ServerUnreachable):
    """The connection broke after a start was sent: it may have been received, or not."""


class Client:
    """An account's view of Lyceum's API.

    Args:
        account: the server and the key; None looks at the environment and the login file.
        relocate: for the embedded server: called when it does not answer or refuses the key;
            returns its account.
        check_connection: see `transport.build_http_client`.
        transport: stands in for the network in tests.

    Attributes:
        sessions: the account's sessions; the workspace puts another keeper in the place of one
            whose server keeps none.

    Raises (every call):
        NotAuthorised, QuotaExceeded, RequestRefused, ServerError: the server answered with one.
        ServerUnreachable: no connection, or it broke and reads could not be repeated.
        ProtocolError: the answer does not come from a Lyceum server.
        ConfigError: another server listens at the address of a login than the one it was for.
    """

    def __init__(
        self,
        account: config.Account | None = None,
        *,
        relocate: Relocate | None = None,
        check_connection: Callable[[], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        account = account or config.find_account()
        if account is None:
            raise ConfigError(
                "There is no API key: set LYCEUM_API_KEY, or sign in with `lyceum auth login`."
            )
        self.account = account
        self.sessions: SessionKeeper = Sessions(self)
        self._relocate = relocate
        self._http = build_http_client(
            account.base_url,
            check_connection=check_connection,
            prove_other_end=self._prove_other_end if account.needs_proof else None,
            transport=transport,
        )
        self.known_hardware: frozenset[str] = frozenset()
        self._renewing: anyio.Lock | None = None
        self._prices: dict[str, float | None] = {}
        self._prices_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    # Starting.

    async def start(self, request: Start) -> StartAnswer:
        """Start a run of any kind. The request is sent once, whatever happens.

        Raises:
            StartUnknown: it was sent, and no reply came.
        """
        response = await self.send(
            "POST",
            paths.STARTS[request.kind],
            headers={"Content-Type": "application/json"},
            content=request.body(),
        )
        reply = read_object(response, source=self.account.source)
        run_id = reply.get("execution_id")
        if not isinstance(run_id, str) or not run_id:
            raise ProtocolError(
                "The reply to a start should hold an `execution_id`, and does not; "
                "look at `%lyceum list` before you run the cell again."
            )
        url = reply.get("streaming_url")
        usable = isinstance(url, str) and url.startswith(("http://", "https://"))
        return StartAnswer(run_id, url if usable else None)

    # Reading.

    async def record(self, run_id: str) -> Record:
        return cast(Record, await self._get_object(paths.record(run_id)))

    async def timing(self, run_id: str) -> dict[str, Any]:
        return await self._get_object(paths.timing(run_id))

    async def legacy_status(self, run_id: str) -> dict[str, Any]:
        """Return `status` and `errors`; for servers whose record endpoint fails."""
        return await self._get_object(paths.legacy_status(run_id))

    async def active(self) -> list[Record]:
        """Return the runs that have not ended, newest first."""
        response = await self.send("GET", paths.WORKLOADS)
        return _records(read_json(response, source=self.account.source))

    async def history(self, limit: int = 50) -> list[Record]:
        """Return past and present runs, newest first."""
        answer = await self._get_object(paths.HISTORY, limit=limit)
        return _records(answer.get("executions"))

    async def machine_types(self) -> dict[str, float | None]:
        """Return machine name -> price in dollars an hour, None if the server gives none."""
        answer = await self._get_object(paths.MACHINE_TYPES)
        prices: dict[str, float | None] = {}
        for item in objects(answer.get("machine_types")):
            price = item.get("price_per_hour")
            name = str(item.get("hardware_profile"))
            prices[name] = _sum(price)
        return prices

    def known_price(self, machine: str) -> float | None:
        """Return a machine's price in dollars an hour as last heard, without a request."""
        return self._prices.get(machine)

    @property
    def knows_prices(self) -> bool:
        """Return whether no request for prices is due: one was made a short while ago."""
        return time.monotonic() < self._prices_until

    async def learn_prices(self) -> None:
        """Ask for the prices. Never raises, since no run may fail for want of them."""
        self._prices_until = time.monotonic() + PRICES_LAST_S
        with contextlib.suppress(LyceumError), anyio.move_on_after(PRICES_LIMIT_S):
            self._prices = await self.machine_types()

    async def billed(self, run_id: str) -> float | None:
        """Return the cost of an ended run in dollars; None if the server does not give it.

        Never raises, since no run may fail for want of it.
        """
        with contextlib.suppress(LyceumError), anyio.move_on_after(PRICES_LIMIT_S):
            return billed_of(await self.record(run_id))
        return None

    async def available_hardware(self) -> frozenset[str]:
        """Return the machines that this account may use; empty if the server does not list them.

        Asked once, then remembered: the answer changes with the account's plan, not between cells.
        """
        if not self.known_hardware:
            answer = await self._get_object(paths.AVAILABLE_HARDWARE)
            names = answer.get("available_hardware_profiles")
            self.known_hardware = frozenset(map(str, names if isinstance(names, list) else ()))
        return self.known_hardware

    async def org(self) -> dict[str, Any]:
        return await self._get_object(paths.ORG)

    async def ping(self) -> dict[str, Any]:
        return await self._get_object(paths.HEALTH)

    async def logs(self, run_id: str, *, limit: int = 1000, hours: int = 24) -> list[str]:
        """Return the log lines of a run, oldest first."""
        answer = await self._get_object(paths.logs(run_id), limit=limit, hours=hours)
        return [str(line.get("message", "")) for line in objects(answer.get("logs"))]

    async def metrics(self, run_id: str, step_s: int = 15) -> dict[str, Any]:
        """Return a run's use of its machine: series -> its list of `timestamp` and `value`.

        There is one item for each step.
        """
        return await self._get_object(paths.metrics(run_id), step=f"{step_s}s")

    # The account's own.

    @property
    def storage(self) -> Storage:
        """The account's files."""
        return Storage(self)

    @property
    def callbacks(self) -> Callbacks:
        """The account's callbacks and their deliveries."""
        return Callbacks(self)

    @property
    def keys(self) -> Keys:
        """The account's API keys."""
        return Keys(self)

    async def secrets(self) -> list[AccountSecret]:
        """Return the account's secrets, by name; the server never gives their values."""
        answer = await self._get_object(paths.SECRETS)
        found = [
            AccountSecret(str(item.get("id")), str(item.get("name") or item.get("key")),
                   str(item.get("updated_at") or ""))
            for item in objects(answer.get("environment_variables"))
        ]  # fmt: skip
        return sorted(found, key=lambda secret: secret.name)

    async def set_secret(self, name: str, value: str) -> None:
        """Keep a value under a name, in place of an earlier one."""
        variables = [{"name": name, "value": value}]
        body = {"environment_variables": variables}
        read_json(await self.send("POST", paths.SECRETS, json=body), source=self.account.source)

    async def remove_secret(self, secret_id: str) -> None:
        response = await self.send("DELETE", paths.secret(quote(secret_id, safe="")))
        if not response.is_success:
            raise error_of(response, source=self.account.source)

    # Ending.

    async def abort(self, run_id: str) -> str:
        """Kill the run and return its status; for a run that is over this is no error."""
        return await self._end(paths.abort(run_id))

    async def stop(self, run_id: str) -> str:
        """End the run gracefully and return the status that the server reports."""
        return await self._end(paths.stop(run_id))

    async def _end(self, path: str) -> str:
        response = await self.send("POST", path)
        if response.status_code in (404, 409):
            return "already over"
        return str(read_object(response, source=self.account.source).get("status", ""))

    # Streaming.

    @contextlib.asynccontextmanager
    async def open_stream(
        self, run_id: str, streaming_url: str | None, last_event_id: str | None
    ) -> AsyncIterator[httpx.Response]:
        """Yield the answer to a request for a run's event stream, whatever its status."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        if self._is_own_origin(self._stream_url(run_id, streaming_url)):
            await self._sign_in()

        async def once() -> httpx.Response:
            url = self._stream_url(run_id, streaming_url)
            is_ours = self._is_own_origin(url)
            request = self._http.build_request(
                "POST",
                url,
                headers=headers | (self._credentials() if is_ours else {}),
                timeout=httpx.Timeout(10.0, read=None),
            )
            return await self._http.send(request, stream=True)

        response = await self._with_present_key(once)
        try:
            yield response
        finally:
            await response.aclose()

    def _stream_url(self, run_id: str, streaming_url: str | None) -> httpx.URL:
        base = self._http.base_url
        if streaming_url is None:
            return base.join(paths.stream(run_id))
        url = httpx.URL(streaming_url)
        if self.account.is_embedded:
            # The server may have come back on another port; path and secret stay the same.
            return url.copy_with(host=base.host, port=base.port)
        return url

    def _is_own_origin(self, url: httpx.URL) -> bool:
        base = self._http.base_url
        default = {"http": 80, "https": 443}
        return (url.scheme, url.host, url.port or default.get(url.scheme)) == (
            base.scheme, base.host, base.port or default.get(base.scheme),
        )  # fmt: skip

    # Sending.

    async def relocate(self) -> None:
        """Look for the embedded server again, after it did not answer or refused the key.

        Other accounts stay as they are.

        Raises:
            EmbeddedServerError: it could not be started again.
        """
        if self._relocate is not None:
            self.account = await self._relocate()
            self._http.base_url = httpx.URL(self.account.base_url)

    async def _get_object(self, path: str, **query: Any) -> dict[str, Any]:
        response = await self.send("GET", path, params=query or None)
        return read_object(response, source=self.account.source)

    async def send(
        self,
        method: str,
        path: str,
        *,
        is_streamed: bool = False,
        silence_s: float | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        **what: Any,
    ) -> httpx.Response:
        """Send a request and return the answer, whatever its status.

        Args:
            is_streamed: leave the body unread; the caller reads and closes it.
            silence_s: how long the server may be silent; None for the client's default.
            headers: in addition to those of the account.
            what: arguments of httpx: params, json, content, files.
        """

        async def once() -> httpx.Response:
            request = self._http.build_request(
                method,
                path,
                headers={**headers, **self._credentials()},
                timeout=httpx.USE_CLIENT_DEFAULT if silence_s is None else silence_s,
                **what,
            )
            return await self._http.send(request, stream=is_streamed)

        await self._sign_in()
        try:
            try:
                return await self._with_present_key(once)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                # Nothing was sent, so even a start may be tried once more.
                if self._relocate is None:
                    raise
                await self.relocate()
                return await self._with_present_key(once)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise self._unreachable(exc) from None
        except httpx.RequestError as exc:
            if method == "POST" and path in paths.STARTS.values():
                raise StartUnknown(
                    f"The connection to {self.account.base_url} broke before it answered the start "
                    f"({type(exc).__name__})."
                ) from None
            raise self._unreachable(exc) from None

    async def _with_present_key(
        self, once: Callable[[], Awaitable[httpx.Response]]
    ) -> httpx.Response:
        """Send a request, and once more if the embedded server has a new key.

        The key changes when the server starts again, and a server at the same address gives no
        other sign of it. A refused request (401) was not carried out, so even a start may be sent
        again.
        """
        used = self.account.token
        response = await once()
        if response.status_code != 401 or self._relocate is None:
            return response
        await response.aread()
        if self.account.token == used:  # else another request has already looked
            await self.relocate()
        return response if self.account.token == used else await once()

    async def _prove_other_end(self, stream: httpcore.AsyncNetworkStream) -> None:
        await prove_other_end(stream, self.account)

    async def _sign_in(self) -> None:
        """Renew a token that is about to expire; of several callers at once, one does."""
        if not needs_refresh(self.account.token.reveal(), time.time()):
            return
        self._renewing = self._renewing or anyio.Lock()
        async with self._renewing:
            try:
                self.account = await refreshed(self.account, self._http)
            except httpx.RequestError as exc:
                raise self._unreachable(exc) from None

    def _credentials(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.account.token.reveal()}"}
        if self.account.org:
            headers["X-Org-Slug"] = self.account.org
        return headers

    def _unreachable(self, exc: Exception) -> ServerUnreachable:
        kind = "did not answer in time" if isinstance(exc, httpx.TimeoutException) else (
            "cannot be reached" if isinstance(exc, httpx.ConnectError) else "broke the connection"
        )  # fmt: skip
        return ServerUnreachable(
            f"{self.account.base_url} {kind} ({type(exc).__name__}); check the network and the "
            "address (LYCEUM_BASE_URL, or base_url in the login), or run the cell with --local."
        )


def billed_of(record: Record) -> float | None:
    """Return the cost of the run in its record; None if it is 0, as it is before it is billed."""
    return _sum(record.get("billed")) or None


def ended_at_of(record: Record) -> float | None:
    """Return the time of the run's end in its record, in seconds since 1970, or None."""
    return moment_of(record.get("job_end"))


def _sum(value: object) -> float | None:
    """Return a sum of money from a server's answer; None if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    return None


def _records(value: object) -> list[Record]:
    return [cast(Record, item) for item in objects(value)]


def is_gone(exc: Exception) -> bool:
    """Return whether an error says that the server does not know the run (any more)."""
    return isinstance(exc, RequestRefused) and exc.status_code in (404, 409, 410)
