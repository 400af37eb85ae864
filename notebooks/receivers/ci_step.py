"""A step of a CI pipeline that builds elsewhere, and ends with the exit code of the build.

    python notebooks/receivers/ci_step.py build.py --machine cpu --timeout 600

The build runs on the server, which sends a callback at its end to a small receiver of this step.
Where no callback can come (a runner on a CI service has no public address) or none comes, the step
looks at the run now and then. `--url` is the receiver's URL through a tunnel.

Exit codes: the build's; 1 if it has none; 2 if it could not be started; 124 if `--timeout` is over,
as with `timeout`.
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
    timeout = 10  # seconds for which a sender may be silent

    def do_POST(self) -> None:
        if self.path != path:
            return self._answer(404)
        try:
            verify(read_body(self.headers, self.rfile), self.headers, signed_with)
        except InvalidCallback:
            return self._answer(400)
        self._answer(204)
        # Earlier callbacks need not be remembered: a second one sets what is already set.
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
    """Return the secrets that sign callbacks; give up now if one is wrong, not at a callback."""
    known = os.environ.get("LYCEUM_CALLBACK_SECRET", "").split()
    try:
        known = known or [lyceum_magic.signing_secret().reveal()]
        with suppress(InvalidCallback):  # there is no callback yet
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
        # A callback only ends the waiting: the end itself is read from the run.
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
