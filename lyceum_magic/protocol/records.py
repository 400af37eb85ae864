"""The run's record, as `GET execution/{id}`, `workloads/list` and `billing/history` give it."""

from __future__ import annotations

from typing import Any, TypedDict

from .events import TIMEOUT, Finished, parse_return_code
from .lines import one_line
from .states import State, parse_state


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


def finished_of(record: Record) -> Finished | None:
    """Return the end of a run as its stream would send it; None if the run has not ended."""
    status = record.get("status")
    state = parse_state(str(status))
    if state is None or not state.is_final:
        return None
    code = parse_return_code(record.get("return_code"))
    errors = record.get("system_errors") or []
    problem = one_line(errors[0]) if isinstance(errors, list) and errors else ""
    if state is not State.COMPLETED and not problem and not code:
        problem = f"the run ended as {status}"
    return Finished(state, code, problem, TIMEOUT in (status, record.get("status_details")))
