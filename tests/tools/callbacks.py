"""The callbacks that arrive at a URL, and those that should have come for a run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import start_blocking_portal

from lyceum_magic.protocol import paths
from tests.tools.embedded import run_folder
from tests.tools.waiting import eventually

from .receiver import Answer, Receiver, Request
from .served_process import ServedProcess

#: Fields with the same value in a callback's body and in the run's record.
_SAME = (
    "execution_id", "status", "return_code", "file_name", "run_name", "labels", "metadata",
    "execution_type", "created_at",
)  # fmt: skip


class CallbackReceiver:
    """A receiver for tests without an event loop. It answers 204, or as `answers` says for a path.

    Attributes:
        answers: path -> a status, or all that is sent before the connection is closed.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self._receiver = Receiver(self._answer)

    @property
    def origin(self) -> str:
        return self._receiver.origin

    @property
    def received(self) -> list[Request]:
        return self._receiver.received

    def urls(self, name: str) -> list[str]:
        """Return two URLs for one run."""
        return [f"{self.origin}/{name}/{number}" for number in range(2)]

    def at(self, path: str, number: int = 1) -> list[Request]:
        """Return all requests to a path, once there are at least `number`."""

        def there() -> list[Request] | None:
            found = [callback for callback in self.received if callback.path == path]
            return found if len(found) >= number else None

        return eventually(there, f"{number} callbacks at {path}")

    async def _answer(self, request: Request) -> Answer:
        return self.answers.get(request.path, 204)


@contextmanager
def receiving() -> Iterator[CallbackReceiver]:
    """Receive on a free port of loopback during the block, on a thread of its own."""
    receiver = CallbackReceiver()
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(receiver._receiver.listening()),
    ):
        yield receiver


def told_once(server: ServedProcess, receiver: CallbackReceiver, name: str, run_id: str) -> None:
    """Check that each of a run's two URLs got one callback, and that it agrees with the record.

    Args:
        name: of its URLs, and the state in which it should have ended.
    """
    found = [receiver.at(f"/{name}/{number}") for number in range(2)]
    record = server.client.get(paths.record(run_id)).json()
    assert record["status"] == name
    (first,), (second,) = found
    assert first.content == second.content == _body_of(record)

    def delivered() -> list[dict[str, Any]] | None:
        listed = server.client.get(paths.run_deliveries(run_id)).json()["deliveries"]
        return listed if {delivery["state"] for delivery in listed} == {"delivered"} else None

    deliveries = eventually(delivered, "the deliveries are written down")
    assert [delivery["attempts"] for delivery in deliveries] == [1, 1]
    sent = {callback.headers["webhook-id"] for callback in (first, second)}
    assert sent == {delivery["delivery_id"] for delivery in deliveries}


def lose(server: ServedProcess, run_id: str) -> None:
    """Kill the supervisor of a run, which is a failure of the system."""
    facts = json.loads((run_folder(server.folder, run_id) / "supervisor.json").read_text())
    os.kill(facts["pid"], signal.SIGKILL)


def _body_of(record: dict[str, Any]) -> dict[str, Any]:
    """The body that a callback of a run should have, given its record as the API has it."""
    return {
        "schema": 1,
        **{name: record[name] for name in _SAME},
        "error": " ".join(record["system_errors"]),
        "started_at": record["start_time"],
        "finished_at": record["end_time"],
    }
