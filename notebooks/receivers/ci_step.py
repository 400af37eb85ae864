"""A step of a CI pipeline: builds elsewhere, waits for the end, and ends with its exit code.

    python notebooks/receivers/ci_step.py build.py --machine cpu --timeout 600

The build runs on the server; this step is told of its end by a callback to a small receiver of its
own. Where none can come (a runner on a CI service has no public address) or none comes, it looks
at the run now and then. `--url` says how the receiver is reached through a tunnel.

Exit codes: the build's; 1 where it has none; 2 where it could not be started; 124 where `--timeout`
is over, as `timeout` has it.
"""

import argparse
import os
import secrets
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

import lyceum_magic
from lyceum_magic.callbacks import InvalidCallback, read_body, verify

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("script", type=Path, help="the Python file that builds")
parser.add_argument("--machine", default="cpu")
parser.add_argument("--timeout", type=int, default=600, metavar="S", help="seconds, 1 to 600")
parser.add_argument("--url", help="where the runs' server reaches the receiver: https://...")
parser.add_argument("--port", type=int, default=0, help="of the receiver; any free one")
parser.add_argument("--look", type=float, default=20, metavar="S", help="looks at the run each S s")
parser.add_argument("--no-callback", action="store_true", help="only look")
options = parser.parse_args()

told = threading.Event()
path = f"/{secrets.token_urlsafe(16)}"


class Receiver(BaseHTTPRequestHandler):
    timeout = 10  # of a sender that says nothing, in seconds

    def do_POST(self) -> None:
        if self.path != path:
            return self._answer(404)
        try:
            verify(read_body(self.headers, self.rfile), self.headers, signed_with)
        except InvalidCallback:
            return self._answer(400)
        self._answer(204)
        # No store of what has come: a second callback sets what is set.
        told.set()

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the path is a secret."""


def give_up(why: object) -> NoReturn:
    parser.exit(2, f"{parser.prog}: {why}\n")


def own_secrets() -> list[str]:
    """What callbacks are signed with; a wrong one is said now, and not when the first comes."""
    known = os.environ.get("LYCEUM_CALLBACK_SECRET", "").split()
    try:
        known = known or [lyceum_magic.signing_secret().reveal()]
        with suppress(InvalidCallback):  # nothing has come
            verify(b"", {}, known)
    except lyceum_magic.LyceumError as error:
        give_up(error)
    except ValueError as error:
        give_up(f"LYCEUM_CALLBACK_SECRET cannot be used: {error}.")
    return known


def build(callback_urls: list[str]) -> int:
    """The exit code of the build."""
    deadline = time.monotonic() + options.timeout
    try:
        run = lyceum_magic.submit(
            options.script.read_text(encoding="utf-8"),
            options.machine,
            timeout_s=options.timeout,
            name=options.script.name,
            labels=["ci"],
            callback_urls=callback_urls,
        )
    except (lyceum_magic.LyceumError, SyntaxError, OSError, ValueError) as error:
        give_up(error)
    print(f"run {run.id} on {run.machine}", flush=True)
    try:
        # A callback ends the waiting and says nothing else: the run itself says how it ended.
        while not told.wait(min(options.look, max(0.0, deadline - time.monotonic()))):
            if run.state.is_final:  # the handle follows the run's stream
                break
            if time.monotonic() >= deadline:
                run.abort()
                print(run.text, end="", flush=True)
                print(f"not over after {options.timeout} s: aborted", file=sys.stderr)
                return 124
    except KeyboardInterrupt:  # the pipeline was cancelled
        run.abort()
        return 130
    state = run.wait(timeout_s=60)
    print(run.text, end="")
    print(f"{state} after {run.elapsed_s:.1f} s", "(told)" if told.is_set() else "(found out)")
    if state == "completed":
        return 0
    print(run.reason, file=sys.stderr)
    if isinstance(run.failure(), lyceum_magic.RunTimedOut):
        return 124
    return run.return_code or 1


if options.no_callback:
    sys.exit(build([]))
signed_with = own_secrets()
try:
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Receiver)
except (OSError, OverflowError) as error:
    give_up(f"port {options.port} cannot be used: {error}")
with server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        code = build([(options.url or f"http://127.0.0.1:{server.server_port}") + path])
    finally:
        server.shutdown()
sys.exit(code)
