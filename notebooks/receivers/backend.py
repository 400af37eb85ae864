"""A web backend that starts trainings, and hears of their ends by callbacks.

    python notebooks/receivers/backend.py
    curl -X POST http://127.0.0.1:8321/trainings        # -> {"page": "/trainings/1"}

`BACKEND_URL` is the URL at which the runs' server reaches this one, if that is not this machine.

To copy: `whole_body`, `on_callback`, `read_ended`, and the order in `start`: the row comes first.
"""

import html
import logging
import os
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

import lyceum_magic
from lyceum_magic.callbacks import MAX_BODY_BYTES, InvalidCallback, SqliteSeen, verify

TRAINING = """
weight = 0.0
for epoch in range(40):
    weight -= 0.1 * 2 * (weight - 3)
print(f"loss {(weight - 3) ** 2:.6f}")
"""

PORT = int(os.environ.get("PORT", "8321"))
URL = os.environ.get("BACKEND_URL", f"http://127.0.0.1:{PORT}")
DATABASE = os.environ.get("DATABASE", "trainings.db")
MACHINE = os.environ.get("MACHINE", "cpu")
LOOK_S = float(os.environ.get("LOOK_S", "60"))

logger = logging.getLogger("uvicorn.error")
bell = threading.Event()


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(DATABASE, timeout=30)
    try:
        yield connection
    finally:
        connection.close()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with database() as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS trainings (id INTEGER PRIMARY KEY, token TEXT NOT NULL, "
            "told INTEGER NOT NULL DEFAULT 0, run_id TEXT, state TEXT, output TEXT)"
        )
        # The journal does not know these: this process was killed before their start was noted, or
        # their runs were forgotten.
        known = entries()
        for (token,) in connection.execute(
            "SELECT token FROM trainings WHERE state IS NULL"
        ).fetchall():
            if token not in known:
                connection.execute(
                    "UPDATE trainings SET state = 'not started, or forgotten' WHERE token = ?",
                    (token,),
                )
        connection.commit()
    # `%lyceum callbacks secret` shows it. While it is changed, give both: "whsec_new whsec_old".
    app.state.secrets = os.environ.get("LYCEUM_CALLBACK_SECRET", "").split() or [
        lyceum_magic.signing_secret().reveal()
    ]
    # One thread asks the runs' server, so that callbacks never wait for a slow server.
    threading.Thread(target=keep_reading, daemon=True).start()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/trainings", status_code=201)
def start() -> dict[str, str]:
    # The row comes first, and the URL names it: the callback of a short run may arrive before the
    # answer to its start. The token is the run's name, by which the run is found in any case.
    token = f"training-{uuid.uuid4().hex}"
    with database() as connection:
        training = connection.execute(
            "INSERT INTO trainings (token) VALUES (?)", (token,)
        ).lastrowid
        connection.commit()
        try:
            run = lyceum_magic.submit(
                TRAINING, MACHINE, name=token, callback_urls=f"{URL}/callbacks/{token}"
            )
        except lyceum_magic.LyceumError as error:
            entry = entries().get(token)
            if entry is None or (entry.is_final and not entry.run_id):
                connection.execute("DELETE FROM trainings WHERE id = ?", (training,))
                connection.commit()
                raise HTTPException(502, str(error)) from None
            # The run may have started, but the server does not answer now: `read_ended` asks again.
            logger.warning("training %s: %s", training, error)
        else:
            connection.execute("UPDATE trainings SET run_id = ? WHERE id = ?", (run.id, training))
            connection.commit()
    return {"page": f"/trainings/{training}"}


def entries() -> dict[str, Any]:
    """Return the journal's entries of the trainings' runs, by their tokens."""
    return {entry.name: entry for entry in lyceum_magic.runs()}


async def whole_body(request: Request) -> bytes:
    """Return the bytes that were signed, of which no callback has more than `MAX_BODY_BYTES`."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413)
    return body


@app.post("/callbacks/{token}", status_code=204)
def on_callback(token: str, request: Request, body: Annotated[bytes, Depends(whole_body)]) -> None:
    try:
        event = verify(body, request.headers, app.state.secrets)
    except InvalidCallback as refusal:
        raise HTTPException(400, str(refusal)) from None
    with database() as connection, SqliteSeen(connection).once(event) as is_new:
        if is_new:
            # Only noted here, so that the answer goes out at once. The note is on disk before the
            # answer: the training is read even if this process is killed now.
            connection.execute("UPDATE trainings SET told = 1 WHERE token = ?", (token,))
    bell.set()


def keep_reading() -> None:
    while True:
        bell.clear()
        try:
            read_ended()
        except Exception:  # such as a full disk: this thread must go on
            logger.exception("trainings were not read")
        # A callback may be lost for good: without one, look now and then.
        bell.wait(LOOK_S)


def read_ended() -> None:
    """Ask the server how trainings have ended: a callback is only a hint."""
    with database() as connection:
        rows = connection.execute(
            "SELECT id, token, told FROM trainings WHERE state IS NULL ORDER BY told DESC"
        ).fetchall()
        runs = entries() if rows else {}
        for training, token, told in rows:
            if token not in runs:
                continue  # it is about to be started
            try:
                # By the tag if there is no id yet: then the server is asked whether it has the run.
                run = lyceum_magic.attach(runs[token].run_id or runs[token].tag)
                state = run.wait(timeout_s=5 if told else 0)
            except TimeoutError:
                continue  # not over yet; this process goes on following it
            except lyceum_magic.LyceumError as error:
                # The note stays, and is read the next time.
                logger.warning("training %s was not read: %s", training, error)
                continue
            connection.execute(
                "UPDATE trainings SET run_id = ?, state = ?, output = ? WHERE id = ?",
                (run.id, state, run.text or run.reason, training),
            )
            connection.commit()


@app.get("/trainings/{training}", response_class=HTMLResponse)
def show(training: int) -> str:
    with database() as connection:
        row = connection.execute(
            "SELECT run_id, state, output FROM trainings WHERE id = ?", (training,)
        ).fetchone()
    if row is None:
        raise HTTPException(404)
    run_id, state, output = (html.escape(text or "") for text in row)
    return f"<h1>{state or 'running'}</h1><p>run {run_id}</p><pre>{output}</pre>"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT)
