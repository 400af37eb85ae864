"""The account's callbacks: their deliveries and the secret that signs them.

An extension of Lyceum's API that the embedded server has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .. import config
from ..exceptions import ProtocolError, RequestRefused
from ..protocol import paths
from ..protocol.callbacks import (
    AttemptRecord,
    DeliveryDetails,
    DeliveryHealth,
    DeliveryRecord,
    DeliveryState,
)
from .answers import error_of, objects, read_object
from .lean_httpx import httpx
from .storage import RequestSender

#: Maximum number of deliveries that a server lists at a time.
MAX_PAGE = 1000
#: Maximum seconds until a test is answered: the server answers after its first attempt, which may
#: itself wait for a receiver.
TEST_SILENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """The secret that signs callbacks.

    Attributes:
        secret: `whsec_...`.
        earlier_until: the time at which the one before it stops signing beside it, in ISO 8601;
            None if it has stopped.
    """

    secret: config.Secret
    earlier_until: str | None = None


class Callbacks:
    """The account's callbacks.

    Every call raises the errors of `Client`, and RequestRefused, with one sentence, if the server
    keeps no log of deliveries.
    """

    def __init__(self, client: RequestSender) -> None:
        self._client = client

    async def deliveries(
        self,
        run_id: str | None = None,
        *,
        state: DeliveryState | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[DeliveryRecord]:
        """Return deliveries without their attempts, newest first: all, of one run, in one state.

        A run that the server does not know has none.
        """
        query: dict[str, int | str] = {"limit": limit, "offset": offset}
        query |= {} if run_id is None else {"execution_id": run_id}
        query |= {} if state is None else {"state": state.value}
        answer = await self._ask("GET", paths.DELIVERIES, params=query)
        return [_delivery(item) for item in objects(answer.get("deliveries"))]

    async def delivery(self, delivery_id: str) -> DeliveryDetails:
        """Return one delivery with its attempts."""
        return _details(await self._ask("GET", paths.delivery(_quoted(delivery_id)), delivery_id))

    async def redeliver(self, delivery_id: str) -> DeliveryRecord:
        """Send a delivery again, from the beginning of its schedule and under its own id."""
        path = paths.redeliver(_quoted(delivery_id))
        return _delivery(await self._ask("POST", path, delivery_id))

    async def remove(self, delivery_id: str) -> None:
        """Remove a delivery and its attempts; no further attempt is made."""
        await self._ask("DELETE", paths.delivery(_quoted(delivery_id)), delivery_id)

    async def test(self, url: str) -> DeliveryDetails:
        """Send a callback of no run; return its delivery after the first attempt."""
        body = {"url": url}
        return _details(
            await self._ask("POST", paths.TEST_CALLBACK, json=body, silence_s=TEST_SILENCE_S)
        )

    async def signing_secret(self) -> SigningSecret:
        """Return the secret that signs callbacks."""
        return _signing_secret(await self._ask("GET", paths.SIGNING_SECRET))

    async def rotate_signing_secret(self) -> SigningSecret:
        """Make a new secret and return it; the present one signs beside it for a day."""
        return _signing_secret(await self._ask("POST", paths.ROTATE_SIGNING_SECRET))

    async def health(self) -> DeliveryHealth:
        """Return the state of all deliveries, and the reasons why the server sends none."""
        answer = await self._ask("GET", paths.DELIVERY_HEALTH)
        errors = answer.get("errors")
        return {
            "pending": _number(answer.get("pending")),
            "failing": _number(answer.get("failing")),
            "dead": _number(answer.get("dead")),
            "next_attempt_at": _text(answer.get("next_attempt_at")),
            "errors": [str(error) for error in errors] if isinstance(errors, list) else [],
        }

    async def _ask(
        self, method: str, path: str, named: str | None = None, **what: Any
    ) -> dict[str, Any]:
        """Send a request and return the object in its answer.

        Args:
            named: the id in the path, None if there is none. A server that has the path names the
                id when it does not find it; one that lacks the path does not.
        """
        response = await self._client.send(method, path, **what)
        if _has_no_log(response, named):
            raise RequestRefused(
                f"{self._client.account.base_url} keeps no log of callbacks that this package "
                "knows of; the embedded server does, for runs with --local.",
                status_code=response.status_code,
            )
        if not response.is_success:
            raise error_of(response, source=self._client.account.source)
        return read_object(response, source=self._client.account.source)


def _has_no_log(response: httpx.Response, named: str | None) -> bool:
    is_ours = named is not None and named in response.text
    return response.status_code in (405, 501) or (response.status_code == 404 and not is_ours)


def _signing_secret(answer: dict[str, Any]) -> SigningSecret:
    secret = answer.get("secret")
    if not isinstance(secret, str) or not secret:
        raise ProtocolError("The server should answer with a signing secret, and does not.")
    return SigningSecret(config.Secret(secret), _text(answer.get("earlier_until")))


def _details(item: dict[str, Any]) -> DeliveryDetails:
    return {**_delivery(item), "log": [_attempt(entry) for entry in objects(item.get("log"))]}


def _delivery(item: dict[str, Any]) -> DeliveryRecord:
    return {
        "delivery_id": str(item.get("delivery_id")),
        "execution_id": _text(item.get("execution_id")),
        "url": str(item.get("url") or ""),
        "state": str(item.get("state") or ""),
        "attempts": _number(item.get("attempts")),
        "error": str(item.get("error") or ""),
        "created_at": str(item.get("created_at") or ""),
        "next_attempt_at": _text(item.get("next_attempt_at")),
        "delivered_at": _text(item.get("delivered_at")),
    }


def _attempt(item: dict[str, Any]) -> AttemptRecord:
    status, took = item.get("status_code"), item.get("took_ms")
    return {
        "number": _number(item.get("number")),
        "started_at": str(item.get("started_at") or ""),
        "address": _text(item.get("address")),
        "status_code": status if isinstance(status, int) else None,
        "error": str(item.get("error") or ""),
        "took_ms": float(took) if isinstance(took, int | float) else 0.0,
        "next_attempt_at": _text(item.get("next_attempt_at")),
    }


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _quoted(delivery_id: str) -> str:
    return quote(delivery_id, safe="")
