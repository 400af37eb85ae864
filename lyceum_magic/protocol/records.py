"""The run's record, as `GET execution/{id}`, `workloads/list` and `billing/history` give it."""

from __future__ import annotations

from typing import Any, TypedDict


class Record(TypedDict, total=False):
    """Every field is optional to a reader; the embedded server sends them all.

    Timestamps are ISO 8601 strings in UTC, `billed` is dollars, `timeout` seconds.
    """

    execution_id: str
    status: str
    status_details: str | None
    execution_type: str
    hardware_profile: str
    job_type: str
    file_name: str | None
    run_name: str | None
    labels: list[str]
    metadata: dict[str, str]
    timeout: int
    return_code: int | None
    system_errors: list[str]
    result: Any
    billed: float
    created_at: str
    execelet_start: str | None  # spelled so
    job_start: str | None
    job_end: str | None
    start_time: str | None
    end_time: str | None
    finish_time: str | None
    local_imports: Any
    errors_docker: Any
    parent_execution_id: str | None
    stdout: str
    stderr: str
    combined_output: str
    output_truncated: bool
