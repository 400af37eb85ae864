"""Records as the wire has them."""

from __future__ import annotations

from datetime import UTC, datetime

from ...protocol.events import TIMEOUT
from ...protocol.records import Record
from ..output_tail import OutputTail
from ..stores.base import RunRecord
from ..tracked_run import machine_note


def iso(time_s: float | None) -> str | None:
    """ISO 8601 in UTC of seconds since 1970."""
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat()


def summary(record: RunRecord) -> Record:
    """A run as `workloads/list` and `billing/history` give it."""
    request = record.request
    created, started, finished = (
        iso(record.created_at), iso(record.started_at), iso(record.finished_at),
    )  # fmt: skip
    return {
        "execution_id": record.run_id,
        "status": record.state.value,
        "status_details": TIMEOUT if record.timed_out else machine_note(record) or None,
        "execution_type": request.execution_type,
        "hardware_profile": request.execution_type,
        "job_type": record.job_type,
        "file_name": request.file_name,
        "run_name": request.run_name,
        "labels": request.labels or [],
        "metadata": request.metadata or {},
        "timeout": request.timeout,
        "return_code": record.return_code,
        "system_errors": [record.error] if record.error else [],
        "result": None,
        "billed": 0.0,
        "created_at": created or "",
        "job_start": started,
        "job_end": finished,
        "start_time": started,
        "end_time": finished,
    }


def full(record: RunRecord, output: OutputTail) -> Record:
    """A run as `GET execution/{id}` gives it."""
    return {
        **summary(record),
        "stdout": output.stdout,
        "stderr": output.stderr,
        "combined_output": output.combined,
        "output_truncated": output.is_truncated,
    }
