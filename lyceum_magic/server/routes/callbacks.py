"""`callbacks/...`: the results of callbacks, sending them again, and their signing secret.

These are extensions of Lyceum's API.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from ...exceptions import LyceumError
from ...protocol import paths
from ...protocol.callbacks import (
    AttemptRecord,
    DeliveryDetails,
    DeliveryHealth,
    DeliveryList,
    DeliveryRecord,
    DeliveryState,
    SigningSecretRecord,
)
from ...protocol.limits import MAX_CALLBACK_URL
from ...protocol.times import iso
from ..outbox.targets import problem_of
from ..runners.base import InvalidField
from ..stores.base import Attempt, Delivery, OutboxStore, StoredSigningSecret
from .description import EXTENSIONS, model_of, problems
from .parts import Callbacks, Service, Settings, SigningSecrets, StoredDeliveries

_MAX_PAGE = 1000

#: Other text, such as a pasted secret, is refused without being quoted.
_ID = r"^[\w.-]{1,128}$"
_DeliveryId = Annotated[str, Path(pattern=_ID)]


class UnknownDelivery(LyceumError):
    """No delivery has the id."""


class TestCallback(BaseModel):
    """The URL that a test is sent to."""

    url: Annotated[str, Field(max_length=MAX_CALLBACK_URL, repr=False)]


_ATTEMPT = model_of(AttemptRecord)
_DELIVERY = model_of(DeliveryRecord, state=DeliveryState)
_DETAILS = model_of(DeliveryDetails, state=DeliveryState, log=list[_ATTEMPT])  # type: ignore[valid-type]
_LIST = model_of(DeliveryList, deliveries=list[_DELIVERY])  # type: ignore[valid-type]
_HEALTH = model_of(DeliveryHealth)
_SECRET = model_of(SigningSecretRecord)


router = APIRouter(tags=[EXTENSIONS])


@router.get(paths.DELIVERIES, response_model=_LIST)
async def list_deliveries(
    store: StoredDeliveries,
    execution_id: Annotated[str | None, Query(pattern=_ID)] = None,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> DeliveryList:
    """List the account's callbacks, newest first: a delivery for each run and URL, and tests."""
    return _listed(
        await store.deliveries(run_id=execution_id, state=state, limit=limit, offset=offset)
    )


@router.get(paths.run_deliveries("{run_id}"), response_model=_LIST, responses=problems(404))
async def list_of_a_run(run_id: str, service: Service, store: StoredDeliveries) -> DeliveryList:
    """List the callbacks of one run, which has some once it is over."""
    await service.find(run_id)
    return _listed(await store.deliveries(run_id=run_id, limit=_MAX_PAGE))


@router.get(paths.delivery("{delivery_id}"), response_model=_DETAILS, responses=problems(404))
async def read_delivery(delivery_id: _DeliveryId, store: StoredDeliveries) -> DeliveryDetails:
    """Read one delivery with all its attempts, oldest first."""
    return await _details(store, await store.delivery(delivery_id), delivery_id)


@router.post(paths.redeliver("{delivery_id}"), response_model=_DELIVERY, responses=problems(404))
async def redeliver(delivery_id: _DeliveryId, deliverer: Callbacks) -> DeliveryRecord:
    """Send a callback again now, under its own id, from the beginning of its schedule."""
    return _shown(_there(await deliverer.redeliver(delivery_id), delivery_id))


@router.delete(paths.delivery("{delivery_id}"), responses=problems(404))
async def remove_delivery(delivery_id: _DeliveryId, store: StoredDeliveries) -> dict[str, str]:
    """Remove a delivery and its attempts, whatever its state.

    No attempt follows. An attempt under way may still arrive, and is not logged.
    """
    if not await store.remove_delivery(delivery_id):
        _there(None, delivery_id)
    return {"message": "The delivery was removed. No further attempt is made."}


@router.post(paths.TEST_CALLBACK, response_model=_DETAILS)
async def test_callback(
    body: TestCallback, settings: Settings, store: StoredDeliveries, deliverer: Callbacks
) -> DeliveryDetails:
    """Send a callback of no run, and answer after its first attempt."""
    if problem := problem_of(body.url, settings.profile):
        raise InvalidField(problem, field="url")
    delivery = await deliverer.test(body.url)
    return await _details(store, delivery, delivery.delivery_id)


@router.get(paths.SIGNING_SECRET, response_model=_SECRET, responses=problems(500))
async def read_signing_secret(signing: SigningSecrets) -> SigningSecretRecord:
    """Read the secret that callbacks are signed with, in the form of Standard Webhooks."""
    return _secret(await signing.secrets(time.time()))


@router.post(paths.ROTATE_SIGNING_SECRET, response_model=_SECRET, responses=problems(500))
async def rotate_signing_secret(signing: SigningSecrets) -> SigningSecretRecord:
    """Make another secret. The present one signs too for a day; an older one stops at once."""
    return _secret(await signing.rotate(time.time()))


@router.get(paths.DELIVERY_HEALTH, response_model=_HEALTH)
async def read_health(deliverer: Callbacks) -> DeliveryHealth:
    """Count the callbacks that wait, fail and are given up, and list the problems of sending."""
    return await deliverer.health()


async def _details(
    store: OutboxStore, delivery: Delivery | None, delivery_id: str
) -> DeliveryDetails:
    there = _shown(_there(delivery, delivery_id))
    log = await store.attempts(delivery_id)
    return {**there, "log": [_attempt(attempt) for attempt in log]}


def _there(delivery: Delivery | None, delivery_id: str) -> Delivery:
    if delivery is None:
        raise UnknownDelivery(f"No delivery has the id {delivery_id!r}.")
    return delivery


def _listed(deliveries: Sequence[Delivery]) -> DeliveryList:
    return {"deliveries": [_shown(delivery) for delivery in deliveries]}


def _shown(delivery: Delivery) -> DeliveryRecord:
    is_delivered = delivery.state is DeliveryState.DELIVERED
    return {
        "delivery_id": delivery.delivery_id,
        "execution_id": delivery.run_id,
        "url": delivery.shown_url,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "error": delivery.error,
        "created_at": iso(delivery.created_at),
        "next_attempt_at": iso(delivery.next_at),
        "delivered_at": iso(delivery.ended_at) if is_delivered else None,
    }


def _attempt(attempt: Attempt) -> AttemptRecord:
    return {
        "number": attempt.number,
        "started_at": iso(attempt.started_at),
        "address": attempt.address,
        "status_code": attempt.status_code,
        "error": attempt.error,
        "took_ms": round(attempt.took_s * 1000, 1),
        "next_attempt_at": iso(attempt.next_at),
    }


def _secret(signing: Sequence[StoredSigningSecret]) -> SigningSecretRecord:
    """Return the reply about the signing secret.

    Args:
        signing: The secrets that sign now, newest first.
    """
    newest, *earlier = signing
    return {
        "secret": newest.value,
        "created_at": iso(newest.created_at),
        "earlier_until": iso(max((s.retires_at or 0.0 for s in earlier), default=None)),
    }
