"""A worker that runs every job of a table, and ticks each off once.

    python notebooks/receivers/queue_worker.py --add 5     # five jobs, then work until none is left
    python notebooks/receivers/queue_worker.py             # go on after it was ended, or killed

A job goes waiting -> running -> ended (after its callback) -> its run's state (read from the
server). It may also become `refused`, or `lost` if its end cannot be found out: then a person has
to decide. Keep the port: callbacks of runs that outlive this process reach it when it is started
again, and a second worker cannot take the same jobs.

To copy: `Receiver`, the one transaction in it, and `find_lost`. The rest is as in any worker.
"""

import argparse
import os
import sqlite3
import sys
import threading
import uuid
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import lyceum_magic
from lyceum_magic.callbacks import InvalidCallback, SqliteSeen, read_body, verify
from lyceum_magic.exceptions import LyceumError, OptionError, RequestRefused, UnknownRun

AT_ONCE = 4
#: Seconds without a callback after which the worker asks the server: a callback may be lost.
LOOK_S = 60

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--add", type=int, default=0, metavar="N", help="put N jobs into the table")
parser.add_argument("--database", default="jobs.db")
parser.add_argument("--machine", default="cpu")
parser.add_argument("--port", type=int, default=8322)
parser.add_argument("--url", help="where the runs' server reaches this one")
options = parser.parse_args()
url = options.url or f"http://127.0.0.1:{options.port}"
secrets = os.environ.get("LYCEUM_CALLBACK_SECRET", "").split()
try:
    secrets = secrets or [lyceum_magic.signing_secret().reveal()]
    with suppress(InvalidCallback):  # no callback yet: only a wrong secret is found out now
        verify(b"", {}, secrets)
except LyceumError as error:
    parser.exit(2, f"{parser.prog}: {error}\n")
except ValueError as error:
    parser.exit(2, f"{parser.prog}: LYCEUM_CALLBACK_SECRET cannot be used: {error}.\n")
bell = threading.Event()


def connect() -> sqlite3.Connection:
    return sqlite3.connect(options.database, timeout=30)


connection = connect()
connection.execute(
    "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, code TEXT NOT NULL, state TEXT NOT "
    "NULL DEFAULT 'waiting', token TEXT, run_id TEXT, told INTEGER NOT NULL DEFAULT 0, result TEXT)"
)


class Receiver(BaseHTTPRequestHandler):
    timeout = 10  # seconds for which a sender may be silent

    def do_POST(self) -> None:
        token = self.path.removeprefix("/jobs/")
        try:
            event = verify(read_body(self.headers, self.rfile), self.headers, secrets)
        except InvalidCallback:
            return self._answer(400)
        own = connect()  # for this thread
        try:
            # One transaction writes the job and the callback's id. After a crash either both are
            # there, and a repetition changes nothing, or neither is, and the callback comes again.
            with SqliteSeen(own).once(event) as is_new:
                if is_new:
                    own.execute(
                        "UPDATE jobs SET state = 'ended', told = told + 1 "
                        "WHERE token = ? AND state = 'running'",
                        (token,),
                    )
        finally:
            own.close()
        # After the commit: a callback that was answered with 2xx is never sent again.
        self._answer(204)
        bell.set()

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `url` may hold a secret of yours."""


def write(job: int, **columns: object) -> None:
    names = ", ".join(f"{name} = ?" for name in columns)
    connection.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*columns.values(), job))
    connection.commit()


def say(job: int, what: object) -> None:
    print(f"job {job}: {what}", file=sys.stderr, flush=True)


def start_waiting() -> None:
    """Start jobs until enough of them are running."""
    (running,) = connection.execute(
        "SELECT count(*) FROM jobs WHERE state IN ('running', 'ended')"
    ).fetchone()
    waiting = connection.execute(
        "SELECT id, code FROM jobs WHERE state = 'waiting' ORDER BY id LIMIT ?",
        (max(0, AT_ONCE - running),),
    )
    for job, code in waiting.fetchall():
        # Mark it as running before the start: its callback may arrive before the start's answer.
        # The token tells this start from every other, also from those of an earlier table.
        token = f"job-{job}-{uuid.uuid4().hex}"
        write(job, state="running", token=token)
        try:
            run = lyceum_magic.submit(
                code, options.machine, name=token, callback_urls=f"{url}/jobs/{token}"
            )
        except (OptionError, SyntaxError, RequestRefused) as error:
            say(job, error)
            write(job, state="refused", result=str(error))  # it would be refused again
        except LyceumError as error:
            say(job, error)  # the run may have started all the same: `find_lost` asks
        else:
            write(job, run_id=run.id)


def find_lost() -> None:
    """Find the runs of jobs whose start got no answer: it broke, or a worker was killed.

    The journal notes every start before it is sent. A job waits again only if its start is not in
    the journal, or if the server was asked and does not have the run.
    """
    lost = connection.execute(
        "SELECT id, token, told FROM jobs WHERE state IN ('running', 'ended') AND run_id IS NULL"
    ).fetchall()
    try:
        entries = {entry.name: entry for entry in lyceum_magic.runs()} if lost else {}
    except LyceumError as error:
        print(error, file=sys.stderr, flush=True)
        return  # the next call looks again
    for job, token, told in lost:
        entry = entries.get(token)
        run_id = entry.run_id if entry else None
        if entry and not run_id and not entry.is_final:
            try:
                run = lyceum_magic.attach(entry.tag)  # asks the server
                run.wait_started()
                run_id = run.id
            except UnknownRun:
                pass  # the server never had it
            except LyceumError as error:
                say(job, error)
                continue  # the server cannot be asked now
        if run_id:
            write(job, state="ended", run_id=run_id)  # or about to end: `read` asks
        else:  # a job whose callback has come was run
            write(job, state="lost" if told else "waiting")


def read(state: str) -> None:
    """Ask the server about the jobs in a state, and write down how they ended."""
    rows = connection.execute(
        "SELECT id, run_id FROM jobs WHERE state = ? AND run_id IS NOT NULL", (state,)
    )
    for job, run_id in rows.fetchall():
        try:
            run = lyceum_magic.attach(run_id)
            end = run.wait(timeout_s=5)
        except TimeoutError:
            continue  # not yet
        except UnknownRun as error:
            say(job, error)
            write(job, state="lost", result=str(error))
        except LyceumError as error:
            say(job, error)  # the next call asks again
        else:
            write(job, state=end, result=run.text.strip())
            print(f"job {job}: {end} {run.text.strip()}", flush=True)


def main() -> None:
    for number in range(options.add):
        connection.execute("INSERT INTO jobs (code) VALUES (?)", (f"print({number} ** 2)",))
    connection.commit()
    SqliteSeen(connection).forget(older_than_s=30 * 24 * 3600)
    with ThreadingHTTPServer(("127.0.0.1", options.port), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while True:
            bell.clear()
            find_lost()
            read("ended")
            start_waiting()
            if not connection.execute(
                "SELECT 1 FROM jobs WHERE state IN ('waiting', 'running', 'ended')"
            ).fetchone():
                break
            if not bell.wait(LOOK_S):
                read("running")
        server.shutdown()
    connection.close()


if __name__ == "__main__":
    main()
