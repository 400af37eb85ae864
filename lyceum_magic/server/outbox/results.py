"""The result of one attempt: a delivery and the outcome in, the updated delivery out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...protocol.callbacks import DeliveryState
from ..stores.base import Attempt, Delivery
from .schedule import Schedule

#: 410 Gone: the receiver wants no further attempt.
_GONE = 410


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt.

    Attributes:
        address: The address of the connection; None without one.
        status_code: The status of the answer; None without one.
        error: The reason of a failure, in one sentence that shows only the URL's scheme and host;
            empty for a success.
        retry_after_s: Seconds that the receiver asked to wait, if it did.
    """

    address: str | None
    status_code: int | None
    error: str
    retry_after_s: float | None = None


def result_of(
    delivery: Delivery,
    outcome: Outcome,
    schedule: Schedule,
    started_at: float,
    *,
    took_s: float,
    now: float,
) -> tuple[Attempt, Delivery]:
    """Return the attempt for the log, and the delivery after it.

    A test is tried once: its user waits for the result, and does not wait for two days.

    Args:
        now: When the attempt ended. The clock may have been set since it began.
    """
    attempts, tries = delivery.attempts + 1, delivery.tries + 1
    error = outcome.error
    next_at = None
    if error and delivery.run_id is not None and outcome.status_code != _GONE:
        next_at = schedule.next_at(tries, now, outcome.retry_after_s)
    attempt = Attempt(
        delivery_id=delivery.delivery_id,
        number=attempts,
        started_at=started_at,
        took_s=took_s,
        address=outcome.address,
        status_code=outcome.status_code,
        error=error,
        next_at=next_at,
    )
    state = DeliveryState.DELIVERED
    if error:
        state = DeliveryState.DEAD if next_at is None else DeliveryState.PENDING
    after = replace(
        delivery,
        state=state,
        attempts=attempts,
        tries=tries,
        planned_at=now,
        next_at=next_at,
        ended_at=now if next_at is None else None,
        error=error,
    )
    return attempt, after
