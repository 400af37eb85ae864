"""The start of a run: checks and tag of its request, and the look-up of a start without reply."""

from __future__ import annotations

import uuid
from typing import TypeVar

import anyio

from ..client.api import Client, StartAnswer, StartUnknown
from ..exceptions import (
    LyceumError,
    OptionError,
    ServerError,
    ServerUnreachable,
    ServiceUnavailable,
    UnknownRun,
)
from ..protocol.limits import MAX_BODY_BYTES, TAG_KEY
from ..protocol.requests import Start

StartT = TypeVar("StartT", bound=Start)

#: The pauses before each look for a run whose start got no reply: it may be listed a bit later.
LOOK_UP_PAUSES_S = (0.0, 0.5, 2.0)


def new_tag() -> str:
    """Return a new identifier, for a run or a process."""
    return uuid.uuid4().hex


def check_body(request: Start) -> None:
    """Check the size of a request.

    Raises:
        OptionError: it is larger than a server takes.
    """
    if request.may_exceed(MAX_BODY_BYTES) and (size := request.size()) > MAX_BODY_BYTES:
        raise OptionError(
            f"The request may have {MAX_BODY_BYTES:,} bytes, and has {size:,}; --dry-run shows "
            "what is large, and large data belongs into storage."
        )


def tagged(request: StartT) -> tuple[StartT, str]:
    """Return a request with a tag in its metadata by which the run can be found, and the tag."""
    metadata = request.metadata or {}
    if (tag := metadata.get(TAG_KEY)) is not None:
        return request, tag
    tag = new_tag()
    return request.model_copy(update={"metadata": {**metadata, TAG_KEY: tag}}), tag


async def start(client: Client, request: Start, tag: str) -> StartAnswer:
    """Start a run; a start that got no reply is looked up by its tag, and never sent again.

    Raises:
        StartUnknown: the run may have been started, and the server cannot be asked.
        LyceumError: nothing was started.
    """
    try:
        return await client.start(request)
    except ServiceUnavailable:
        raise  # it says that nothing was started, and why
    except (StartUnknown, ServerError) as exc:
        return await _find(client, tag, exc)


async def find_unanswered(client: Client, tag: str) -> StartAnswer:
    """Find a run whose kernel ended between sending the start and reading the reply.

    Raises:
        UnknownRun: the server never had it.
        ServerUnreachable: the server cannot be asked.
    """
    never = UnknownRun("This run was never started: its kernel ended before the server had it.")
    return await _find(client, tag, never)


async def _find(client: Client, tag: str, cause: LyceumError) -> StartAnswer:
    """Look for a run by its tag, where its start got no reply.

    Raises:
        ServerUnreachable: the server cannot be asked, or it never had the run.
        LyceumError: the cause, where it already says that nothing was started.
    """
    unasked: ServerUnreachable | None = None
    for pause_s in LOOK_UP_PAUSES_S:
        await anyio.sleep(pause_s)
        try:
            records = [*await client.active(), *await client.history()]
        except ServerUnreachable as exc:
            unasked = exc
            continue
        unasked = None
        for record in records:
            metadata = record.get("metadata")
            if isinstance(metadata, dict) and metadata.get(TAG_KEY) == tag:
                return StartAnswer(str(record["execution_id"]), None)
    if not isinstance(cause, StartUnknown):
        raise unasked or cause
    if unasked is not None:
        raise StartUnknown(
            f"{cause} The server cannot be asked now whether it was started: look at "
            "`%lyceum list` before you run the cell again."
        ) from cause
    raise ServerUnreachable(
        f"{cause} The server has no such run, so nothing was started: run the cell again."
    ) from cause
