"""`execution/...`: starting runs, and reading one run's record."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ...protocol import paths
from ...protocol.records import Record
from ...protocol.requests import Start, StartCompose, StartImage, StartPython
from ...protocol.states import legacy_name
from ...protocol.times import iso
from ..output.tail import read_tail
from ..service import RunService
from ..stream_secrets import StreamSecrets
from .description import problems
from .parts import Service, StreamUrls
from .wire import full

#: The most output of each stream in a record; the whole output is in the event stream.
RECORD_OUTPUT_BYTES = 1 << 20


class StartReply(BaseModel):
    """The answer to a start. The URL holds a secret: everyone who knows it can read the run."""

    execution_id: str
    status: str
    streaming_url: str


router = APIRouter()


@router.post(paths.START_PYTHON, responses=problems(409, 503))
async def start_python(
    body: StartPython, request: Request, service: Service, urls: StreamUrls
) -> StartReply:
    return await _start(body, request, service, urls)


@router.post(paths.START_IMAGE, responses=problems(409, 503))
async def start_image(
    body: StartImage, request: Request, service: Service, urls: StreamUrls
) -> StartReply:
    return await _start(body, request, service, urls)


@router.post(paths.START_COMPOSE, responses=problems(503))
async def start_compose(
    body: StartCompose, request: Request, service: Service, urls: StreamUrls
) -> StartReply:
    return await _start(body, request, service, urls)


async def _start(
    body: Start, request: Request, service: RunService, secrets: StreamSecrets
) -> StartReply:
    secrets.check()  # before anything is started
    record = await service.start(body)
    path = f"{paths.stream(record.run_id)}/{secrets.of(record.run_id)}"
    return StartReply(
        execution_id=record.run_id,
        status=record.state.value,
        # The guard has checked the Host header that this origin comes from.
        streaming_url=f"{str(request.base_url).rstrip('/')}{path}",
    )


@router.get(paths.legacy_status("{run_id}"), responses=problems(404))
async def read_legacy_status(run_id: str, service: Service) -> dict[str, Any]:
    record = (await service.find(run_id)).record
    return {
        "execution_id": run_id,
        "status": legacy_name(record.state, timed_out=record.timed_out),
        "errors": record.error or None,
    }


@router.get(paths.record("{run_id}"), response_model=None, responses=problems(404))
async def read_record(run_id: str, service: Service) -> Record:
    run = await service.find(run_id)
    tail = await asyncio.to_thread(read_tail, run.spool, max_bytes=RECORD_OUTPUT_BYTES)
    return full(run.record, tail)


@router.get(paths.timing("{run_id}"), responses=problems(404))
async def read_timing(run_id: str, service: Service) -> dict[str, Any]:
    record = (await service.find(run_id)).record
    is_timed = record.started_at is not None and record.finished_at is not None
    return {
        "execution_id": run_id,
        "start_time": iso(record.started_at),
        "end_time": iso(record.finished_at),
        "duration_seconds": (
            (record.finished_at or 0) - (record.started_at or 0) if is_timed else None
        ),
    }
