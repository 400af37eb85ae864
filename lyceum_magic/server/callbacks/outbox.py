"""What follows from the end of a run: its final record and callback URLs in, deliveries out."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from urllib.parse import urlsplit

from ...protocol.callback_urls import FORM, problem_of_url
from ...protocol.redaction import origin_of
from ..settings import Profile
from ..stores.base import Delivery, RunRecord
from .bodies import body_of

logger = logging.getLogger(__name__)

_PORTS = {"http": 80, "https": 443}


def problem_of(url: str, profile: Profile) -> str | None:
    """Why a server of this profile sends no callback there, in one sentence; None if it does.

    This is about the URL's text: where it leads is looked at when something is sent.
    """
    if problem := problem_of_url(url):
        return problem
    if profile == "shared" and urlsplit(url).scheme != "https":
        return f"{origin_of(url)} is not encrypted, and this server serves others: use https."
    return None


def deliveries_of(record: RunRecord, urls: Iterable[str], now: float) -> list[Delivery]:
    """One delivery for each distinct URL, due at once.

    Their ids are new each time: whoever writes them down again must write the same ones.
    """
    body = body_of(record)
    deliveries = []
    for url in dict.fromkeys(urls):
        # Servers of earlier versions have accepted any text.
        if problem_of_url(url) is None:
            deliveries.append(new_delivery(url, body, now, run_id=record.run_id))
        else:
            logger.warning("a callback URL of run %s cannot be used: %s", record.run_id, FORM)
    return deliveries


def new_delivery(url: str, body: bytes, now: float, *, run_id: str | None) -> Delivery:
    """A delivery with an id that nobody can guess, due at once.

    Args:
        url: one that `problem_of_url` has nothing against.
        run_id: None for a test.
    """
    return Delivery(
        delivery_id=f"msg_{uuid.uuid4().hex}",
        run_id=run_id,
        url=url,
        shown_url=origin_of(url),
        endpoint=endpoint_of(url),
        body=body,
        created_at=now,
        planned_at=now,
        next_at=now,
    )


def endpoint_of(url: str) -> str:
    """Scheme, host and port in lower case, the port always there: `https://example.org:443`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{parts.port or _PORTS[parts.scheme]}"
