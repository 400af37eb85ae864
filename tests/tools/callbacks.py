"""The callbacks that arrive at a URL, and those that should have come for a run."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lyceum_magic.protocol import paths
from tests.tools.embedded import run_folder
from tests.tools.served_process import ServedProcess
from tests.tools.waiting import eventually

#: Members of a body that are as in the run's record.
_SAME = (
    "execution_id", "status", "return_code", "file_name", "run_name", "labels", "metadata",
    "execution_type", "created_at",
)  # fmt: skip


@dataclass(frozen=True)
class Callback:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class CallbackReceiver:
    """A receiver that keeps every POST, and answers 204, or what `answers` has for the path.

    Attributes:
        answers: path -> a status, or all that is sent before the connection is closed.
    """

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.received: list[Callback] = []
        self.answers: dict[str, int | bytes] = {}

    def urls(self, name: str) -> list[str]:
        """Two URLs of one run."""
        return [f"{self.origin}/{name}/{number}" for number in range(2)]

    def at(self, path: str, number: int = 1) -> list[Callback]:
        """Return all that came to a path, once there are `number` of them."""

        def there() -> list[Callback] | None:
            found = [callback for callback in self.received if callback.path == path]
            return found if len(found) >= number else None

        return eventually(there, f"{number} callbacks at {path}")


@contextmanager
def receiving() -> Iterator[CallbackReceiver]:
    """A receiver on a free port of loopback, for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append(Callback(self.path, dict(self.headers.items()), body))
            answer = receiver.answers.get(self.path, 204)
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                return
            self.send_response(answer)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = CallbackReceiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def told_once(server: ServedProcess, receiver: CallbackReceiver, name: str, run_id: str) -> None:
    """Each of a run's two URLs got one callback, which says what its record says, or it fails.

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
