"""A worker that runs every job of a table, and ticks each off, once.

    python notebooks/receivers/queue_worker.py --add 5     # five jobs, then work until none is left
    python notebooks/receivers/queue_worker.py             # go on after it was ended, or killed

A job goes waiting -> running -> ended (says its callback) -> its run's state (says the server).
Keep the port: callbacks of runs that outlive this process come to it when it is back.

To copy: `Receiver`, and the one transaction in it. The rest is any worker's.
"""

import argparse
import os
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import lyceum_magic
from lyceum_magic.callbacks import InvalidCallback, SqliteSeen, read_body, verify

AT_ONCE = 4
#: Whoever is told of nothing for so long looks for himself: a callback may be lost for good.
LOOK_S = 60

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--add", type=int, default=0, metavar="N", help="put N jobs into the table")
parser.add_argument("--database", default="jobs.db")
parser.add_argument("--machine", default="cpu")
parser.add_argument("--port", type=int, default=8322)
parser.add_argument("--url", help="where the runs' server reaches this one")
options = parser.parse_args()
url = options.url or f"http://127.0.0.1:{options.port}"
secrets = os.environ.get("LYCEUM_CALLBACK_SECRET", "").split() or [
    lyceum_magic.signing_secret().reveal()
]
bell = threading.Event()


def connect() -> sqlite3.Connection:
    return sqlite3.connect(options.database, timeout=30)


class Receiver(BaseHTTPRequestHandler):
    timeout = 10  # of a sender that says nothing, in seconds

    def do_POST(self) -> None:
        job = self.path.removeprefix("/jobs/")
        try:
            event = verify(read_body(self.headers, self.rfile), self.headers, secrets)
        except InvalidCallback:
            return self._answer(400)
        connection = connect()
        try:
            # The job and the callback's id are written by one transaction: after a crash both are
            # there, and a repetition changes nothing, or neither is, and the sender comes again.
            with SqliteSeen(connection).once(event) as is_new:
                if is_new:
                    connection.execute(
                        "UPDATE jobs SET state = 'ended', told = told + 1 "
                        "WHERE id = ? AND state = 'running'",
                        (job,),
                    )
        finally:
            connection.close()
        # Not before the commit: what is answered with 2xx is never sent again.
        self._answer(204)
        bell.set()

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `url` may hold a secret of yours."""


def start_waiting(connection: sqlite3.Connection) -> None:
    """Starts jobs until enough of them are running."""
    (running,) = connection.execute(
        "SELECT count(*) FROM jobs WHERE state IN ('running', 'ended')"
    ).fetchone()
    waiting = connection.execute(
        "SELECT id, code FROM jobs WHERE state = 'waiting' ORDER BY id LIMIT ?",
        (max(0, AT_ONCE - running),),
    )
    for job, code in waiting.fetchall():
        # Running before it is started: its callback may be here before the start is answered.
        connection.execute("UPDATE jobs SET state = 'running' WHERE id = ?", (job,))
        connection.commit()
        run = lyceum_magic.submit(
            code, options.machine, name=name_of(job), callback_urls=f"{url}/jobs/{job}"
        )
        connection.execute("UPDATE jobs SET run_id = ? WHERE id = ?", (run.id, job))
        connection.commit()


def read(connection: sqlite3.Connection, state: str) -> None:
    """Asks the server about the jobs in a state, and writes down what has become of them."""
    rows = connection.execute(
        "SELECT id, run_id FROM jobs WHERE state = ? AND run_id IS NOT NULL", (state,)
    )
    for job, run_id in rows.fetchall():
        run = lyceum_magic.attach(run_id)
        try:
            end = run.wait(timeout_s=5)
        except TimeoutError:
            continue  # not yet
        connection.execute(
            "UPDATE jobs SET state = ?, result = ? WHERE id = ?", (end, run.text.strip(), job)
        )
        connection.commit()
        print(f"job {job}: {end} {run.text.strip()}", flush=True)


def resume(connection: sqlite3.Connection) -> None:
    """Finds the runs of jobs that an earlier process had begun to start when it ended."""
    runs = {entry.name: entry.run_id for entry in lyceum_magic.runs() if entry.run_id}
    lost = connection.execute("SELECT id FROM jobs WHERE state = 'running' AND run_id IS NULL")
    for (job,) in lost.fetchall():
        run_id = runs.get(name_of(job))
        state = "running" if run_id else "waiting"
        connection.execute(
            "UPDATE jobs SET run_id = ?, state = ? WHERE id = ?", (run_id, state, job)
        )
    connection.commit()


def name_of(job: int) -> str:
    return f"job {job} of {os.path.abspath(options.database)}"


def main() -> None:
    connection = connect()
    connection.execute(
        "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, code TEXT NOT NULL, state TEXT "
        "NOT NULL DEFAULT 'waiting', run_id TEXT, told INTEGER NOT NULL DEFAULT 0, result TEXT)"
    )
    for number in range(options.add):
        connection.execute("INSERT INTO jobs (code) VALUES (?)", (f"print({number} ** 2)",))
    connection.commit()
    SqliteSeen(connection).forget(older_than_s=30 * 24 * 3600)
    with ThreadingHTTPServer(("127.0.0.1", options.port), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        resume(connection)
        while True:
            bell.clear()
            read(connection, "ended")
            start_waiting(connection)
            if not connection.execute(
                "SELECT 1 FROM jobs WHERE state IN ('waiting', 'running', 'ended')"
            ).fetchone():
                break
            if not bell.wait(LOOK_S):
                read(connection, "running")
        server.shutdown()
    connection.close()


if __name__ == "__main__":
    main()
