"""Records in the form of the wire."""

from __future__ import annotations

from typing import Any

from ...protocol.events import TIMEOUT
from ...protocol.records import Record
from ...protocol.times import iso
from ..output.tail import Line, OutputTail
from ..run import machine_note
from ..settings import ORG_SLUG
from ..stores.base import RunRecord


def summary(record: RunRecord) -> Record:
    """Return a run in the form of `workloads/list` and `billing/history`."""
    request = record.request
    created, started = iso(record.created_at), iso(record.started_at)
    finished = iso(record.finished_at)
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
        "local_imports": None,
        "errors_docker": None,
        "parent_execution_id": None,
        "system_errors": [record.error] if record.error else [],
        "result": None,
        "billed": 0.0,
        "created_at": created or "",
        "execelet_start": started,  # the wire's spelling
        "job_start": started,
        "job_end": finished,
        "start_time": started,
        "end_time": finished,
        "finish_time": finished,
    }


def log_entry(run_id: str, line: Line, hostname: str) -> dict[str, Any]:
    """Return a line of output in the form of `logs/...`."""
    return {
        "timestamp": iso(line.timestamp),
        "message": line.text,
        "level": "info" if line.stream == "stdout" else "error",
        "execution_id": run_id,
        "user_id": ORG_SLUG,
        "hostname": hostname,
        "labels": {"stream": line.stream},
    }


def full(record: RunRecord, output: OutputTail) -> Record:
    """Return a run in the form of `GET execution/{id}`."""
    return {
        **summary(record),
        "stdout": output.stdout,
        "stderr": output.stderr,
        "combined_output": output.combined,
        "output_truncated": output.is_truncated,
    }
