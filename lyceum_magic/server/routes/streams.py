"""The event stream of a run, by its secret URL and by its id alone."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import Response

from ...exceptions import UnknownRun
from ...protocol import paths
from ..output.event_stream import EventStreamResponse, is_record_end
from ..service import RunService
from .description import Responses, problems
from .errors import BadEventId
from .parts import Closing, Service, StreamUrls

LastEventId = Annotated[str | None, Header()]

_EVENTS: Responses = {
    200: {"content": {"text/event-stream": {}}, "description": "The run's events."},
    **problems(404),
}


router = APIRouter()


# The official client POSTs, older ones GET.
@router.get(paths.stream("{run_id}") + "/{secret}", responses=_EVENTS, response_class=Response)
@router.post(paths.stream("{run_id}") + "/{secret}", responses=_EVENTS, response_class=Response)
async def stream_by_secret(
    run_id: str,
    secret: str,
    urls: StreamUrls,
    service: Service,
    closing: Closing,
    last_event_id: LastEventId = None,
) -> Response:
    if not urls.fits(run_id, secret):
        # The same answer as for an unknown run, so that guesses teach nothing.
        raise UnknownRun(f"No run has the id {run_id!r}.")
    return await _stream(service, closing, run_id, last_event_id)


@router.get(paths.stream("{run_id}"), responses=_EVENTS, response_class=Response)
@router.post(paths.stream("{run_id}"), responses=_EVENTS, response_class=Response)
async def stream_by_id(
    run_id: str, service: Service, closing: Closing, last_event_id: LastEventId = None
) -> Response:
    return await _stream(service, closing, run_id, last_event_id)


async def _stream(
    service: RunService, closing: asyncio.Event, run_id: str, last_event_id: str | None
) -> Response:
    run = await service.find(run_id)
    offset = 0
    if last_event_id:
        is_number = last_event_id.isascii() and last_event_id.isdecimal()
        offset = int(last_event_id) if is_number and len(last_event_id) < 20 else -1
        if offset < 0 or not await asyncio.to_thread(is_record_end, run.spool, offset):
            raise BadEventId(f"Last-Event-ID: no event of this run has that id: {run_id}.")
    return EventStreamResponse(service, run, offset, closing)
