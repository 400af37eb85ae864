"""Callbacks as a sender signs them."""

from __future__ import annotations

import json
from typing import Any

from lyceum_magic.protocol.signatures import sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW_SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl"
NOW_S = 1_790_000_000

BODY: dict[str, Any] = {
    "schema": 1,
    "execution_id": "2f1c9d1e-6f0a-4f5e-9d55-0d6f3f1c2b11",
    "status": "failed",
    "return_code": 3,
    "error": "The program ended with code 3.",
    "file_name": "train.py",
    "run_name": "fold 3",
    "labels": ["sweep", "nightly"],
    "metadata": {"fold": "3"},
    "execution_type": "gpu.a100",
    "created_at": "2026-09-21T09:33:20Z",
    "started_at": "2026-09-21T09:33:21.5+00:00",
    "finished_at": "2026-09-21T11:33:22+02:00",
}


def body(**members: Any) -> bytes:
    return json.dumps({**BODY, **members}).encode()


def headers(
    content: bytes, *, secret: str = SECRET, callback_id: str = "msg_1", sent_at_s: int = NOW_S
) -> dict[str, str]:
    return {
        "webhook-id": callback_id,
        "webhook-timestamp": str(sent_at_s),
        "webhook-signature": sign(secret, callback_id, sent_at_s, content),
    }
