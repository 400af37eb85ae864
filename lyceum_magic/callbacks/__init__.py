"""Callbacks in your own program: verify the sender, read the event, handle each event once.

::

    from lyceum_magic.callbacks import InvalidCallback, SqliteSeen, verify

    seen = SqliteSeen("callbacks.db")

    def on_post(body: bytes, headers: Mapping[str, str]) -> int:
        try:
            event = verify(body, headers, os.environ["LYCEUM_CALLBACK_SECRET"])
        except InvalidCallback:
            return 400
        with seen.once(event) as is_new:
            if is_new:
                queue.put(event.run_id)  # a hint: the worker reads the run again
        return 204

Only the standard library is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import InvalidCallback
from ..protocol.callbacks import MAX_BODY_BYTES
from .events import CallbackEvent, Headers, read, read_body
from .verification import verify, verify_shared

if TYPE_CHECKING:
    from .seen import Seen, SqliteSeen

__all__ = [
    "MAX_BODY_BYTES",
    "CallbackEvent",
    "Headers",
    "InvalidCallback",
    "Seen",
    "SqliteSeen",
    "read",
    "read_body",
    "verify",
    "verify_shared",
]


def __getattr__(name: str) -> Any:
    # A program that keeps events in another database need not load SQLite.
    if name not in ("Seen", "SqliteSeen"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import seen

    value = globals()[name] = getattr(seen, name)
    return value
