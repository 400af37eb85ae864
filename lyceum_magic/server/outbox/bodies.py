"""The body of a callback: a run's final record in, the bytes that every attempt sends out."""

from __future__ import annotations

import json
import uuid
from typing import TypeVar

from ...protocol.callbacks import MAX_BODY_BYTES, SCHEMA, CallbackBody
from ...protocol.states import State
from ...protocol.times import iso
from ..stores.base import RunRecord

_T = TypeVar("_T")

#: The lengths that texts are cut to, in characters, until the body is small enough.
_LIMITS = (4096, 1024, 256, 32)
_CUT = "…"

#: The metadata of a test.
TEST_METADATA = {"lyceum_magic_test": "true"}


def body_of(record: RunRecord) -> bytes:
    """Return the report of a run that is over, as compact JSON in UTF-8.

    It has at most `MAX_BODY_BYTES`. If names, labels, metadata and error make it larger, every text
    of more than 4096 characters is cut to that length and ends in `…`; if it is still too large,
    every text of more than 1024, then 256, and at last 32. If keys of metadata become equal, the
    last wins.
    """
    request = record.request
    return _encoded(
        {
            "schema": SCHEMA,
            "execution_id": record.run_id,
            "status": record.state.value,
            "return_code": record.return_code,
            "error": " ".join(record.error.split()),
            "file_name": request.file_name,
            "run_name": request.run_name,
            "labels": request.labels or [],
            "metadata": request.metadata or {},
            "execution_type": request.execution_type,
            "created_at": iso(record.created_at),
            "started_at": iso(record.started_at),
            "finished_at": iso(record.finished_at),
        }
    )


def body_of_test(now: float) -> bytes:
    """Return the body of a test: a report of a completed run that does not exist."""
    moment = iso(now)
    return _encoded(
        {
            "schema": SCHEMA,
            "execution_id": str(uuid.uuid4()),
            "status": State.COMPLETED.value,
            "return_code": 0,
            "error": "",
            "file_name": None,
            "run_name": "test of a callback",
            "labels": [],
            "metadata": TEST_METADATA,
            "execution_type": "cpu",
            "created_at": moment,
            "started_at": moment,
            "finished_at": moment,
        }
    )


def _encoded(body: CallbackBody) -> bytes:
    data = _json(body)
    for limit in _LIMITS:
        if len(data) <= MAX_BODY_BYTES:
            break
        data = _json(_cut(body, limit))
    return data


def _json(body: CallbackBody) -> bytes:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # half of a surrogate pair is not text


def _cut(value: _T, limit: int) -> _T:
    cut: object = value
    if isinstance(value, str) and len(value) > limit:
        cut = value[: limit - len(_CUT)] + _CUT
    elif isinstance(value, list):
        cut = [_cut(item, limit) for item in value]
    elif isinstance(value, dict):
        cut = {_cut(key, limit): _cut(item, limit) for key, item in value.items()}
    return cut  # type: ignore[return-value]  # of the type of `value`
