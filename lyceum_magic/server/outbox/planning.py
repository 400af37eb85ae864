"""The deliveries of a run's end: its final record and callback URLs in, deliveries out."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable

from ...protocol.callback_urls import FORM, read_url
from ..stores.base import Delivery, RunRecord
from .bodies import body_of

logger = logging.getLogger(__name__)


def deliveries_of(record: RunRecord, urls: Iterable[str], now: float) -> list[Delivery]:
    """Return one delivery for each distinct URL, due at once.

    Their ids are new each time: to store the same end again, use the same deliveries.
    """
    body = body_of(record)
    deliveries = []
    for url in dict.fromkeys(urls):
        try:
            deliveries.append(new_delivery(url, body, now, run_id=record.run_id))
        except ValueError:
            # Servers of earlier versions accepted any text.
            logger.warning("A callback URL of run %s cannot be used: %s", record.run_id, FORM)
    return deliveries


def new_delivery(url: str, body: bytes, now: float, *, run_id: str | None) -> Delivery:
    """Return a delivery with a random id, due at once.

    Args:
        run_id: None for a test.

    Raises:
        ValueError: The URL is not a callback URL, see `read_url`.
    """
    read = read_url(url)
    return Delivery(
        delivery_id=f"msg_{uuid.uuid4().hex}",
        run_id=run_id,
        url=url,
        shown_url=read.origin,
        endpoint=read.endpoint,
        body=body,
        created_at=now,
        planned_at=now,
        next_at=now,
    )
