"""`workloads/...`, `logs/...` and `billing/history`: listing, ending and reading back runs."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query

from ...protocol import paths
from ...protocol.records import Record
from ...protocol.states import parse_state
from ..output.tail import read_lines
from ..stores.base import RunRecord
from .description import problems
from .parts import Service
from .wire import log_entry, summary

router = APIRouter()


@router.get(paths.WORKLOADS, response_model=None)
async def list_active(service: Service, status: str | None = None) -> list[Record]:
    wanted = parse_state(status) if status else None
    return [
        summary(record)
        for record in service.active()
        if not status or record.state is wanted
    ]  # fmt: skip


@router.post(paths.abort("{run_id}"), responses=problems(404))
async def abort(run_id: str, service: Service) -> dict[str, str]:
    return _ordered(await service.abort(run_id), "aborted")


@router.post(paths.stop("{run_id}"), responses=problems(404))
async def stop(run_id: str, service: Service) -> dict[str, str]:
    return _ordered(await service.stop(run_id), "stopped")


@router.get(paths.logs("{run_id}"), responses=problems(404))
async def read_logs(
    run_id: str,
    service: Service,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    hours: Annotated[int, Query(ge=1, le=168)] = 24,
) -> dict[str, Any]:
    run = await service.find(run_id)
    since = time.time() - hours * 3600
    lines = await asyncio.to_thread(read_lines, run.spool, limit=limit, since=since)
    hostname = socket.gethostname()
    logs = [log_entry(run_id, line, hostname) for line in lines]
    return {"logs": logs, "total": len(logs)}


@router.get(paths.HISTORY, response_model=None)
async def read_history(
    service: Service,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> dict[str, Any]:
    page = await service.history(limit=limit, offset=offset)
    return {
        "executions": [summary(record) for record in page.records],
        "total_executions": page.total,
        "total_credits_spent": 0.0,
        "limit": limit,
        "offset": offset,
        "counts_by_status": {state.value: number for state, number in page.counts_by_state.items()},
    }


def _ordered(record: RunRecord, verb: str) -> dict[str, str]:
    if record.state.is_final:
        message = f"The run is over: {record.state.value}."
    else:
        message = f"The run is being {verb}; it is not over yet."
    return {"execution_id": record.run_id, "status": record.state.value, "message": message}
