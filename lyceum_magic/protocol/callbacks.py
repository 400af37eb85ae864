"""Completion callbacks on the wire: body, headers, states of a delivery.

Only the standard library is imported: receivers live in other people's programs.

Source: the founding page says "job completion info"; body, headers and retries are undocumented
there, so these are ours (`SCHEMA` counts their versions). The headers are Standard Webhooks'.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypedDict

#: The version of `CallbackBody`.
SCHEMA = 1

#: The same in every attempt of one delivery: a receiver that has seen it can ignore the attempt.
ID_HEADER = "webhook-id"
#: Seconds since 1970 at which this attempt was made.
TIMESTAMP_HEADER = "webhook-timestamp"
#: One or more signatures, `v1,<base64>`, separated by spaces; see `protocol.signatures`.
SIGNATURE_HEADER = "webhook-signature"

CONTENT_TYPE = "application/json"

#: Maximum bytes of a body that a receiver of ours reads.
MAX_BODY_BYTES = 64 * 1024

#: In the folder of an embedded server from its end to its next start, with `DeliveriesLeft` in
#: JSON. One that was killed leaves none.
LEFT_FILE = "deliveries.json"

#: The value of `--callback` that means "this notebook".
HERE = "here"


class CallbackBody(TypedDict):
    """The body that is POSTed when a run ends. It never holds code, credentials or a traceback.

    Times are ISO 8601 in UTC; `error` is one sentence, empty for a run that completed.
    """

    schema: int
    execution_id: str
    status: str
    return_code: int | None
    error: str
    file_name: str | None
    run_name: str | None
    labels: list[str]
    metadata: dict[str, str]
    execution_type: str
    created_at: str
    started_at: str | None
    finished_at: str | None


class DeliveryState(StrEnum):
    """The state of one delivery: of one callback to one URL."""

    PENDING = "pending"  # an attempt is under way or planned
    DELIVERED = "delivered"
    DEAD = "dead"  # given up, and kept until a user sends it again or removes it


class AttemptRecord(TypedDict):
    """One attempt, in the API's answers.

    `address` is the address that was connected to, None if no connection was made; `error` is one
    sentence, empty for a success.
    """

    number: int
    started_at: str
    address: str | None
    status_code: int | None
    error: str
    took_ms: float
    next_attempt_at: str | None


class DeliveryRecord(TypedDict):
    """One delivery, in the API's answers.

    `execution_id` is None for a test; `url` is scheme and host alone, `https://host/...`;
    `error` is that of the last attempt.
    """

    delivery_id: str
    execution_id: str | None
    url: str
    state: str
    attempts: int
    error: str
    created_at: str
    next_attempt_at: str | None
    delivered_at: str | None


class DeliveryDetails(DeliveryRecord):
    """A delivery with every attempt, oldest first."""

    log: list[AttemptRecord]


class DeliveriesLeft(TypedDict):
    """The counts of callbacks that an embedded server leaves in `LEFT_FILE` when it ends.

    `pending` counts those with attempts to come, `failing` those of them that have failed at least
    once, `dead` those given up.
    """

    pending: int
    failing: int
    dead: int
    next_attempt_at: str | None


class DeliveryHealth(DeliveriesLeft):
    """The state of an account's deliveries as a whole.

    `errors` are sentences about what keeps the server from sending any (a disk that cannot be
    written); empty if nothing does.
    """

    errors: list[str]


class DeliveryList(TypedDict):
    """A list of deliveries, newest first."""

    deliveries: list[DeliveryRecord]


class SigningSecretRecord(TypedDict):
    """The secret that signs callbacks.

    `secret` is `whsec_...`; `earlier_until` is the time at which the one before it stops signing
    beside it, None if it has stopped.
    """

    secret: str
    created_at: str
    earlier_until: str | None
