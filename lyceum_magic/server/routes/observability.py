"""The metrics of runs, the logs of all runs, and their costs."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import psutil
from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from ...protocol import paths
from ...protocol.times import iso
from ..machines import MACHINES
from ..metrics import read_samples, series
from ..output.tail import NewestLines
from .description import problems
from .parts import Service, Settings
from .wire import log_entry

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600}


router = APIRouter()


@router.get(paths.metrics("{run_id}"), responses=problems(404))
async def read_metrics(
    run_id: str,
    service: Service,
    settings: Settings,
    start: datetime | None = None,
    end: datetime | None = None,
    step: Annotated[str, Query(pattern=r"^[1-9][0-9]{0,4}[smh]?$")] = "15s",
) -> dict[str, Any]:
    run = await service.find(run_id)
    began_at = run.record.started_at or run.record.created_at
    start_s = began_at if start is None else _seconds(start, "start")
    ended_at = run.record.finished_at or time.time()
    end_s = ended_at if end is None else _seconds(end, "end")
    if end_s < start_s:
        raise _invalid("end", "The end must not be before the start.")
    limit_bytes = settings.memory_limit_bytes if run.record.request.kind == "python" else None
    found = series(
        await asyncio.to_thread(read_samples, run.spool),
        began_at=began_at,
        start=start_s,
        end=end_s,
        step_s=_step_s(step),
        total_bytes=limit_bytes or psutil.virtual_memory().total,
    )
    return {
        "executionId": run_id,
        "hostname": socket.gethostname(),
        "timeRange": {"start": iso(start_s), "end": iso(end_s)},
        **{
            name: [{"timestamp": iso(point.at), "value": point.value} for point in points]
            for name, points in found.items()
        },
    }


@router.get(paths.USER_LOGS)
async def read_all_logs(
    service: Service,
    limit: Annotated[int, Query(ge=1, le=5000)] = 100,
    hours: Annotated[int, Query(ge=1, le=24)] = 1,
) -> dict[str, Any]:
    since = time.time() - hours * 3600
    newest = NewestLines(limit=limit, since=since)
    # Live runs first: a run that ends during this is met twice rather than never.
    spools = dict(service.spools_going_on())
    await asyncio.to_thread(newest.add, spools)
    async for runs in service.ended_since(since):
        # A run prints nothing after its end, and these come in the order of their ends.
        if newest.are_newer_than(runs[0].ended_at):
            break
        more = {run.run_id: run.spool for run in runs if run.spool and run.run_id not in spools}
        await asyncio.to_thread(newest.add, more)
    hostname = socket.gethostname()
    logs = [log_entry(run_id, line, hostname) for run_id, line in newest.lines()]
    return {"logs": logs, "total": len(logs)}


@router.get(paths.CREDITS)
async def read_credits() -> dict[str, Any]:
    # Nothing costs anything here, so nothing is bought or used up.
    amounts = dict.fromkeys(
        (
            "available_credits", "used_credits", "total_credits_used", "remaining_credits",
            "monthly_free_credits", "purchased_credits",
        ),
        0.0,
    )  # fmt: skip
    return {**amounts, "signup_grant_claimed_at": None}


@router.get(paths.PRICING)
async def read_prices() -> dict[str, Any]:
    prices = [
        {
            "meter_slug": "execution",
            "unit_price": machine.price_per_hour,
            "unit_price_per_hour": machine.price_per_hour,
            "group_by": {"hardware_profile": machine.name},
            "applies_to": {},
        }
        for machine in MACHINES.values()
    ]
    return {"prices": prices}


def _seconds(moment: datetime, field: str) -> float:
    """Return seconds since 1970; a moment without an offset is in UTC."""
    try:
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        datetime.fromtimestamp(seconds, UTC)  # the reply shows it again
        return seconds
    except (OverflowError, ValueError):
        raise _invalid(field, "The moment is outside the range of dates.") from None


def _step_s(step: str) -> int:
    match = re.fullmatch(r"(\d+)([smh]?)", step)
    assert match is not None  # the route has validated it
    return int(match[1]) * _UNITS_S[match[2]]


def _invalid(field: str, message: str) -> RequestValidationError:
    problem = {"loc": ("query", field), "msg": message, "type": "value_error"}
    return RequestValidationError([problem])
