"""A web backend that starts trainings, and is told when they end.

    python notebooks/receivers/backend.py
    curl -X POST http://127.0.0.1:8321/trainings        # -> {"page": "/trainings/1"}

`BACKEND_URL` says where the server of the runs reaches this one, if that is not this machine.

To copy: `on_callback` and `read_ended`, and of `start` that the row comes before the run.
"""

import html
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated

import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request
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

logger = logging.getLogger("uvicorn.error")


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
            "CREATE TABLE IF NOT EXISTS trainings (id INTEGER PRIMARY KEY, run_id TEXT, "
            "told INTEGER NOT NULL DEFAULT 0, state TEXT, output TEXT)"
        )
    # `%lyceum callbacks secret` shows it. While it is changed, give both: "whsec_new whsec_old".
    app.state.secrets = os.environ.get("LYCEUM_CALLBACK_SECRET", "").split() or [
        lyceum_magic.signing_secret().reveal()
    ]
    # What was noted and not read, because this process had ended in between.
    threading.Thread(target=read_ended, daemon=True).start()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/trainings", status_code=201)
def start(later: BackgroundTasks) -> dict[str, str]:
    with database() as connection:
        # The row comes first, and the URL names it: the callback of a short run may be here before
        # the answer to its start is.
        training = connection.execute("INSERT INTO trainings DEFAULT VALUES").lastrowid
        connection.commit()
        try:
            run = lyceum_magic.submit(
                TRAINING, MACHINE, callback_urls=f"{URL}/callbacks/{training}"
            )
        except lyceum_magic.LyceumError as error:
            connection.execute("DELETE FROM trainings WHERE id = ?", (training,))
            connection.commit()
            raise HTTPException(502, str(error)) from None
        connection.execute("UPDATE trainings SET run_id = ? WHERE id = ?", (run.id, training))
        connection.commit()
    later.add_task(read_ended)
    return {"page": f"/trainings/{training}"}


async def whole_body(request: Request) -> bytes:
    """The bytes that were signed. Read no more of a stranger's request than a callback has."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413)
    return body


@app.post("/callbacks/{training}", status_code=204)
def on_callback(
    training: int,
    request: Request,
    body: Annotated[bytes, Depends(whole_body)],
    later: BackgroundTasks,
) -> None:
    try:
        event = verify(body, request.headers, app.state.secrets)
    except InvalidCallback as refusal:
        raise HTTPException(400, str(refusal)) from None
    with database() as connection, SqliteSeen(connection).once(event) as is_new:
        if is_new:
            # Only noted here, so that the answer goes out at once. The note is on disk before it:
            # whatever happens to this process now, the training is read.
            connection.execute("UPDATE trainings SET told = 1 WHERE id = ?", (training,))
    later.add_task(read_ended)


def read_ended() -> None:
    """Asks the server about trainings that are said to have ended: a callback is only a hint."""
    with database() as connection:
        rows = connection.execute(
            "SELECT id, run_id FROM trainings WHERE told AND state IS NULL AND run_id IS NOT NULL"
        )
        for training, run_id in rows.fetchall():
            try:
                run = lyceum_magic.attach(run_id)
                state = run.wait(timeout_s=60)
            except (lyceum_magic.LyceumError, TimeoutError) as error:
                # The note stays, and is read with the next one, or at the next start.
                logger.warning("training %s was not read: %s", training, error)
                continue
            connection.execute(
                "UPDATE trainings SET state = ?, output = ? WHERE id = ?",
                (state, run.text, training),
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
